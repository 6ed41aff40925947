// The scenarios of `repertoire.js`. What is said must be defined by the protocol or the server, never by chance.

const HALF = "😀".slice(0, -1); // a lone surrogate
const nested = (depth) => (depth === 0 ? "core" : [nested(depth - 1)]);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const transport = (socket) => socket.io.engine.transport.name;
const inOrder = (numbers) => numbers.every((number, i) => number === i);

const talk = {
  async connect(t) {
    const a = await t.connected(t.open("a"));
    t.say("state", [a.connected, a.active, typeof a.id, a.recovered, a.id !== a.io.engine.id]);
    t.say("transport", [transport(a), await a.emitWithAck("transport")]);
    t.say("upgrades", a.io.engine.upgrades ?? null);
    const b = await t.connected(t.open("b"));
    t.say("ids differ", a.id !== b.id);
  },

  async handshake(t) {
    const auth = { token: 7, pid: "p", offset: "o", deep: [{ "안녕": null }] };
    const extraHeaders = { "x-test": "yes" };
    const a = await t.connected(t.open("a", "/", { auth, extraHeaders, query: { q: "a b&c=é", empty: "" } }));
    const [fields, types] = await new Promise((done) => a.emit("handshake", (...values) => done(values)));
    delete fields.query.t; // a random value
    t.names.set(a.io.engine.id, "<session>");
    t.say("fields", fields);
    t.say("types", types);
    const b = await t.connected(t.open("b", "/", { auth: (give) => setTimeout(() => give({ name: "b", late: 1 }), 5) }));
    t.say("auth by a function", (await b.emitWithAck("handshake")).auth);
    const c = await t.connected(t.open("c", "/?from=url"));
    t.say("query of the URL", (await c.emitWithAck("handshake")).query.from);
    const d = await t.connected(t.open("d", "/", { auth: (give) => give() }));
    t.say("no auth", (await d.emitWithAck("handshake")).auth);
    const e = await t.connected(t.open("e", "/", { extraHeaders: { origin: `http://127.0.0.1:${a.io.opts.port}` } }));
    t.say("with an origin", (await e.emitWithAck("handshake")).xdomain);
  },

  async acknowledgements(t) {
    const a = await t.connected(t.open("a"));
    t.say("one", await a.emitWithAck("echo", "x"));
    t.say("several", await new Promise((done) => a.emit("values", (...values) => done(values))));
    t.say("none", await new Promise((done) => a.emit("noop", (...values) => done(values))));
    const back = t.next(a, "back");
    a.emit("back", 1, "two");
    t.say("without", await back);
    t.say("time-out", await a.timeout(50).emitWithAck("never").catch((error) => error));
    t.say("too late", await a.timeout(20).emitWithAck("wait", 60).catch((error) => error));
    t.say("unknown event", await a.timeout(50).emitWithAck("no such event").catch((error) => error));
    t.say("afterwards", await a.emitWithAck("echo", "y"));
    const answers = await Promise.all([..."abcdefghij"].map((letter) => a.emitWithAck("echo", letter)));
    t.say("each its own", answers);
  },

  async "the server asks"(t) {
    const [a, b, c] = [t.open("a"), t.open("b"), t.open("c")];
    await t.connected(a, b, c);
    for (const socket of [a, b, c]) await socket.emitWithAck("join", "lobby");
    a.on("question", (text, answer) => answer(text + "!"));
    b.on("question", (text, answer) => answer(text + "?"));
    a.on("several", (answer) => answer(1, 2, 3));
    a.on("nothing", (answer) => answer());
    a.on("binary", (data, answer) => answer({ data: [data, Buffer.from("more")] }));
    a.on("twice", (answer) => (answer(1), answer(2)));
    const ask = (socket, ...args) => new Promise((done) => socket.emit("ask", ...args, (...values) => done(values)));
    t.say("itself", await ask(a, {}, "question", "well"));
    t.say("several values", await ask(a, {}, "several"));
    t.say("no value", await ask(a, {}, "nothing"));
    t.say("binary", await ask(a, {}, "binary", Buffer.from("in")));
    t.say("answered twice", await ask(a, {}, "twice"));
    t.say("in time", await ask(a, { timeout: 1000 }, "question", "well"));
    t.say("too late", await ask(a, { timeout: 50 }, "nobody answers this"));
    t.say("nobody there", await ask(a, { to: ["empty"], timeout: 500 }, "question", "empty"));
    const sorted = ([how, responses]) => [how, responses?.sort()];
    t.say("others", sorted(await ask(c, { to: ["lobby"], timeout: 5000 }, "question", "all")));
    t.say("some are silent", sorted(await ask(a, { to: ["lobby"], timeout: 500 }, "question", "all")));
    t.say("from the server", sorted(await t.control("ask", { to: ["lobby"], except: ["@c"], timeout: 5000 }, "question", "io")));
    b.once("go", () => b.disconnect());
    t.say("leaves while it is asked", sorted(await t.control("ask", { to: ["@b"], timeout: 1000 }, "go")));
  },

  async values(t) {
    const a = await t.connected(t.open("a"));
    const values = {
      constants: [null, true, false],
      numbers: [0, -0, 1.5, -2e-7, 1e21, 2 ** 53 - 1, 2 ** 53 + 2, 1e308],
      "not in JSON": [undefined, NaN, Infinity, () => 1, new Date(0)],
      empty: ["", [], {}],
      texts: ["안녕 😀", "\u0000\u001e\u2028\u2029\ufeff", "\\\"'/", "é", "e\u0301"],
      keys: JSON.parse('{"__proto__": 1, "constructor": 2, "": 3, "a.b": 4, "10": 5, "9": 6}'),
      placeholder: { _placeholder: true, num: 0 },
      "half a placeholder": { _placeholder: false, num: 7 },
      surrogate: HALF,
      "surrogates in the wrong order": "\ude00\ud83d",
      "a surrogate in a key": { [HALF]: 1 },
      "nested 70 times": nested(70),
      "10,000 items": Array(10_000).fill(0),
    };
    for (const [name, value] of Object.entries(values)) {
      const found = await a.timeout(5000).emitWithAck("echo", value).catch((error) => error);
      t.say(name, JSON.stringify(found).length > 400 ? JSON.stringify(found).length : JSON.stringify(found));
      if (!a.connected) await t.connected(a);
    }
  },

  async binary(t) {
    const a = await t.connected(t.open("a", "/", { reconnection: false }));
    const octets = Uint8Array.from({ length: 300 }, (_, i) => i % 256);
    const echo = async (...values) => await a.timeout(1000).emitWithAck("echo", ...values).catch((error) => error);
    t.say("Buffer", await echo(Buffer.from("buffer")));
    t.say("Uint8Array", await echo(new Uint8Array([0, 255])));
    t.say("ArrayBuffer", await echo(new Uint8Array([1, 2]).buffer));
    t.say("a part of a buffer", await echo(octets.subarray(10, 13)));
    t.say("Float64Array", await echo(new Float64Array([1])));
    t.say("empty", await echo(Buffer.alloc(0)));
    t.say("nested", await echo({ a: [{ b: Buffer.from("deep") }, "text", Buffer.from("er")], c: Buffer.from("!") }));
    t.say("all octets", Buffer.compare(await echo(Buffer.from(octets)), Buffer.from(octets)));
    t.say("several arguments", await new Promise((done) => a.emit("echo", Buffer.from("1"), "two", Buffer.from("3"), (...all) => done(all))));
    t.say("seen by the server", await new Promise((done) => a.emit("bytes", Buffer.from("12345"), (...all) => done(all))));
    t.say("ten attachments", await echo(Array.from({ length: 10 }, (_, i) => Buffer.from([i]))));
    t.say("the same one twice", await echo([octets.subarray(0, 2), octets.subarray(0, 2)]));
    const mixed = t.record(a, "back");
    for (let i = 0; i < 6; i++) a.emit("back", i, i % 2 ? Buffer.from([i]) : "text");
    await t.sync(a);
    t.say("order", mixed);
    t.say("eleven attachments, sent", await new Promise((done) => {
      const parts = Array.from({ length: 11 }, (_, i) => Buffer.from([i]));
      a.emit("bytes", parts, (...all) => done(all));
      a.once("disconnect", (reason) => done(["transport close", "transport error"].includes(reason)));
    }));
    t.say("eleven attachments", await echo(Array.from({ length: 11 }, (_, i) => Buffer.from([i]))));
    t.say("still connected", a.connected);
    const forced = await t.connected(t.open("forced", "/", { forceBase64: true }));
    t.say("base64 forced", await forced.emitWithAck("echo", [Buffer.from("as text"), Buffer.alloc(0)]));
  },

  async "names of events"(t) {
    const a = await t.connected(t.open("a"));
    await a.emitWithAck("watch");
    const names = ["", "error", "message", "data", "end", "close", "ping", "open", "constructor", "__proto__", "toString"];
    names.push("hasOwnProperty", "a b", "이름", "😀", "x".repeat(300), "*", "connection");
    for (const name of names) a.emit(name, 1);
    a.emit(42, 1);
    await t.sync(a).catch(() => {});
    t.say("connected after them", a.connected);
  },

  async "reserved names"(t) {
    const a = await t.connected(t.open("a"));
    for (const name of ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]) {
      try {
        a.emit(name, 1);
        t.say(`client: ${name}`, "sent");
      } catch (error) {
        t.say(`client: ${name}`, error);
      }
      t.say(`server: ${name}`, await a.emitWithAck("reserved", name));
    }
    for (const name of ["connection", "error"]) t.say(`server: ${name}`, await a.emitWithAck("reserved", name));
  },

  async handlers(t) {
    const a = await t.connected(t.open("a"));
    const heard = t.record(a, "heard");
    await a.emitWithAck("once");
    a.emit("rare", 1);
    a.emit("rare", 2);
    await t.sync(a);
    t.say("once", heard.splice(0));
    await a.emitWithAck("several handlers");
    a.emit("chosen");
    await t.sync(a);
    t.say("several", heard.splice(0));
    await a.emitWithAck("no handlers");
    a.emit("chosen");
    await t.sync(a);
    t.say("removed", heard.splice(0));
    t.say("a handler fails", await a.timeout(50).emitWithAck("fail").catch((error) => error));
    t.say("and the next one", await a.emitWithAck("echo", 1));
    const order = [];
    await Promise.all([["wait", 40], ["wait", 1], ["noop"]].map(async (call) => (await a.emitWithAck(...call), order.push(call))));
    t.say("order of answers", order);
  },

  async "packets are checked"(t) {
    const a = await t.connected(t.open("a"));
    await a.emitWithAck("check packets");
    const errors = t.record(a, "error");
    t.say("allowed", await a.emitWithAck("echo", "fine"));
    t.say("refused", await a.timeout(500).emitWithAck("echo", "forbidden").catch((error) => error));
    a.emit("back", "forbidden");
    await t.saw("a", "error", "not this one: back");
    t.say("allowed again", await a.emitWithAck("echo", "fine"));
    t.say("errors at the client", errors);
  },

  async "all events"(t) {
    const a = await t.connected(t.open("a"));
    await a.emitWithAck("watch");
    await a.emitWithAck("watch what is sent");
    await a.emitWithAck("echo", 1, { two: [3] });
    a.emit("nobody handles this", Buffer.from("x"));
    a.emit("back", "there");
    await t.next(a, "back");
    await t.control("emit", {}, "to all", 1);
    await t.sync(a);
  },
};

