// A small Socket.IO client (protocol 5 over Engine.IO 4) on the platform's own WebSocket: no long-polling,
// one namespace per client. It runs in browsers and in Node; before Node 22, pass a `WebSocket`.
//
//   const socket = new Client();                // connects at once, to the origin of the page
//   socket.on("message", (text) => …);          // an event from the server; the result acknowledges it
//   socket.emit("message", "hello", bytes);     // binary data anywhere; it is received as Uint8Array
//   const reply = await socket.request("join", "lobby");
//   socket.onstate = ({ name, retryIn }) => …;  // `on` is for the server's events only, whatever their names
//   socket.onmissed = () => …;                  // join again, and fetch what was missed
//
// After a lost connection, the client connects again after a random delay that grows. Events that are emitted
// in between are queued, and sent in order after the connect. Events sent just before the loss may or may not
// have arrived: where that matters, use `request`, which rejects, and repeat it. A server with connection
// state recovery (it sends a `pid`) sends the missed events itself; it adds an offset to its events, which
// handlers see as one more argument, a string. If the session could not be recovered, `onmissed` is called.

/** @typedef {(...args: any[]) => unknown} Handler */
/** @typedef {"connecting" | "online" | "reconnecting" | "offline"} StateName */
/** @typedef {{ name: StateName, retryIn: number, reason: string }} State retryIn: seconds, or 0 */

/** Times are in seconds. `auth` is sent at each connect. `queueLimit` counts characters and bytes. */
const DEFAULTS = {
  path: "/socket.io/", namespace: "/", auth: /** @type {object} */ ({}), WebSocket: globalThis.WebSocket,
  connectTimeout: 20, ackTimeout: 10, retryBase: 1, retryCap: 30, random: Math.random, queueLimit: 1 << 20,
};
const [CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK] = [0, 1, 2, 3, 4, 5, 6];
const PACKET = /^([0-6])(?:(\d+)-)?(?:(\/[^,]*),?)?(\d*)(.*)$/s; // type, attachments, namespace, id, JSON

export class Client {
  onstate = /** @type {(state: State) => unknown} */ (() => {}); // also each second while it waits to retry
  onconnected = /** @type {(how: { recovered: boolean, first: boolean }) => unknown} */ (() => {});
  onmissed = /** @type {() => unknown} */ (() => {}); // after onconnected, before the queue is sent
  onrefused = /** @type {(error: { message: string, data?: any }) => unknown} */ (() => {}); // no retry
  state = /** @type {State} */ ({ name: "offline", retryIn: 0, reason: "" });
  id = ""; // of the socket, from the server
  #options; #prefix; #url;
  #ws = /** @type {WebSocket | undefined} */ (undefined); // events of earlier ones are ignored
  #timer = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined); // connect, silence or retry
  #silence = 0; // seconds without a ping after which the connection is lost
  #attempt = 0; #nextId = 0;
  #session = /** @type {{ pid?: string, offset?: string }} */ ({}); // for recovery
  #early = /** @type {[id: string, data: any][]} */ ([]); // recovered events precede the answer to CONNECT
  #partial = { text: "", attachments: /** @type {Uint8Array[]} */ ([]) }; // a packet that is not complete
  #handlers = /** @type {Map<string, Set<Handler>>} */ (new Map());
  #requests = /** @type {Map<string, { resolve: Handler, reject: Handler }>} */ (new Map());
  #queue = /** @type {{ id: string, frames: (string | Uint8Array<ArrayBuffer>)[], size: number }[]} */ ([]);

