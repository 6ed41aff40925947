// Node's Socket.IO server with the vocabulary of `repertoire.js`: node repertoire_server.js. `tests/socketio_repertoire.py`
// is the same on our server. Prints the ports of its instances as JSON; ends with its standard input.
//
// It logs what it sees of each client, which the control socket reads: [client, what, ...].
import { createServer } from "node:http";
import { Server } from "socket.io";

const INSTANCES = {
  plain: {},
  recovering: { connectionStateRecovery: { maxDisconnectionDuration: 60_000, skipMiddlewares: true } },
  short: { pingInterval: 500, pingTimeout: 2000, connectTimeout: 1000 },
  options: { allowUpgrades: false, cookie: { name: "io", path: "/", httpOnly: true, sameSite: "lax" } },
  "polling only": { transports: ["polling"] },
  cors: { cors: { origin: ["http://friend.example"], credentials: true } },
};

const instances = {};
let seen = [];
let refused = [];
let release = () => {};
let nextInstance = 0;

const nameOf = (socket) => socket.handshake.auth.name ?? "?";
const note = (socket, ...what) => seen.push([nameOf(socket), ...what]);
const shown = (value) => (Buffer.isBuffer(value) ? { hex: value.toString("hex") } : value);
const roomsOf = (socket) => [...socket.rooms].filter((room) => room !== socket.id).sort();

// An id stands for "@name" in the rooms of a specification.
function resolve(nsp, room) {
  if (!room.startsWith("@")) return room;
  return [...nsp.sockets.values()].find((socket) => nameOf(socket) === room.slice(1))?.id ?? room;
}

// Returns what an event is emitted with: {nsp, to, except, volatile, compress, local, timeout}, from `start`.
function target(start, nsp, spec) {
  let found = start;
  if (spec.volatile) found = found.volatile;
  if (spec.local) found = found.local;
  if (spec.compress !== undefined) found = found.compress(spec.compress);
  if (spec.timeout) found = found.timeout(spec.timeout);
  if (spec.broadcast) found = found.broadcast;
  if (spec.to) found = found.to(spec.to.map((room) => resolve(nsp, room)));
  if (spec.except) found = found.except(spec.except.map((room) => resolve(nsp, room)));
  return found;
}

async function ask(from, args) {
  try {
    return ["answered", await from.emitWithAck(...args)];
  } catch (error) {
    const known = { "operation has timed out": "timed out", "socket has been disconnected": "disconnected" };
    return [known[error.message] ?? error.message, error.responses ?? null];
  }
}

function rejected(action) {
  try {
    action();
  } catch (error) {
    return true;
  }
  return false;
}

// The events that a client may send; the result is the values of the acknowledgement, `undefined` if there is none.
const commands = {
  noop: () => [],
  echo: (socket, ...args) => args,
  values: () => [1, "two", { three: 3 }],
  never: () => undefined,
  back: (socket, ...args) => void socket.emit("back", ...args),
  wait: (socket, ms) => new Promise((done) => setTimeout(() => done([ms]), ms)),
  fail: (socket) => {
    throw new Error("a handler that fails");
  },
  join: (socket, ...rooms) => (socket.join(rooms), [roomsOf(socket)]),
  leave: (socket, ...rooms) => (rooms.forEach((room) => socket.leave(room)), [roomsOf(socket)]),
  rooms: (socket) => [roomsOf(socket)],
  emit: (socket, spec, ...args) => (target(socket, socket.nsp, spec).emit(...args), []),
  ask: async (socket, spec, ...args) => await ask(target(socket, socket.nsp, spec), args),
  burst: (socket, count, size) => {
    for (let number = 0; number < count; number++) socket.emit("burst", number, "x".repeat(size));
    return [count];
  },
  last: (socket, close) => void (socket.emit("last words", Buffer.from("bye")), socket.disconnect(close)),
  kick: (socket, close) => void socket.disconnect(close),
  handshake: (socket) => {
    const { headers, auth, query, secure, xdomain, address, url, time, issued } = socket.handshake;
    const { "x-test": header } = headers;
    return [
      { header: header ?? null, auth, query, secure, xdomain, address, path: url.split("?")[0] },
      { time: typeof time, issued: typeof issued },
    ];
  },
  transport: (socket) => [socket.conn.transport.name],
  set: (socket, name, value) => ((socket.data[name] = value), []),
  get: (socket) => [socket.data],
  bytes: (socket, value) => [Buffer.isBuffer(value), value.length],
  reserved: (socket, name) => [rejected(() => socket.emit(name, 1))],
  once: (socket) => (socket.once("rare", (value) => void socket.emit("heard", "once", value)), []),
  "several handlers": (socket) => {
    socket.on("chosen", () => socket.emit("heard", "first"));
    socket.on("chosen", () => socket.emit("heard", "second"));
    return [];
  },
  "no handlers": (socket) => (socket.removeAllListeners("chosen"), []),
  "check packets": (socket) => {
    socket.use(([event, value], next) => {
      note(socket, "packet", event);
      next(value === "forbidden" ? new Error(`not this one: ${event}`) : undefined);
    });
    socket.on("error", (error) => note(socket, "error", error.message));
    return [];
  },
  watch: (socket) => {
    socket.onAny((event, ...args) => note(socket, "any", event, args.filter((arg) => typeof arg !== "function").map(shown)));
    return [];
  },
  "watch what is sent": (socket) => {
    socket.onAnyOutgoing((event, ...args) => note(socket, "outgoing", event, args.map(shown)));
    return [];
  },
};