const rooms = {
  async rooms(t) {
    const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => t.open(name));
    await t.connected(a, b, c, d);
    t.say("join", await a.emitWithAck("join", "red", "blue"));
    t.say("join again", await a.emitWithAck("join", "red"));
    t.say("b joins", await b.emitWithAck("join", "red"));
    t.say("c joins", await c.emitWithAck("join", "blue", "방", "1"));
    t.say("leave what it is not in", await d.emitWithAck("leave", "red"));
    const heard = Object.entries({ a, b, c, d }).map(([name, socket]) => [name, t.record(socket, "said")]);
    const emit = async (label, socket, spec) => {
      await (socket ? socket.emitWithAck("emit", spec, "said", label) : t.control("emit", spec, "said", label));
      await t.sync(a, b, c, d);
      t.say(label, heard.filter(([, said]) => said.splice(0).includes(label)).map(([name]) => name));
    };
    await emit("itself", a, {});
    await emit("room of the sender", a, { to: ["red"] });
    await emit("room of others", d, { to: ["red"] });
    await emit("two rooms", d, { to: ["red", "blue"] });
    await emit("two rooms, from a member", a, { to: ["red", "blue"] });
    await emit("room except room", d, { to: ["red"], except: ["blue"] });
    await emit("all except room", d, { except: ["red"] });
    await emit("broadcast", d, { broadcast: true });
    await emit("broadcast to a room", a, { broadcast: true, to: ["blue"] });
    await emit("one to one", a, { to: ["@d"] });
    await emit("to oneself by id", a, { to: ["@a"] });
    await emit("empty room", a, { to: ["nobody is here"] });
    await emit("a room with a number", a, { to: ["1"] });
    await emit("from a socket to no rooms", a, { to: [] });
    await emit("io", null, {});
    await emit("io to a room", null, { to: ["red"] });
    await emit("io to two rooms", null, { to: ["red", "방"] });
    await emit("io except", null, { except: ["red", "@d"] });
    await emit("io to a room except one", null, { to: ["red"], except: ["@a"] });
    await emit("io to one", null, { to: ["@c"] });
    await emit("io to a room and one of it", null, { to: ["red", "@a"] });
    await emit("io to no rooms", null, { to: [] });
    await emit("io except none", null, { except: [] });
    await emit("local", null, { local: true, to: ["blue"] });
    await emit("not compressed", null, { compress: false, to: ["blue"] });
    await emit("compressed", a, { compress: true });
    t.say("leave", await a.emitWithAck("leave", "red", "blue"));
    await emit("after leaving", d, { to: ["red", "blue"] });
    c.disconnect();
    await t.saw("c", "disconnect");
    t.say("empty when the member has gone", await t.control("fetch", { to: ["blue"] }));
  },

  async "many sockets at once"(t) {
    const [a, b, c] = ["a", "b", "c"].map((name) => t.open(name));
    await t.connected(a, b, c);
    await a.emitWithAck("set", "color", { red: 1 });
    await a.emitWithAck("join", "x");
    await b.emitWithAck("join", "x");
    t.say("data", await a.emitWithAck("get"));
    t.say("fetch all", await t.control("fetch", {}));
    t.say("fetch a room", await t.control("fetch", { to: ["x"] }));
    t.say("fetch others", await t.control("fetch", { except: ["x"] }));
    t.say("fetch one", await t.control("fetch", { to: ["@a"] }));
    await t.control("all", { to: ["x"] }, "socketsJoin", "y");
    await t.control("all", { except: ["@c"] }, "socketsLeave", "x");
    t.say("afterwards", await t.control("fetch", {}));
    const [toB, toC] = [t.next(b, "disconnect"), t.next(c, "disconnect")];
    await t.control("all", { to: ["y"], except: ["@a"] }, "disconnectSockets", false);
    await t.control("all", { to: ["@c"] }, "disconnectSockets", true);
    t.say("disconnected", [(await toB)[0], (await toC)[0]]);
    t.say("who is left", await t.control("fetch", {}));
  },

  async "its own room"(t) {
    const a = await t.connected(t.open("a"));
    t.say("leave", await a.emitWithAck("leave", a.id));
    const said = t.record(a, "said");
    await a.emitWithAck("emit", {}, "said", "directly");
    await t.control("emit", { to: ["@a"] }, "said", "by its room");
    await t.control("emit", {}, "said", "to all");
    await t.sync(a);
    t.say("heard", said);
  },

  async volatile(t) {
    const a = await t.connected(t.open("a"));
    const said = t.record(a, "said");
    while (!said.length) await a.emitWithAck("emit", { volatile: true }, "said", "arrives when it can be sent");
    t.say("heard", said[0]);
    const again = t.next(a, "again");
    for (let heard = false; !heard; ) {
      await t.control("emit", { volatile: true }, "again", 1);
      heard = await Promise.race([again, sleep(5)]);
    }
    t.say("from the server", await again);
  },

  async "the server's own events"(t) {
    await t.control("server side", "news");
  },
};