  /** @param {string | URL} [url] @param {Partial<typeof DEFAULTS>} [options] */
  constructor(url = location.origin, options = {}) {
    this.#options = { ...DEFAULTS, ...options };
    this.#prefix = this.#options.namespace === "/" ? "" : `${this.#options.namespace},`;
    this.#url = new URL(`${this.#options.path}?EIO=4&transport=websocket`, url);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    globalThis.addEventListener?.("offline", () => this.#ws && this.#lost("no network"));
    globalThis.addEventListener?.("online", () => this.state.retryIn && this.connect());
    this.connect();
  }
  /** Connects now: after `close` or a refusal, or instead of waiting for the retry. */
  connect() {
    if (this.#ws) return;
    const ws = (this.#ws = new this.#options.WebSocket(this.#url));
    ws.binaryType = "arraybuffer";
    const gone = (/** @type {Event} */ event) => { if (ws === this.#ws) this.#lost(`socket ${event.type}`); };
    [ws.onclose, ws.onerror] = [gone, gone]; // in Node 20, no close event follows a refused connection
    ws.onmessage = ({ data }) => {
      try { if (ws === this.#ws) this.#receive(ws, data); }
      catch (error) { this.#lost(`bad packet: ${error}`); } // never a handler's: `call` catches those
    };
    [this.#early, this.#partial] = [[], { text: "", attachments: [] }];
    this.#after(this.#options.connectTimeout, () => this.#lost("no answer"));
    this.#become("connecting");
  }
  /** Disconnects, and stays offline until `connect`. */
  close() {
    if (this.#open) this.#ws?.send(`4${DISCONNECT}${this.#prefix}`);
    this.#lost("closed", false);
  }
  /** An event's first handler acknowledges it. @param {string} event @param {Handler} handler */
  on(event, handler) { this.#handlers.set(event, (this.#handlers.get(event) ?? new Set()).add(handler)); }
  /** @param {string} event @param {Handler} handler */
  off(event, handler) { this.#handlers.get(event)?.delete(handler); }
  /** Sends or queues; throws code "full" if the queue is full. @param {string} event @param {any[]} args */
  emit(event, ...args) { this.#send(EVENT, "", [event, ...args]); }
  /** Emits, and resolves with the acknowledgement. Rejects with code "timeout", "lost" (the connection) or
   *  "full" (the queue). @param {string} event @param {any[]} args @returns {Promise<any>} */
  async request(event, ...args) {
    const id = String(this.#nextId++);
    this.#send(EVENT, id, [event, ...args]);
    const answer = new Promise((resolve, reject) => this.#requests.set(id, { resolve, reject }));
    const late = () => this.#requests.get(id)?.reject(failure("timeout", `no answer to ${event}`));
    const timer = setTimeout(late, this.#options.ackTimeout * 1000);
    return answer.finally(() => {
      clearTimeout(timer);
      this.#requests.delete(id);
      this.#queue = this.#queue.filter((queued) => queued.id !== id); // a repeated request is sent once
    });
  }

  get #open() { return this.state.name === "online" && this.#ws?.readyState === 1; }
  /** @param {StateName} name */
  #become(name, reason = "", retryIn = 0) { call(this.onstate, (this.state = { name, retryIn, reason })); }
  /** @param {number} seconds @param {() => void} then */
  #after(seconds, then) { clearTimeout(this.#timer); this.#timer = setTimeout(then, seconds * 1000); }
  /** Drops the connection without waiting: a dead one may take minutes to close. @param {string} reason */
  #lost(reason, retry = true) {
    const ws = this.#ws;
    this.#ws = undefined;
    ws?.close();
    const queued = new Set(this.#queue.map(({ id }) => id)); // these are sent later
    this.#requests.forEach(({ reject }, id) => queued.has(id) || reject(failure("lost", "connection lost")));
    clearTimeout(this.#timer);
    if (!retry) return this.#become("offline", reason);
    const { random, retryCap, retryBase } = this.#options;
    const until = performance.now() + 1000 * random() * Math.min(retryCap, retryBase * 2 ** this.#attempt++);
    const wait = () => { // by the clock, because browsers slow timers down in hidden pages
      const left = (until - performance.now()) / 1000;
      if (left <= 0) return this.connect();
      this.#after(Math.min(left, 1), wait);
      const offline = globalThis.navigator?.onLine === false; // it retries anyway: localhost needs no network
      this.#become(offline ? "offline" : "reconnecting", reason, Math.ceil(left));
    };
    wait();
  }
  /** @param {number} type @param {string} id @param {unknown[]} data */
  #send(type, id, data) {
    const attachments = /** @type {Uint8Array<ArrayBuffer>[]} */ ([]);
    const json = JSON.stringify(data, function (key, value) {
      const item = this[key]; // before toJSON, which Node's Buffer has
      if (!(item instanceof ArrayBuffer || ArrayBuffer.isView(item))) return value;
      const view = ArrayBuffer.isView(item) ? item : new Uint8Array(item);
      const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice();
      return { _placeholder: true, num: attachments.push(bytes) - 1 };
    });
    const head = attachments.length ? `${type + 3}${attachments.length}-` : type; // BINARY_EVENT, BINARY_ACK
    const frames = [`4${head}${this.#prefix}${id}${json}`, ...attachments];
    if (this.#open) return frames.forEach((frame) => this.#ws?.send(frame));
    const size = frames.reduce((sum, { length }) => sum + length, 0);
    const total = this.#queue.reduce((sum, queued) => sum + queued.size, size);
    if (total > this.#options.queueLimit) throw failure("full", "offline, and the queue is full");
    this.#queue.push({ id, frames, size });
  }
  /** One Engine.IO packet. @param {WebSocket} ws @param {string | ArrayBuffer} data */
  #receive(ws, data) {
    const { text, attachments } = this.#partial;
    if (typeof data !== "string") return this.#packet(text, [...attachments, new Uint8Array(data)]);
    if (data[0] === "0") {
      const { pingInterval, pingTimeout } = JSON.parse(data.slice(1));
      this.#silence = (pingInterval + pingTimeout) / 1000;
      ws.send(`4${CONNECT}${this.#prefix}${JSON.stringify({ ...this.#options.auth, ...this.#session })}`);
    } else if (data[0] === "2") {
      ws.send(`3${data.slice(1)}`);
      this.#attempt = 0; // only now: a server may accept and fail at once
      if (this.#open) this.#after(this.#silence, () => this.#lost("no ping"));
    } else if (data[0] === "4" && !text) this.#packet(data.slice(1), []);
    else if (!"16".includes(data[0])) throw new Error("unexpected type"); // 1: close; 6: noop
  }
  /** One Socket.IO packet, or its first messages. @param {string} text @param {Uint8Array[]} attachments */
  #packet(text, attachments) {
    const [, type, count = 0, namespace = "/", id, json] = PACKET.exec(text) ?? [];
    this.#partial = attachments.length < +count ? { text, attachments } : { text: "", attachments: [] };
    if (this.#partial.text || namespace !== this.#options.namespace) return;
    const data = JSON.parse(json || "null", !count ? undefined :
      (_, value) => value?._placeholder ? attachments[value.num] : value);
    switch (Number(type)) {
      case CONNECT: return this.#connected(data);
      case EVENT: case BINARY_EVENT: return this.#deliver(id, data);
      case ACK: case BINARY_ACK: return this.#requests.get(id)?.resolve(data[0]);
      case DISCONNECT: return this.#lost("disconnected by the server", false);
      case CONNECT_ERROR: this.#lost(`refused: ${data.message}`, false); return call(this.onrefused, data);
      default: throw new Error("not a packet");
    }
  }
  /** @param {{ sid: string, pid?: string }} session */
  #connected({ sid, pid }) {
    if (this.state.name === "online" || !sid) throw new Error("unexpected CONNECT");
    const [first, recovered] = [!this.id, Boolean(pid) && pid === this.#session.pid];
    if (!recovered) this.#session = { pid };
    this.id = sid;
    this.#after(this.#silence, () => this.#lost("no ping"));
    this.#become("online");
    call(this.onconnected, { first, recovered });
    if (!first && !recovered) call(this.onmissed);
    for (const [id, data] of this.#early.splice(0)) this.#deliver(id, data);
    if (this.#open) this.#queue.splice(0).forEach(({ frames }) => frames.forEach((it) => this.#ws?.send(it)));
  }
  /** @param {string} id @param {any} data */
  #deliver(id, data) {
    if (this.state.name !== "online") return this.#early.push([id, data]);
    const [event, ...args] = data;
    const ws = this.#ws;
    const answers = [...(this.#handlers.get(event) ?? [])].map((handler) => call(handler, ...args));
    if (id) answers[0]?.then((value) => ws === this.#ws && this.#open && this.#send(ACK, id, [value]));
    else if (this.#session.pid && typeof args.at(-1) === "string") this.#session.offset = args.at(-1);
  }
}

/** Turns a handler's errors into unhandled rejections. @param {Handler} handler @param {any[]} args */
async function call(handler, ...args) { return handler(...args); }
/** @param {"timeout" | "lost" | "full"} code @param {string} message */
function failure(code, message) { return Object.assign(new Error(message), { code }); }