function serve(nsp) {
  nsp.on("connection", (socket) => {
    note(socket, "connect", socket.nsp.name, socket.recovered ?? false);
    for (const [name, command] of Object.entries(commands)) {
      socket.on(name, async (...args) => {
        const answer = typeof args.at(-1) === "function" ? args.pop() : () => {};
        const values = await command(socket, ...args);
        if (values !== undefined) answer(...values);
      });
    }
    socket.on("disconnecting", (reason) => note(socket, "disconnecting", reason, roomsOf(socket)));
    socket.on("disconnect", (reason) => note(socket, "disconnect", reason));
  });
}

function refuse(message, data) {
  const error = new Error(message);
  if (data !== undefined) error.data = data;
  return error;
}

function guard(io) {
  const guarded = io.of("/guarded");
  guarded.use((socket, next) => (note(socket, "first"), next()));
  guarded.use(async (socket, next) => {
    await new Promise((done) => setTimeout(done, 10));
    note(socket, "second");
    socket.join("candidates");
    const { token } = socket.handshake.auth;
    if (token === "plain") next(refuse("no"));
    else if (token !== "s3cret") next(refuse("who are you?", { code: 7, text: "세션" }));
    else next();
  });
  guarded.use((socket, next) => {
    note(socket, "third");
    socket.data.checked = true;
    next();
  });
  serve(guarded);

  const slow = io.of("/slow");
  slow.use((socket, next) => {
    note(socket, "waits");
    release = next;
  });
  serve(slow);

  const failing = io.of("/failing");
  failing.use(() => {
    throw new Error("a middleware that fails");
  });
  serve(failing);

  const talkative = io.of("/talkative");
  talkative.use((socket, next) => {
    socket.emit("too early", 1);
    next();
  });
  talkative.on("connection", (socket) => {
    socket.emit("at once", 1);
    socket.emit("at once", Buffer.from([2]));
  });
  serve(talkative);

  const leaving = io.of("/leaving");
  serve(leaving);
  leaving.on("connection", (socket) => socket.disconnect());
}

function dynamic(io) {
  io.parent = io.of(/^\/dynamic-(\d+)$/);
  serve(io.parent);
  serve(io.of((name, auth, next) => next(null, name === "/by-function" && auth.token === "s3cret")));
}

async function start(options) {
  const http = createServer((request, response) => response.writeHead(404).end("not found\n"));
  const io = new Server(http, { cleanupEmptyChildNamespaces: true, ...options });
  serve(io.of("/"));
  serve(io.of("/admin"));
  guard(io);
  dynamic(io);
  io.engine.on("initial_headers", (headers) => (headers["x-initial"] = "yes"));
  io.engine.on("headers", (headers) => (headers["x-each"] = "yes"));
  io.engine.on("connection_error", ({ code, message }) => refused.push([code, message]));
  await new Promise((done) => http.listen(0, "127.0.0.1", done));
  return { io, port: http.address().port };
}

const controls = {
  noop: () => {},
  log: () => seen,
  refused: () => refused.splice(0),
  clear: () => void (seen = []),
  count: () => {
    let count = 0;
    for (const { io } of Object.values(instances))
      for (const [name, nsp] of io._nsps) if (name !== "/control") count += nsp.sockets.size;
    return count;
  },
  release: () => void release(),
  open: async () => {
    const name = `instance ${++nextInstance}`;
    instances[name] = await start({});
    return [name, instances[name].port];
  },
  close: async (name) => {
    await instances[name].io.close();
    delete instances[name];
  },
  namespaces: (name) => [...instances[name].io._nsps.keys()].sort(),
  emit: ({ instance = "plain", nsp = "/", ...spec }, ...args) => {
    const found = instances[instance].io.of(nsp);
    target(found, found, spec).emit(...args);
  },
  "to children": (...args) => void instances.plain.io.parent.emit(...args),
  burst: ({ instance, to }, count, size) => {
    const nsp = instances[instance].io.of("/");
    const rooms = to.map((room) => resolve(nsp, room));
    for (let number = 0; number < count; number++) nsp.to(rooms).emit("burst", number, "x".repeat(size));
  },
  ask: async ({ instance = "plain", nsp = "/", ...spec }, ...args) => {
    const found = instances[instance].io.of(nsp);
    return await ask(target(found, found, spec), args);
  },
  fetch: async ({ instance = "plain", nsp = "/", ...spec }) => {
    const found = instances[instance].io.of(nsp);
    const sockets = await target(found, found, spec).fetchSockets();
    return sockets.map((socket) => [nameOf(socket), roomsOf(socket), socket.data]).sort();
  },
  all: ({ instance = "plain", nsp = "/", ...spec }, action, argument) => {
    const found = instances[instance].io.of(nsp);
    target(found, found, spec)[action](argument);
  },
  "server side": (name) => {
    const { io } = instances.plain;
    io.once("told", (...args) => seen.push(["server", "told", ...args]));
    io.serverSideEmit("told", name);
  },
};

for (const [name, options] of Object.entries(INSTANCES)) instances[name] = await start(options);
instances.plain.io.of("/control").on("connection", (socket) => {
  for (const [name, control] of Object.entries(controls))
    socket.on(name, async (...args) => {
      const answer = args.pop();
      answer(await control(...args));
    });
});
// An exception in a handler would end the process.
process.on("uncaughtException", (error) => seen.push(["process", "exception", error.message]));
process.stdin.on("close", () => process.exit(0)).resume();
const ports = Object.entries(instances).map(([name, { port }]) => [name, port]);
console.log(JSON.stringify(Object.fromEntries(ports)));