const namespaces = {
  async namespaces(t) {
    const a = await t.connected(t.open("a"));
    const admin = await t.connected(t.open("a2", "/admin", { beside: a }));
    t.say("one session", a.io.engine === admin.io.engine);
    t.say("own ids", a.id !== admin.id);
    await admin.emitWithAck("join", "room");
    const heard = [t.record(a), t.record(admin)];
    await t.control("emit", { to: ["room"] }, "said", "/");
    await t.control("emit", { nsp: "/admin", to: ["room"] }, "said", "/admin");
    await t.control("emit", { nsp: "/admin" }, "said", Buffer.from("all"));
    await t.sync(a, admin);
    t.say("heard", heard);
    const left = t.next(admin, "disconnect");
    admin.disconnect();
    t.say("leave one", (await left)[0]);
    t.say("the other stays", await a.emitWithAck("echo", 1));
    await t.connected(admin.connect());
    t.say("and back", await admin.emitWithAck("rooms"));
    const gone = t.next(admin, "disconnect");
    admin.emit("kick", false);
    t.say("the server closes one", (await gone)[0]);
    t.say("the other still stays", await a.emitWithAck("echo", 2));
    await t.connected(admin.connect());
    const both = [t.next(a, "disconnect"), t.next(admin, "disconnect")];
    admin.emit("kick", true);
    t.say("the server closes all", (await Promise.all(both)).map(([reason]) => reason));
    const alone = await t.connected(t.open("alone", "/admin"));
    t.say("without the main one", await alone.emitWithAck("echo", 1));
    t.say("query after the name", (await (await t.connected(t.open("q", "/admin?x=1"))).emitWithAck("handshake")).query.x);
  },

  async "unknown namespace"(t) {
    const a = t.open("a", "/nowhere");
    t.say("alone", (await t.next(a, "connect_error"))[0]);
    t.say("active", a.active);
    const b = await t.connected(t.open("b"));
    const c = t.open("c", "/nowhere", { beside: b });
    t.say("beside another", (await t.next(c, "connect_error"))[0]);
    t.say("the other stays", await b.emitWithAck("echo", 1));
    for (const name of ["/nowhere-%20", "/이름", "/ADMIN", "/admin/"]) {
      const d = t.open("d", name, { beside: b });
      t.say(name, (await Promise.race([t.next(d, "connect_error"), t.next(d, "connect")]))[0]);
      d.disconnect();
    }
  },

  async "dynamic namespaces"(t) {
    const one = await t.connected(t.open("one", "/dynamic-1"));
    const two = await t.connected(t.open("two", "/dynamic-2"));
    const heard = [t.record(one, "said"), t.record(two, "said")];
    await t.control("emit", { nsp: "/dynamic-1" }, "said", 1);
    await t.sync(one, two);
    t.say("apart", heard);
    await t.control("to children", "said", "to all of them");
    await t.sync(one, two);
    t.say("together", heard);
    const invalid = t.open("x", "/dynamic-x");
    t.say("no match", (await t.next(invalid, "connect_error"))[0]);
    const refused = t.open("y", "/by-function", { auth: { token: "wrong" } });
    t.say("refused by the function", (await t.next(refused, "connect_error"))[0]);
    const allowed = await t.connected(t.open("z", "/by-function", { auth: { token: "s3cret" } }));
    t.say("allowed by the function", await allowed.emitWithAck("echo", 1));
    const there = async (name) => (await t.control("namespaces", "plain")).includes(name);
    t.say("there", [await there("/dynamic-1"), await there("/by-function")]);
    one.disconnect();
    allowed.disconnect();
    await t.saw("one", "disconnect");
    await t.saw("z", "disconnect");
    t.say("removed when empty", [await there("/dynamic-1"), await there("/dynamic-2"), await there("/by-function")]);
    await t.connected(one.connect());
    t.say("made again", await one.emitWithAck("echo", 1));
  },

  async "many namespaces"(t) {
    const first = await t.connected(t.open("n", "/dynamic-0", { reconnection: false }));
    const open = (i) => t.open("n", `/dynamic-${i}`, { beside: first });
    for (let i = 1; i < 60; i++) await t.next(open(i), "connect");
    t.say("sixty", first.connected);
    const answer = (socket) =>
      Promise.race(["connect", "connect_error"].map(async (event) => (await t.next(socket, event))[0]?.message ?? event));
    t.say("ten more", await Promise.all(Array.from({ length: 10 }, (_, i) => answer(open(60 + i)))));
    t.say("the first", first.connected);
    for (const socket of t.sockets) socket.disconnect();
    await t.until(async () => (await t.control("count")) === 0);
    await t.control("clear"); // the order of so many does not matter
  },

  async middlewares(t) {
    const a = await t.connected(t.open("a", "/guarded", { auth: { token: "s3cret" } }));
    t.say("data from a middleware", await a.emitWithAck("get"));
    t.say("room from a middleware", await a.emitWithAck("rooms"));
    const b = t.open("b", "/guarded", { auth: { token: "wrong" } });
    t.say("refused", (await t.next(b, "connect_error"))[0]);
    t.say("active after it", [b.active, b.connected]);
    const c = t.open("c", "/guarded", { auth: { token: "plain" } });
    t.say("refused without data", (await t.next(c, "connect_error"))[0]);
    t.say("rooms of the refused", await t.control("fetch", { nsp: "/guarded", to: ["candidates"] }));
    b.auth = { name: "b", token: "s3cret" };
    await t.connected(b.connect());
    t.say("then allowed", await b.emitWithAck("echo", 1));
    const other = await t.connected(t.open("other"));
    const beside = t.open("beside", "/guarded", { beside: other });
    t.say("refused beside another", (await t.next(beside, "connect_error"))[0]);
    t.say("the other stays", await other.emitWithAck("echo", 1));
  },

  async "a middleware fails"(t) {
    const a = t.open("a", "/failing");
    const heard = t.record(a, "connect_error");
    await Promise.race([t.next(a, "connect_error"), sleep(2000)]);
    t.say("the client hears", heard);
  },

  async "leaving while a middleware decides"(t) {
    const other = await t.connected(t.open("other", "/", { reconnection: false }));
    const a = t.open("a", "/slow", { beside: other });
    await t.saw("a", "waits");
    a.io._packet({ type: 1, nsp: "/slow" }); // a DISCONNECT, which the client sends for connected sockets only
    await other.timeout(1000).emitWithAck("noop").catch(() => {});
    await t.control("release");
    await t.control("noop");
    t.say("the other is connected", other.connected);
    t.say("let in", await t.control("fetch", { nsp: "/slow" }));
  },

  async "lost while a middleware decides"(t) {
    const relay = await t.relay();
    const a = t.open("a", "/slow", { port: relay.port, reconnection: false });
    await t.saw("a", "waits");
    await t.upgraded(a);
    await t.noticeable(relay, a);
    relay.open = false;
    const closed = t.next(a.io, "close");
    relay.cut("rst");
    await closed;
    await t.control("noop");
    await t.control("release");
    t.say("sockets", await t.control("fetch", { nsp: "/slow" }));
  },

  async "events while it connects"(t) {
    const a = t.open("a", "/talkative");
    const heard = t.record(a);
    await t.connected(a);
    await t.until(() => heard.some(([name, value]) => name === "at once" && value !== 1));
    t.say("heard", heard);
    const b = t.open("b", "/leaving");
    const order = [];
    for (const event of ["connect", "disconnect"]) b.on(event, () => order.push(event));
    t.say("disconnected in the handler", (await t.next(b, "disconnect"))[0]);
    t.say("order", order);
  },
};

