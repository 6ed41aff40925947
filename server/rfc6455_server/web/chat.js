// The chat. Messages of others are always shown as text, never as markup.
import { Client } from "./client.js";
import { showState } from "./state.js";

const MAX_IMAGE = 2 << 20; // bytes, as on the server
const PIECE = 1 << 16; // bytes of an image in one event; the progress bar counts the acknowledged ones
const RETRY = 1000; // milliseconds

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const socket = new Client(location.origin, { namespace: "/chat" });
showState(socket, $("state"));

/** The state of this tab. `seen`: the number of the last message shown; `epoch`: the server's, for numbers. */
const here = { name: "", room: "", seen: 0, epoch: "", joined: false };
const shown = new Set(); // keys of messages; one that arrives again after a lost connection is not shown again
const people = new Map(); // names by id
let image = /** @type {File | null} */ (null);

// Entering. The room is in the URL: a link is an invitation.

const wanted = new URLSearchParams(location.search);
$("room").value = wanted.get("room") ?? "lobby";
$("name").value = stored("name") ?? "";

$("enter").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  here.name = $("name").value.trim();
  here.room = $("room").value.trim();
  if (!here.name || !here.room) return;
  store("name", here.name);
  history.replaceState(null, "", `?${new URLSearchParams({ room: here.room })}`);
  $("enter").hidden = true;
  $("chat").hidden = false;
  $("title").textContent = here.room;
  if (socket.state.name === "online") join();
  $("text").focus();
});

/** Whether the server says no: with false or nothing, or with what is wrong. @param {any} answer */
const refused = (answer) => !answer || Boolean(answer.error);

/** Enters the room, for the first time or again, and shows the messages since. */
async function join() {
  try {
    const answer = await socket.request("join", here.room, here.name, here.seen, here.epoch);
    if (refused(answer)) return note("The server refused this name or room.");
    here.joined = true;
    people.clear();
    for (const { id, name } of answer.people) people.set(id, name);
    showPeople();
    if (answer.epoch !== here.epoch) here.seen = 0; // the server has restarted its numbers
    here.epoch = answer.epoch;
    answer.messages.forEach(show);
  } catch {} // the connection was lost; `onconnected` joins again
}

// After a reconnect, a recovered client is still in its room and is sent what it missed. Joining again is harmless
// then, and returns the people; a client that was not recovered has to join.
socket.onconnected = ({ first }) => {
  if (here.room) join();
  if (!first) note("The connection is back.");
};
socket.onmissed = () => note("Some messages may have been missed; the latest ones follow.");

// Sending. Each message has a key, so that the server adds it once, even if it is sent again.

const newKey = () => [...crypto.getRandomValues(new Uint32Array(4))].map((n) => n.toString(36)).join("");

/** Repeats a request until the server has answered. @param {() => Promise<any>} ask */
async function persist(ask) {
  for (;;) {
    try {
      return await ask();
    } catch {
      await new Promise((resolve) => setTimeout(resolve, RETRY));
    }
  }
}

let saying = Promise.resolve(); // one after the other, so that messages stay in order

$("say").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const [text, to, file] = [$("text").value.trim(), $("to").value, image];
  $("text").value = "";
  setImage(null);
  if (text && to) saying = saying.then(() => sayTo(to, text));
  else if (text) saying = saying.then(() => say(text));
  if (file) saying = saying.then(() => sendImage(file));
  $("text").focus();
});

/** @param {string} text */
async function say(text) {
  const key = newKey();
  if (!(await persist(() => joined("say", key, text)))) note("The message was not sent: the server refused it.");
}

/** Sends a request that needs the room. @param {any[]} args */
async function joined(...args) {
  if (!here.joined) throw new Error("not in the room yet");
  return !refused(await socket.request(args[0], ...args.slice(1)));
}

/** @param {string} to @param {string} text */
async function sayTo(to, text) {
  const name = people.get(to) ?? "somebody";
  const answer = await socket.request("direct", to, text).catch(() => false);
  if (!refused(answer)) show({ name: here.name, to: name, text, date: new Date().toISOString() });
  else note(`${name} is not here: the message was not sent.`);
}

/** @param {File} file */
async function sendImage(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  $("progress").hidden = false;
  const key = newKey();
  const sent = await persist(async () => {
    for (let offset = 0; offset < bytes.length; offset += PIECE) {
      $("progress").value = offset / bytes.length;
      const piece = bytes.subarray(offset, offset + PIECE);
      if (!(await joined("image", key, file.type, bytes.length, offset, piece))) return false;
    }
    return true;
  });
  $("progress").hidden = true;
  if (!sent) note("The image was not sent: the server refused it.");
}

