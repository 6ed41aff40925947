// Runs the official Socket.IO client: node socketio.js URL OPTIONS SCENARIO. OPTIONS are the client's, as JSON.
// Prints what happens as one JSON value per line. A scenario may read commands from standard input.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { io } from "socket.io-client";
import { WebSocket } from "ws";

const require = createRequire(import.meta.url);
const { XMLHttpRequest } = require("xmlhttprequest-ssl");

const [url, optionsText, scenario] = process.argv.slice(2);
const options = { forceNew: true, ...JSON.parse(optionsText) };

const tell = (...values) => console.log(JSON.stringify(values));
const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const open = (path = "", more = {}) => io(url + path, { auth: { token: "s3cret" }, ...options, ...more });
const event = (socket, name) => new Promise((resolve) => socket.once(name, (...args) => resolve(args)));
const transport = (socket) => socket.io.engine.transport.name;

async function connected(socket) {
  if (!socket.connected) await event(socket, "connect");
  return socket;
}

const scenarios = {
  async tour() {
    const one = await connected(open());
    const two = await connected(open());
    tell("ids", one.id !== two.id, one.id.length > 10);

    const refused = open("", { auth: { token: "wrong" } });
    const [error] = await event(refused, "connect_error");
    tell("refused", error.message, error.data);
    refused.close();

    one.on("question", (text, answer) => answer(text + "!"));
    two.on("question", (text, answer) => answer(text + "?"));
    tell("ack", await one.emitWithAck("echo", "안녕 😀", { a: [1, null, true] }));
    tell("several", await new Promise((resolve) => one.emit("several", (...values) => resolve(values))));
    tell("ask me", await one.emitWithAck("ask me", "well"));
    try {
      await one.timeout(200).emitWithAck("silence");
    } catch (timeout) {
      tell("timeout", timeout.message);
    }
    tell("server's timeout", await one.emitWithAck("be silent"));

    await one.emitWithAck("join", "lobby");
    await two.emitWithAck("join", "lobby");
    const heard = event(two, "said");
    let echoed = 0;
    one.on("said", () => (echoed += 1));
    one.emit("say", "lobby", "hello");
    tell("room", ...(await heard), echoed);
    const direct = event(one, "direct");
    two.emit("tell", one.id, "psst");
    tell("direct", ...(await direct));
    tell("broadcast with acks", (await two.emitWithAck("ask all", "lobby")).sort());

    const bytes = new Uint8Array(1 << 20).map((_, i) => i % 251);
    const [answer] = [await one.emitWithAck("binary", { name: "image", data: bytes, more: [Buffer.from("x")] })];
    const back = new Uint8Array(answer.data);
    tell("binary", back.length, back.every((octet, i) => octet === (i + 1) % 251 || i % 251 === 250), answer.name);
    const pushed = event(two, "picture");
    one.emit("share", bytes);
    tell("pushed", (await pushed)[0].length);

    const admin = await connected(open("/admin"));
    tell("namespace", await admin.emitWithAck("who"), admin.id !== one.id);
    const invalid = open("/nowhere");
    tell("invalid", (await event(invalid, "connect_error"))[0].message);
    invalid.close();

    // With default options, the client has upgraded to WebSocket by now, or does so soon.
    for (let i = 0; i < 100 && !options.transports && transport(one) !== "websocket"; i++)
      await new Promise((resolve) => setTimeout(resolve, 20));
    tell("transport", transport(one));
    const order = [];
    one.on("number", (n) => order.push(n));
    tell("order", await one.emitWithAck("count", 200), order.length, order.every((n, i) => n === i));

    const gone = event(two, "disconnect");
    two.emit("leave me");
    tell("kicked", (await gone)[0]);
    const closed = event(admin, "disconnect");
    admin.emit("close me");
    tell("closed", (await closed)[0]);
    one.close();
    await new Promise((resolve) => setTimeout(resolve, 200)); // over polling, the disconnect is still to be sent
  },

  // Sends what the official client lets an application send, and the server must not end a session for.
  async odd() {
    const one = await connected(open());
    one.on("disconnect", (reason) => tell("disconnect", reason));
    const half = "😀".slice(0, -1);
    tell("half", ...(await one.emitWithAck("echo", half, { [half]: "a" + half + "😀" })));
    tell("half back", (await one.emitWithAck("half")) === half);
    tell("number", await one.emitWithAck(1, "one"), await one.emitWithAck(2.5));
    tell("long", await one.emitWithAck("long ".repeat(2000)));
    let deep = "bottom";
    for (let i = 0; i < 200; i++) deep = i % 2 ? [deep] : { a: deep };
    const [echoed] = await one.emitWithAck("echo", deep);
    tell("deep", JSON.stringify(echoed) === JSON.stringify(deep));
    const many = Array.from({ length: 11 }, (_, i) => Buffer.from([i]));
    tell("eleven", await one.emitWithAck("sum", ...many));
    // An application that changes its mind at once: the client sends CONNECT twice.
    const admin = one.io.socket("/admin", { auth: { token: "s3cret" } });
    admin.connect().disconnect().connect();
    await connected(admin);
    tell("twice", await admin.emitWithAck("who"), one.connected);
    one.close();
    admin.close();
    await new Promise((resolve) => setTimeout(resolve, 200)); // as above
  },

  // Connects with the msgpack parser of the browser's bundle, which this server does not speak.
  async msgpack() {
    Object.assign(globalThis, { self: globalThis, WebSocket, XMLHttpRequest });
    const bundle = require("./node_modules/socket.io-client/dist/socket.io.msgpack.min.js");
    for (const path of ["", "/admin"]) {
      const socket = bundle(url + path, options);
      const [error] = await event(socket, "connect_error");
      tell(path || "/", error.message);
      socket.close();
    }
  },

  // Asks, and sends much behind the question, before the server's own question can be answered.
  async flood() {
    const socket = await connected(open());
    socket.on("disconnect", (reason) => tell("disconnect", reason));
    socket.on("question", (text, answer) => answer(text + "!"));
    const asked = socket.emitWithAck("ask", "well");
    for (let i = 0; i < 4000; i++) socket.emit("noise", i, "x".repeat(400));
    const heard = socket.emitWithAck("noise", 4000, "");
    tell("answered", await asked);
    tell("heard", await heard);
    socket.off("disconnect").close();
    await new Promise((resolve) => setTimeout(resolve, 200)); // as above
  },

  // Prints what it receives. Each line of standard input is an event to emit.
  async listen() {
    const socket = open("", { reconnectionDelay: 100, reconnectionDelayMax: 200 });
    socket.on("connect", () => tell("connect", socket.id, socket.recovered));
    socket.once("connect", () => {
      if (transport(socket) === "websocket") tell("upgrade");
      else socket.io.engine.once("upgrade", () => tell("upgrade"));
    });
    socket.on("disconnect", (reason) => tell("disconnect", reason));
    socket.onAny((name, ...args) => tell("event", name, args[0]));
    for await (const line of input) {
      const [name, ...args] = JSON.parse(line);
      if (name === "cut") socket.io.engine.transport.ws?._socket?.destroy() ?? socket.io.engine.close();
      else if (name === "end") break;
      else socket.emit(name, ...args);
    }
    socket.close();
    await new Promise((resolve) => setTimeout(resolve, 5000)); // as above; the tests do not wait that long
  },

  async refused() {
    const socket = open("", { auth: { token: "wrong" } });
    const [error] = await event(socket, "connect_error");
    tell("refused", error.message, error.data, socket.connected);
    socket.auth = { token: "s3cret" };
    await connected(socket.connect());
    tell("connected", socket.connected);
  },
  async vocabulary() {
    const main = await connected(open());
    const shop = await connected(open("/shop-7"));
    tell("namespace", await shop.emitWithAck("who"), shop.id !== main.id);
    const nowhere = open("/shop-");
    tell("nowhere", (await event(nowhere, "connect_error"))[0].message);
    tell("refused", await shop.emitWithAck("say", "bad"));
    const error = event(shop, "error");
    shop.emit("say", "bad");
    tell("error", ...(await error));
    const done = event(shop, "done");
    tell("early", await shop.emitWithAck("work"));
    shop.emit("go on");
    tell("done", ...(await done));
    tell("unknown", await shop.emitWithAck("what is this"));
  },
};

await scenarios[scenario]();
process.exit(0);