const load = {
  async large(t) {
    const a = await t.connected(t.open("a", "/", { reconnection: false }));
    const text = "x".repeat(900_000);
    t.say("text", await a.emitWithAck("echo", text));
    t.say("code points", (await a.emitWithAck("echo", "세".repeat(200_000))).length);
    const bytes = Buffer.alloc(600_000, 7); // base64 makes it larger
    t.say("binary", await a.emitWithAck("echo", bytes));
    t.say("by the server", (await a.emitWithAck("burst", 1, 3_000_000)));
    const gone = t.next(a, "disconnect");
    a.emit("echo", "x".repeat(1_200_000));
    t.say("too large", ["transport close", "transport error"].includes((await gone)[0]));
  },

  async "bursts of the client"(t) {
    const a = await t.connected(t.open("a"));
    const back = t.record(a, "back");
    for (let i = 0; i < 1000; i++) a.emit("back", i);
    await t.sync(a);
    t.say("small", [back.length, inOrder(back.splice(0))]);
    const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => a.emitWithAck("echo", i)));
    t.say("with answers", [answers.length, inOrder(answers)]);
    const text = "y".repeat(50_000);
    for (let i = 0; i < 60; i++) a.emit("back", i, text);
    await t.sync(a);
    t.say("of 50 kB", [back.length, inOrder(back.splice(0).map(([number]) => number))]);
    for (let i = 0; i < 100; i++) a.emit("back", Buffer.from([i]));
    await t.sync(a);
    t.say("binary", [back.length, inOrder(back.map(([octet]) => octet))]);
  },

  async "bursts of the server"(t) {
    const a = await t.connected(t.open("a", "/", { reconnection: false }));
    const b = await t.connected(t.open("b", "/", { reconnection: false }));
    const heard = t.record(a, "burst");
    const other = t.record(b, "burst");
    const counts = (list) => [list.length, inOrder(list.splice(0).map(([number]) => number))];
    const sync = (socket) => socket.timeout(15_000).emitWithAck("noop").catch(() => {});
    for (const [label, count, size] of [["small", 1000, 10], ["of 50 kB", 60, 50_000], ["20,000", 20_000, 200]]) {
      await a.timeout(15_000).emitWithAck("burst", count, size).catch(() => {});
      await sync(a);
      t.say(label, counts(heard));
    }
    await t.control("burst", { instance: "plain", to: ["@a", "@b"] }, 60, 50_000);
    await sync(a);
    await sync(b);
    t.say("of 50 kB to a room", [counts(heard), counts(other)]);
    t.say("connected", [a.connected, b.connected]);
  },

  async "traffic during the upgrade"(t) {
    const a = t.open("a");
    const back = t.record(a, "back");
    await t.next(a, "connect");
    let sent = 0;
    const upgraded = () => t.mode !== "upgrade" || transport(a) === "websocket";
    for (let more = 20; more > 0; more -= upgraded() ? 1 : 0) {
      for (let i = 0; i < 5; i++) a.emit("back", sent, Buffer.from(String(sent++)));
      await sleep(1);
    }
    await t.sync(a);
    t.say("in order", inOrder(back.map(([number]) => number)));
    t.say("all", [back.length === sent, back.every(([number, bytes]) => String(number) === bytes.toString())]);
    t.say("transport", transport(a));
  },
};

