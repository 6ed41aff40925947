// The official Socket.IO client goes through all that it can do: node repertoire.js PORTS MODE [SCENARIO...], where
// PORTS are those that `repertoire_server.js` prints, as JSON, and MODE is polling, websocket or upgrade.
// Prints a line of JSON for each scenario: {"scenario": name, "steps": [[label, value], ...]}. The values are the same
// in each run; random ids are replaced by the names of the clients. The last steps are what the server saw of each client.
import { createServer, connect } from "node:net";
import { io } from "socket.io-client";
import { scenarios } from "./repertoire_scenarios.js";

const [portsText, mode, ...chosen] = process.argv.slice(2);
const ports = JSON.parse(portsText);
const PATIENCE = 10_000;
const LONG = 80;

const control = io(`http://127.0.0.1:${ports.plain}/control`, { transports: ["websocket"], forceNew: true });
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// A TCP relay before a server. It stands for the network, which a scenario cuts and restores.
class Relay {
  open = true;
  links = new Set(); // {client, server, asks}: `asks` while a GET waits for its answer

  async start(port) {
    this.server = createServer((client) => {
      if (!this.open) return client.destroy();
      const server = connect(port, "127.0.0.1");
      const link = { client, server, asks: false };
      this.links.add(link);
      client.on("data", (data) => {
        link.asks = data.subarray(0, 4).toString() === "GET ";
        server.write(data);
      });
      server.on("data", (data) => {
        link.asks = false;
        client.write(data);
      });
      for (const [source, sink] of [[client, server], [server, client]])
        source.on("end", () => sink.end()).on("error", () => {}).on("close", () => {
          sink.destroy();
          this.links.delete(link);
        });
    });
    await new Promise((done) => this.server.listen(0, "127.0.0.1", done));
    this.port = this.server.address().port;
    return this;
  }

  // Whether the server has a request to answer, so that it notices when the connection is lost.
  get asks() {
    return [...this.links].some((link) => link.asks);
  }

  // Ends all connections: "fin", "rst", or "silent": neither side hears of the other any more.
  cut(how) {
    for (const { client, server } of this.links)
      for (const socket of [client, server]) {
        if (how === "fin") socket.end();
        else if (how === "rst") socket.resetAndDestroy();
        else socket.removeAllListeners().on("error", () => {}).resume();
      }
    if (how !== "silent") return;
    this.silent = [...this.links];
    this.links.clear();
  }

  // Ends one side, "client" or "server", of the connections that were cut silently.
  bury(side) {
    for (const link of this.silent) link[side].destroy();
  }

  close() {
    this.open = false;
    this.cut("rst");
    this.server.close();
  }
}

// One scenario's run: its clients, and what it says.
class Run {
  mode = mode;
  ports = ports;
  steps = [];
  sockets = [];
  relays = [];
  names = new Map();
  options = { polling: { transports: ["polling"] }, websocket: { transports: ["websocket"] }, upgrade: {} }[mode];

  // Opens a client. `more`: the client's options, and `instance` or `port`, and `beside`: a client whose session it shares.
  open(name, path = "/", { instance = "plain", port = ports[instance], beside, auth, ...more } = {}) {
    const own = { auth: typeof auth === "function" ? auth : { name, ...auth } };
    const url = `http://127.0.0.1:${port}${path}`;
    const timing = { reconnectionDelay: 20, reconnectionDelayMax: 40, randomizationFactor: 0 };
    const socket = beside
      ? beside.io.socket(path, own)
      : io(url, { forceNew: true, ...timing, ...this.options, ...own, ...more });
    socket.on("connect", () => this.names.set(socket.id, `<${name}>`));
    this.sockets.push(socket);
    return socket;
  }

  // Waits until clients are connected and have upgraded.
  async connected(...sockets) {
    for (const socket of sockets) {
      if (!socket.connected) await this.next(socket, "connect");
      await this.upgraded(socket);
    }
    return sockets[0];
  }

  async upgraded({ io: { engine } }) {
    const upgrades = mode === "upgrade" && engine.opts.upgrade && engine.transports.includes("websocket");
    if (upgrades) await this.until(() => engine.transport.name === "websocket");
  }

  next(emitter, event) {
    return new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
  }

  // All that the server sent to these clients before has arrived afterwards.
  async sync(...sockets) {
    for (const socket of sockets) await socket.emitWithAck("noop");
  }

  // Returns a list that gets the events of this name, or all if there is none, as they arrive.
  record(socket, event) {
    const list = [];
    if (event === undefined) socket.onAny((...args) => list.push(args));
    else socket.on(event, (...args) => list.push(args.length === 1 ? args[0] : args));
    return list;
  }

  control(command, ...args) {
    return control.timeout(PATIENCE).emitWithAck(command, ...args);
  }

  async until(condition) {
    while (!(await condition())) await sleep(5);
  }

  // Waits until the server has seen something of this client that begins with these values.
  async saw(client, ...beginning) {
    const wanted = JSON.stringify([client, ...beginning]).slice(0, -1);
    await this.until(async () => (await this.control("log")).some((entry) => JSON.stringify(entry).startsWith(wanted)));
  }

  // Waits until the server notices at once if the connections of the relay are lost: a poll must wait for its answer.
  async noticeable(relay, socket) {
    if (socket.io.engine.transport.name === "polling") await this.until(() => relay.asks);
    await this.control("noop");
    await this.control("noop"); // what was sent before has arrived
  }

  async relay(instance = "plain") {
    const relay = await new Relay().start(ports[instance]);
    this.relays.push(relay);
    return relay;
  }

  say(label, value) {
    if (!this.over) this.#add(label, value); // a scenario that failed may still run
  }

  #add(label, value) {
    if (this.steps.some(([other]) => other === label)) throw new Error(`said twice: ${label}`);
    this.steps.push([label, this.#plain(value)]);
  }

  // Returns a value as JSON can show it, and the same in each run.
  #plain(value) {
    if (value === undefined) return "undefined";
    if (value instanceof ArrayBuffer) value = new Uint8Array(value);
    if (ArrayBuffer.isView(value)) {
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      return bytes.length <= 16 ? { hex: bytes.toString("hex") } : { bytes: bytes.length };
    }
    if (typeof value === "string") {
      if (this.names.has(value)) return this.names.get(value);
      return value.length <= LONG ? value : { text: value.length };
    }
    if (typeof value !== "object" || value === null) return value;
    if (value instanceof Error) return { error: value.message, ...(value.data && { data: this.#plain(value.data) }) };
    if (Array.isArray(value)) return value.map((item) => this.#plain(item));
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.#plain(item)]));
  }

  async end() {
    for (const socket of this.sockets) socket.disconnect();
    const deadline = Date.now() + PATIENCE / 2;
    while (Date.now() < deadline && (await this.control("count")) > 0) await sleep(5);
    this.#add("sockets left", await this.control("count"));
    for (const relay of this.relays) relay.close();
    const log = {};
    for (const [client, ...what] of await this.control("log")) (log[client] ??= []).push(what);
    for (const client of Object.keys(log).sort()) this.#add(`server's log of ${client}`, log[client]);
  }
}

for (const [name, scenario] of Object.entries(scenarios)) {
  if (chosen.length && !chosen.includes(name)) continue;
  const run = new Run();
  await run.control("clear");
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error("timed out")), PATIENCE)));
  try {
    await Promise.race([scenario(run), late]);
  } catch (error) {
    run.say("failed", error.message);
  }
  clearTimeout(timer);
  run.over = true;
  await run.end();
  console.log(JSON.stringify({ scenario: name, steps: run.steps }));
}
process.exit(0);
