// The browser's side of a small shared world: the server decides everything; here it is shown, and steered.
import { Client } from "./client.js";
import { showState } from "./state.js";

const SIZE = 1000; // width and height of the world
const RADIUS = 14; // of a player
const NEAR = 20; // so close to the finger is close enough
const KEYS = /** @type {Record<string, [dx: number, dy: number]>} */ ({
  ArrowUp: [0, -1], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowRight: [1, 0],
  KeyW: [0, -1], KeyA: [-1, 0], KeyS: [0, 1], KeyD: [1, 0], // the places of the keys, whatever is on them
});

/** @typedef {{ players: Record<string, [name: string, x: number, y: number, coins: number]>,
 *              coins: [x: number, y: number][], at: number }} Picture at: milliseconds, when it came */

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
let socket = /** @type {Client | undefined} */ (undefined);
let [before, latest] = /** @type {Picture[]} */ ([]);
let direction = "0,0"; // that the server knows
let finger = /** @type {{ x: number, y: number } | null} */ (null); // where it is in the world
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
  socket.onconnected = () => { direction = "0,0"; }; // the server has added us anew
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
  socket.on("won", (name) => { $("news").textContent = `${name} has won, and a new round begins.`; });
}

function remembered() { try { return localStorage.getItem("name") ?? ""; } catch { return ""; } }

/** @param {string} name */
function remember(name) { try { localStorage.setItem("name", name); } catch { /* then it asks again */ } }

// Steering.

addEventListener("keydown", (event) => {
  if (!(event.code in KEYS) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!socket || event.target instanceof HTMLInputElement) return;
  event.preventDefault(); // the page is not to scroll
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

/** Tells the server the direction, if it is another one. */
function steer() {
  if (socket?.state.name !== "online") return; // nothing is to be queued
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

// Words: the scores, and the figures once a second.

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
  const answered = await socket.request("echo").catch(() => false); // the connection was lost: next time
  $("latency").textContent = answered ? `${Math.round(performance.now() - start)} ms` : "–";
  const label = `The world: ${Object.keys(latest?.players ?? {}).length} playing`;
  if ($("world").ariaLabel !== label) $("world").ariaLabel = label;
}, 1000);

// The world.

requestAnimationFrame(draw);
function draw() {
  requestAnimationFrame(draw);
  const canvas = $("world");
  canvas.width = canvas.height = Math.round(canvas.clientWidth * devicePixelRatio); // this clears it, too
  const context = canvas.getContext("2d");
  context.scale(canvas.width / SIZE, canvas.width / SIZE);
  if (!latest) return;
  context.font = `${(13 * SIZE) / canvas.clientWidth}px system-ui, sans-serif`; // 13 pixels, however small
  [context.textAlign, context.lineWidth] = ["center", 3];
  const circle = (/** @type {[x: number, y: number, radius: number]} */ ...place) => {
    context.beginPath();
    context.arc(...place, 0, 2 * Math.PI);
  };

  context.fillStyle = getComputedStyle($("coin")).color;
  for (const [x, y] of latest.coins) { circle(x, y, RADIUS / 2); context.fill(); }
  // One picture late, so that there are two to go between.
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
