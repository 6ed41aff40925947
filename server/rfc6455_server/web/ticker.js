// A live chart of prices, and a demonstration of what a tab that is too slow gets.
import { Client } from "./client.js";
import { showState } from "./state.js";

const SPAN = 30; // seconds that the chart shows
const GAP = 0.5; // a line is interrupted after this many seconds without a tick
const SLOW = 5; // seconds
const LINES = 6; // the number of line colours in style.css

/** @typedef {{ at: number, percent: number }} Point at: seconds of the server's clock */
/** @typedef {{ name: string, first: number, price: number, points: Point[], row: Row }} Stock */
/** @typedef {{ label: Element, shown: HTMLInputElement, price: Element, change: Element }} Row */

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const socket = new Client(location.origin, { namespace: "/ticker" });
const stocks = /** @type {Map<string, Stock>} */ (new Map());
let received = 0;
let fastest = Infinity; // the smallest difference between our clock and a tick's time, in seconds
let oldest = 0; // the largest delay of a tick beyond that since the last figures, in seconds

showState(socket, $("state"));

// Receiving.

socket.on("stocks", (prices) => { // after each connect
  received = 0;
  oldest = 0;
  fastest = Infinity;
  for (const [name, price] of Object.entries(prices)) {
    if (!stocks.has(name)) stocks.set(name, { name, first: price, price, points: [], row: addRow(name) });
  }
});

socket.on("tick", (name, price, at) => {
  const stock = stocks.get(name);
  if (!stock) return;
  received++;
  stock.price = price;
  stock.points.push({ at, percent: change(stock) });
  const took = Date.now() / 1000 - at;
  fastest = Math.min(fastest, took);
  oldest = Math.max(oldest, took - fastest);
  while (stock.points[0].at < at - SPAN) stock.points.shift();
});

/** The change in percent since this page was opened. @param {Stock} stock */
function change({ first, price }) { return 100 * (price / first - 1); }

// The figures, once a second.

setInterval(async () => {
  if (socket.state.name !== "online") return;
  const start = performance.now();
  const figures = await socket.request("figures").catch(() => null); // the connection was lost; try again next time
  if (!figures) return;
  $("latency").textContent = `${Math.round(performance.now() - start)} ms`;
  $("age").textContent = `${Math.round(oldest * 1000)} ms`;
  oldest = 0;
  $("sent").textContent = figures.sent;
  $("merged").textContent = figures.merged;
  $("received").textContent = received;
}, 1000);

$("slow").addEventListener("click", async () => {
  $("slow").disabled = true;
  try { $("slowness").textContent = await beSlow(); }
  catch { $("slowness").textContent = "The connection was lost."; }
  $("slow").disabled = false;
});

async function beSlow() {
  const before = await socket.request("figures");
  const receivedBefore = received;
  $("slowness").textContent = `Busy for ${SLOW} seconds …`;
  await new Promise((painted) => setTimeout(painted, 100));
  await socket.request("burst"); // more ticks than the buffers between can hold
  for (const end = performance.now() + SLOW * 1000; performance.now() < end;); // reads nothing
  const after = await socket.request("figures"); // answered after all ticks that waited
  const [sent, merged] = [after.sent - before.sent, after.merged - before.merged];
  return `While this tab was busy, ${sent} ticks were sent: ${received - receivedBefore} arrived late, and ` +
    (merged ? `${merged} were merged into newer ones and never sent.`
      : "none were merged, because the buffers of the network and the browser held them all.");
}

// The table: the chart as text.

/** @param {string} name @returns {Row} */
function addRow(name) {
  const row = $("prices").tBodies[0].insertRow();
  const [head, price, change, label] = ["th", "td", "td", "label"].map((tag) => document.createElement(tag));
  const shown = document.createElement("input");
  head.setAttribute("scope", "row");
  shown.type = "checkbox";
  shown.checked = true;
  label.className = `line-${stocks.size % LINES}`;
  label.append(shown, ` ${name}`);
  head.append(label);
  row.append(head, price, change);
  return { label, shown, price, change };
}

setInterval(() => {
  for (const stock of stocks.values()) {
    stock.row.price.textContent = stock.price.toFixed(2);
    stock.row.change.textContent = signed(change(stock));
    stock.row.change.className = change(stock) < 0 ? "down" : "up";
  }
}, 250);

setInterval(() => { // rarely, because some screen readers announce each change
  const changes = [...stocks.values()].filter(({ row }) => row.shown.checked)
    .map((stock) => `${stock.name} ${signed(change(stock))}`);
  $("chart").ariaLabel = `Chart of the prices in the last ${SPAN} seconds: ${changes.join(", ")}`;
}, 10_000);

/** @param {number} percent */
function signed(percent) { return `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(2)} %`; }

// The chart.

requestAnimationFrame(draw);
function draw() {
  requestAnimationFrame(draw);
  const canvas = $("chart");
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * devicePixelRatio); // also clears it
  canvas.height = Math.round(height * devicePixelRatio);
  const context = canvas.getContext("2d");
  context.scale(devicePixelRatio, devicePixelRatio);
  context.font = "12px system-ui, sans-serif";
  [context.lineWidth, context.lineJoin] = [1.5, "round"];

  const shown = [...stocks.values()].filter(({ row, points }) => row.shown.checked && points.length);
  const now = Date.now() / 1000 - fastest; // the server's clock
  const percents = shown.flatMap(({ points }) => points.map(({ percent }) => percent));
  const [low, high] = [Math.min(0, ...percents), Math.max(0.1, ...percents)];
  const x = (/** @type {number} */ at) => width - 56 - ((now - at) / SPAN) * (width - 56);
  const y = (/** @type {number} */ percent) => 16 + ((high - percent) / (high - low)) * (height - 32);

  context.fillStyle = getComputedStyle(canvas).color;
  for (const percent of [low, 0, high]) {
    context.globalAlpha = 0.25;
    context.fillRect(0, y(percent), width, 1);
    context.globalAlpha = 1;
    context.fillText(signed(percent), 6, y(percent) - 4);
  }
  for (const { name, points, row } of shown) {
    context.strokeStyle = context.fillStyle = getComputedStyle(row.label).color;
    context.beginPath();
    points.forEach(({ at, percent }, index) => {
      if (index && at - points[index - 1].at < GAP) context.lineTo(x(at), y(percent));
      else context.moveTo(x(at), y(percent));
    });
    context.stroke();
    const { at, percent } = points[points.length - 1];
    context.fillText(name, x(at) + 6, y(percent) + 4);
  }
}
