// The browser's side of a small shared world. The server decides everything; this page draws it, and steers.
import { Client } from "./client.js";
import { showState } from "./state.js";

const SIZE = 1000; // width and height of the world
const RADIUS = 14; // of a player
const NEAR = 20; // a player this close to the finger stops
const KEYS = /** @type {Record<string, [dx: number, dy: number]>} */ ({
  ArrowUp: [0, -1], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowRight: [1, 0],
  KeyW: [0, -1], KeyA: [-1, 0], KeyS: [0, 1], KeyD: [1, 0], // physical keys, whatever the keyboard layout
});

/** @typedef {{ players: Record<string, [name: string, x: number, y: number, coins: number]>,
 *              coins: [x: number, y: number][], at: number }} Picture at: when it arrived, in milliseconds */

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
let socket = /** @type {Client | undefined} */ (undefined);
let [before, latest] = /** @type {Picture[]} */ ([]);
let direction = "0,0"; // the last one sent
let finger = /** @type {{ x: number, y: number } | null} */ (null); // its place in the world
const pressed = new Set(); // of KEYS

// Entering.

$("name").value = remembered();
$("enter").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) return;
  remember(name);
  $("enter").hidden = true;
  $("news").textContent = "";
  play(name);
});

/** @param {string} name */
function play(name) {
  socket = new Client(location.origin, { namespace: "/game", auth: { name } });
  showState(socket, $("state"));
  socket.onconnected = () => { direction = "0,0"; }; // the server has added a new player
  socket.onrefused = ({ message }) => {
    $("news").textContent = `Not now: ${message}.`;
    $("enter").hidden = false;
  };
  socket.on("world", ({ players, coins }) => {
    before = latest;
    latest = { players, coins, at: performance.now() };
    showScores();
    steer();
  });
  socket.on("won", (name) => { $("news").textContent = `${name} has won. A new round begins.`; });
}

function remembered() { try { return localStorage.getItem("name") ?? ""; } catch { return ""; } }

/** @param {string} name */
function remember(name) { try { localStorage.setItem("name", name); } catch { /* the page asks again next time */ } }

// Steering.

addEventListener("keydown", (event) => {
  if (!(event.code in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!socket || event.target instanceof HTMLInputElement) return;
  event.preventDefault(); // keeps the page from scrolling
  pressed.add(event.code);
  steer();
});
addEventListener("keyup", ({ code }) => { pressed.delete(code); steer(); });
addEventListener("blur", () => { pressed.clear(); finger = null; steer(); });
for (const type of ["pointerdown", "pointermove"]) $("world").addEventListener(type, drag);
for (const type of ["pointerup", "pointercancel"]) $("world").addEventListener(type, drop);

/** @param {PointerEvent} event */
function drag(event) {
  if (!event.buttons || !event.isPrimary) return;
  $("world").setPointerCapture(event.pointerId);
  const scale = SIZE / $("world").clientWidth;
  finger = { x: event.offsetX * scale, y: event.offsetY * scale };
  steer();
}
function drop() { finger = null; steer(); }

/** Sends the direction if it has changed. */
function steer() {
  if (socket?.state.name !== "online") return; // offline, the direction would only be queued
  const next = wanted();
  if (next.join() !== direction) socket.emit("steer", ...next);
  direction = next.join();
}

/** @returns {number[]} */
function wanted() {
  const own = latest?.players[socket?.id ?? ""];
  if (finger && own) {
    const [dx, dy] = [finger.x - own[1], finger.y - own[2]];
    const distance = Math.hypot(dx, dy);
    return distance < NEAR ? [0, 0] : [dx, dy].map((part) => Math.round((10 * part) / distance) / 10);
  }
  const steps = [...pressed].map((code) => KEYS[code]);
  return [0, 1].map((axis) => Math.sign(steps.reduce((sum, step) => sum + step[axis], 0)));
}

// Text: the scores, and the figures once a second.

function showScores() {
  const players = Object.entries(latest.players).sort(([, one], [, other]) => other[3] - one[3]);
  const scores = players.map(([id, [name, , , coins]]) => [`${name}: ${coins}`, id === socket?.id]);
  if ($("scores").dataset.shown === JSON.stringify(scores)) return;
  $("scores").dataset.shown = JSON.stringify(scores);
  $("scores").replaceChildren(...scores.map(([text, own]) => {
    const item = document.createElement("li");
    item.textContent = own ? `${text} (you)` : text;
    item.className = own ? "own" : "";
    return item;
  }));
}

setInterval(async () => {
  if (socket?.state.name !== "online") return;
  const start = performance.now();
  const answered = await socket.request("echo").catch(() => false); // the connection was lost; try again next time
  $("latency").textContent = answered ? `${Math.round(performance.now() - start)} ms` : "–";
  const label = `The world: ${Object.keys(latest?.players ?? {}).length} playing`;
  if ($("world").ariaLabel !== label) $("world").ariaLabel = label;
}, 1000);

// The world.

requestAnimationFrame(draw);
function draw() {
  requestAnimationFrame(draw);
  const canvas = $("world");
  canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio); // also clears it
  const context = canvas.getContext("2d");
  context.scale(canvas.width / SIZE, canvas.width / SIZE);
  if (!latest) return;
  context.font = `${(13 * SIZE) / canvas.clientWidth}px system-ui, sans-serif`; // 13 CSS pixels at any size
  [context.textAlign, context.lineWidth] = ["center", 3];
  const circle = (/** @type {[x: number, y: number, radius: number]} */ ...place) => {
    context.beginPath();
    context.arc(...place, 0, 2 * Math.PI);
  };

  context.fillStyle = getComputedStyle($("coin")).color;
  for (const [x, y] of latest.coins) { circle(x, y, RADIUS / 2); context.fill(); }
  // Drawn one picture late, so that places can be interpolated between two pictures.
  const time = before ? Math.max(1, latest.at - before.at) : 1;
  const part = Math.min(1, (performance.now() - latest.at) / time);
  for (const [id, [name, newX, newY]] of Object.entries(latest.players)) {
    const [, oldX, oldY] = before?.players[id] ?? [name, newX, newY];
    const [x, y] = [oldX + (newX - oldX) * part, oldY + (newY - oldY) * part];
    const own = id === socket?.id;
    context.fillStyle = context.strokeStyle = getComputedStyle($(own ? "own" : "other")).color;
    circle(x, y, RADIUS);
    context.fill();
    if (own) { circle(x, y, RADIUS + 8); context.stroke(); }
    context.fillText(name, x, y - RADIUS - 14);
  }
}