const links = {
  async "last words"(t) {
    const a = await t.connected(t.open("a"));
    const heard = t.record(a);
    const gone = t.next(a, "disconnect");
    a.emit("last");
    t.say("reason", (await gone)[0]);
    t.say("heard before it", heard);
    t.say("reconnects by itself", a.active);
    await t.connected(a.connect());
    t.say("but may", await a.emitWithAck("echo", 1));
    a.emit("back", "sent just before leaving");
    a.disconnect();
    t.say("connected", a.connected);
    const b = await t.connected(t.open("b"));
    const beside = await t.connected(t.open("beside", "/admin", { beside: b }));
    const order = [];
    b.on("last words", () => order.push("last words"));
    for (const [name, socket] of [["b", b], ["beside", beside]])
      socket.on("disconnect", (reason) => order.push([name, reason]));
    b.emit("last", true);
    await t.until(() => order.length === 3);
    t.say("before the session is closed", order);
  },

  async "disconnected by the server"(t) {
    for (const [name, close] of [["one namespace", false], ["the session", true]]) {
      const a = await t.connected(t.open(name));
      await a.emitWithAck("join", "x", "y");
      const gone = t.next(a, "disconnect");
      a.emit("kick", close);
      t.say(name, (await gone)[0]);
    }
  },

  async "the client closes its engine"(t) {
    const a = await t.connected(t.open("a"));
    await a.emitWithAck("join", "x");
    const gone = t.next(a, "disconnect");
    a.io.engine.close();
    t.say("reason", (await gone)[0]);
    await t.connected(a);
    t.say("rooms of the new one", await a.emitWithAck("rooms"));
  },

  async "connections that are cut"(t) {
    for (const how of ["fin", "rst"]) {
      const relay = await t.relay();
      const a = await t.connected(t.open(how, "/", { port: relay.port }));
      const [id, recovered] = [a.id, a.recovered];
      const reconnected = t.next(a.io, "reconnect");
      const gone = t.next(a, "disconnect");
      const answer = a.emitWithAck("never").catch((error) => error);
      await t.sync(a);
      await t.noticeable(relay, a);
      relay.open = false;
      relay.cut(how);
      const [reason] = await gone;
      t.say(`${how}: the client hears of it`, ["transport close", "transport error"].includes(reason));
      t.say(`${how}: what waits for an answer`, await answer);
      a.emit("back", "kept meanwhile");
      const heard = t.record(a, "back");
      await t.next(a.io, "reconnect_attempt");
      await t.next(a.io, "reconnect_error");
      relay.open = true;
      await reconnected;
      await t.connected(a);
      await t.sync(a);
      t.say(`${how}: afterwards`, [a.id !== id, a.recovered === recovered, heard]);
    }
  },

  async "the server closes"(t) {
    const [name, port] = await t.control("open");
    const a = await t.connected(t.open("a", "/", { port, reconnection: false }));
    const admin = await t.connected(t.open("admin", "/admin", { beside: a }));
    const gone = [t.next(a, "disconnect"), t.next(admin, "disconnect")];
    await a.emitWithAck("join", "x");
    await new Promise((done) => setTimeout(done, 500)); // over polling, until its next GET waits at the server
    await t.control("close", name);
    t.say("reasons", (await Promise.all(gone)).map(([reason]) => reason));
    const late = t.open("late", "/", { port, reconnection: false });
    const [error] = await t.next(late, "connect_error");
    t.say("then", error.message.replace("xhr poll", "…").replace("websocket", "…"));
  },

  async heartbeats(t) {
    const relay = await t.relay("short");
    const a = await t.connected(t.open("a", "/", { port: relay.port, reconnection: false }));
    for (let i = 0; i < 3; i++) await t.next(a.io, "ping");
    t.say("after three", await a.emitWithAck("echo", 1));
    const gone = t.next(a, "disconnect");
    await t.noticeable(relay, a);
    relay.open = false;
    relay.cut("silent");
    t.say("when they stop", (await gone)[0]);
    await t.saw("a", "disconnect");
  },

  async "recovery: what was missed"(t) {
    const relay = await t.relay("recovering");
    const a = await t.connected(t.open("a", "/", { port: relay.port }));
    const id = a.id;
    t.say("at first", a.recovered);
    await a.emitWithAck("join", "lobby", "both");
    await a.emitWithAck("set", "name", "Ann");
    const heard = t.record(a, "news");
    const told = async (spec, ...args) => t.control("emit", { instance: "recovering", ...spec }, "news", ...args);
    await told({ to: ["lobby"] }, 0);
    await t.until(() => heard.length);
    await t.noticeable(relay, a);
    relay.open = false;
    relay.cut("rst");
    await t.next(a, "disconnect");
    await t.saw("a", "disconnect");
    await told({ to: ["lobby"] }, 1);
    await told({ to: ["elsewhere"] }, "not for it");
    await told({ volatile: true }, "volatile");
    await told({ to: ["lobby"], except: ["both"] }, "excluded");
    await told({ to: ["lobby", "both"] }, Buffer.from("2"), { deep: [Buffer.from("3")] });
    await told({ to: [a.id ?? id] }, "direct");
    await told({}, "for all");
    await told({ nsp: "/admin" }, "of another namespace");
    const connected = t.next(a, "connect");
    relay.open = true;
    await connected;
    t.say("recovered", [a.recovered, a.id === id]);
    await told({ to: ["lobby"] }, "live again");
    await t.until(() => heard.some((args) => args[0] === "live again"));
    const offsets = heard.map((args) => args.at(-1));
    t.say("each has an offset", offsets.every((offset) => typeof offset === "string" && offset.length > 0));
    t.say("all offsets differ", new Set(offsets).size === offsets.length);
    t.say("events", heard.map((args) => args.slice(0, -1)));
    t.say("rooms", await a.emitWithAck("rooms"));
    t.say("data", await a.emitWithAck("get"));
  },

  async "recovery: 60 events of 40 kB"(t) {
    const relay = await t.relay("recovering");
    const a = await t.connected(t.open("a", "/", { port: relay.port }));
    await a.emitWithAck("join", "lobby");
    const heard = t.record(a, "burst");
    let disconnections = 0;
    a.on("disconnect", () => (disconnections += 1));
    // Without an event, the client has no offset to return with.
    await t.control("emit", { instance: "recovering" }, "first");
    await t.sync(a);
    await t.noticeable(relay, a);
    relay.open = false;
    relay.cut("rst");
    await t.next(a, "disconnect");
    await t.saw("a", "disconnect");
    await t.control("burst", { instance: "recovering", to: ["lobby"] }, 60, 40_000);
    const connected = t.next(a, "connect");
    relay.open = true;
    await connected;
    t.say("recovered", a.recovered);
    const last = t.next(a, "last");
    await t.control("emit", { instance: "recovering" }, "last");
    await last;
    t.say("events", [heard.length, inOrder(heard.map(([number]) => number))]);
    t.say("disconnections", disconnections);
  },

  async "recovery: what ends it"(t) {
    const a = await t.connected(t.open("a", "/", { instance: "recovering" }));
    await t.control("emit", { instance: "recovering" }, "first");
    await t.sync(a);
    a.disconnect();
    await t.saw("a", "disconnect");
    await t.connected(a.connect());
    t.say("the client left", a.recovered);
    const kicked = t.next(a, "disconnect");
    a.emit("kick", false);
    await kicked;
    await t.connected(a.connect());
    t.say("the server disconnected it", a.recovered);
    const closed = t.next(a, "disconnect");
    a.emit("kick", true);
    await closed;
    await t.connected(a.connect());
    t.say("the server closed its session", a.recovered);
    await t.sync(a);
    const lost = t.next(a, "disconnect");
    a.io.engine.close();
    await lost;
    await t.connected(a);
    t.say("the engine was closed", a.recovered);
  },

  async "recovery: the server has not noticed"(t) {
    const relay = await t.relay("recovering");
    const a = await t.connected(t.open("a", "/", { port: relay.port }));
    await t.control("emit", { instance: "recovering" }, "first");
    await t.sync(a);
    await t.noticeable(relay, a);
    relay.cut("silent");
    const gone = t.next(a, "disconnect");
    relay.bury("client");
    await gone;
    await t.connected(a);
    t.say("recovered", a.recovered);
    relay.bury("server");
    await t.saw("a", "disconnect");
  },

  async "options of the client"(t) {
    const port = (await t.relay()).port;
    const tries = await t.connected(t.open("tries", "/", { retries: 2, ackTimeout: 50 }));
    let sent = 0;
    tries.onAnyOutgoing((event) => (sent += event === "never"));
    t.say("retries", await tries.emitWithAck("never").catch((error) => error));
    t.say("times sent", sent);
    const lazy = t.open("lazy", "/", { autoConnect: false });
    t.say("not by itself", [lazy.connected, lazy.active]);
    const early = lazy.emitWithAck("echo", "kept until it connects");
    lazy.connect();
    t.say("autoConnect: false", await early);
    const bare = t.open("bare", "/", { addTrailingSlash: false, reconnection: false });
    await Promise.race([t.next(bare, "connect"), t.next(bare, "connect_error")]);
    t.say("no trailing slash", bare.connected);
    const elsewhere = t.open("elsewhere", "/", { path: "/other/", reconnection: false });
    t.say("another path", (await t.next(elsewhere, "connect_error"))[0].message.replace(/xhr poll|websocket/, "…"));
    const stamped = await t.connected(t.open("stamped", "/", { timestampRequests: true, timestampParam: "ts" }));
    t.say("timestamps", await stamped.emitWithAck("echo", 1));
    const remembered = await t.connected(t.open("remembered", "/", { rememberUpgrade: true, port }));
    t.say("rememberUpgrade", await remembered.emitWithAck("echo", 1));
    const deflate = await t.connected(t.open("deflate", "/", { perMessageDeflate: { threshold: 1 } }));
    t.say("compression offered", (await deflate.emitWithAck("echo", "x".repeat(5000))).length);
    if (t.mode === "upgrade") {
      const staying = await t.connected(t.open("staying", "/", { upgrade: false }));
      t.say("upgrade: false", transport(staying));
      const first = await t.connected(t.open("first", "/", { transports: ["websocket", "polling"] }));
      t.say("WebSocket first", transport(first));
    }
  },

  async "requests that are refused"(t) {
    const url = (query) => `http://127.0.0.1:${t.ports.plain}/socket.io/?${query}`;
    await t.control("refused"); // those of the scenarios before
    const queries = ["EIO=4", "EIO=4&transport=x", "EIO=3&transport=polling", "EIO=4&transport=polling&sid=unknown"];
    for (const query of queries) t.say(query, await (await fetch(url(query))).json());
    t.say("PUT", await (await fetch(url("EIO=4&transport=polling"), { method: "PUT", body: "x" })).json());
    t.say("what the server hears", await t.control("refused"));
    const a = t.open("a", "/", { transports: ["websocket"], instance: "polling only", reconnection: false });
    t.say("a transport that is off", (await t.next(a, "connect_error"))[0]);
    const b = await t.connected(t.open("b", "/", { transports: ["polling"], instance: "polling only" }));
    t.say("the other one", await b.emitWithAck("echo", 1));
  },

  async "a session that connects to nothing"(t) {
    const relay = await t.relay("short");
    const a = t.open("a", "/nowhere", { port: relay.port, reconnection: false });
    const closed = t.next(a.io, "close");
    t.say("refused", (await t.next(a, "connect_error"))[0]);
    const outcome = await Promise.race([closed, sleep(4000)]);
    t.say("then", outcome?.[0]);
  },
};

export const scenarios = { ...talk, ...rooms, ...namespaces, ...load, ...links };