/** @param {File | null} file */
function setImage(file) {
  URL.revokeObjectURL($("thumbnail").src);
  image = file;
  $("preview").hidden = !file;
  $("file").value = "";
  if (file && file.size > MAX_IMAGE) {
    note(`${file.name} is larger than ${MAX_IMAGE >> 20} MiB.`);
    setImage(null);
  } else if (file) {
    $("thumbnail").src = URL.createObjectURL(file);
  }
}

const firstImage = (/** @type {FileList | undefined} */ files) =>
  [...(files ?? [])].find((file) => /^image\/(png|jpeg|gif|webp)$/.test(file.type)) ?? null;

$("file").addEventListener("change", () => setImage(firstImage($("file").files)));
$("discard").addEventListener("click", () => setImage(null));
document.addEventListener("paste", ({ clipboardData }) => {
  const file = firstImage(clipboardData?.files);
  if (file) setImage(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("chat").classList.add("dropping");
});
document.addEventListener("dragleave", () => $("chat").classList.remove("dropping"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("chat").classList.remove("dropping");
  const file = firstImage(event.dataTransfer?.files);
  if (file) setImage(file);
});

$("text").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault(); // Shift+Enter is a new line; Enter during composition belongs to the input method
    $("say").requestSubmit();
  }
});

let typedAt = 0;
$("text").addEventListener("input", () => {
  if (Date.now() - typedAt < 1000 || socket.state.name !== "online") return;
  typedAt = Date.now();
  socket.emit("typing");
});

// Receiving.

socket.on("message", (message) => show(message));
socket.on("direct", (message) => show(message));
socket.on("joined", ({ id, name }) => {
  if (!people.has(id)) note(`${name} has joined.`);
  people.set(id, name);
  showPeople();
});
socket.on("left", ({ id, name }) => {
  if (people.delete(id)) note(`${name} has left.`);
  showPeople();
});

const typing = new Map(); // timers by id
socket.on("typing", ({ id, name }) => {
  clearTimeout(typing.get(id)?.timer);
  const timer = setTimeout(() => {
    typing.delete(id);
    showTyping();
  }, 3000);
  typing.set(id, { name, timer });
  showTyping();
});

// Showing.

function showTyping() {
  const names = [...typing.values()].map(({ name }) => name);
  $("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} writing …` : "";
}

function showPeople() {
  const entries = [...people].sort(([, a], [, b]) => a.localeCompare(b));
  $("people").replaceChildren(...entries.map(([id, name]) => element("li", name, id === socket.id ? " (you)" : "")));
  const to = $("to").value;
  const others = entries.filter(([id]) => id !== socket.id);
  $("to").replaceChildren(new Option("everyone", ""), ...others.map(([id, name]) => new Option(name, id)));
  $("to").value = people.has(to) ? to : "";
}

/** Appends a message, unless it is shown already. @param {any} message */
function show(message) {
  if (message.key !== undefined) {
    if (shown.has(message.key)) return;
    shown.add(message.key);
    here.seen = Math.max(here.seen, message.number);
  }
  const item = document.createElement("li");
  const who = element("strong", message.name);
  who.dir = "auto";
  const time = element("time", new Date(message.date).toLocaleTimeString());
  time.dateTime = message.date;
  item.append(who, message.to ? ` to ${message.to} only` : "", time);
  if (message.to) item.className = "direct";
  if (message.text !== undefined) {
    const text = element("p", message.text);
    text.dir = "auto";
    item.append(text);
  }
  if (message.image) {
    const picture = document.createElement("img");
    picture.alt = `An image from ${message.name}`;
    picture.src = URL.createObjectURL(new Blob([message.image], { type: message.type }));
    picture.onload = () => follow();
    item.append(picture);
  }
  append(item);
}

/** @param {string} text */
function note(text) {
  const item = element("li", text);
  item.className = "note";
  append(item);
}

/** @param {HTMLElement} item */
function append(item) {
  const log = $("log");
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  $("messages").append(item);
  follow();
}

let following = true; // whether the log is scrolled to its end, and follows new messages
function follow() {
  if (following) $("log").scrollTop = $("log").scrollHeight;
}

/** @param {string} name @param {...string} texts @returns {any} */
function element(name, ...texts) {
  const made = document.createElement(name);
  made.textContent = texts.join("");
  return made;
}

// A browser may forbid storage; the chat works without it.

/** @param {string} key */
function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
/** @param {string} key @param {string} value */
function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {}
}
