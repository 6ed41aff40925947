// The first page: a chat in one room, over the browser's own WebSocket.
// A message on the wire is JSON text: {"name": …, "text": …, "time": ISO 8601}.

const state = document.getElementById("state");
const messages = document.getElementById("messages");
const form = document.getElementById("form");
const nameInput = document.getElementById("name");
const textInput = document.getElementById("text");

nameInput.value = localStorage.getItem("name") ?? "";

const url = new URL("rooms/lobby", location.href);
url.protocol = url.protocol.replace("http", "ws");

let socket;
let delay = 500; // milliseconds before the next attempt

function open() {
  socket = new WebSocket(url);
  socket.onopen = () => {
    delay = 500;
    state.textContent = "online";
  };
  socket.onmessage = (event) => {
    try {
      show(JSON.parse(event.data));
    } catch {
      // Whoever is in the room may send anything: what is no message of this page is left out.
    }
  };
  socket.onclose = () => {
    state.textContent = "offline, trying again";
    setTimeout(open, delay * (0.5 + Math.random() / 2));
    delay = Math.min(delay * 2, 15000);
  };
}

function show({ name, text, time }) {
  const item = document.createElement("li");
  const when = document.createElement("time");
  const date = new Date(time);
  when.dateTime = date.toISOString();
  when.textContent = date.toLocaleTimeString();
  const who = document.createElement("strong");
  who.append(bidiIsolated(String(name)), ": ");
  item.append(when, who, bidiIsolated(String(text))); // text only: nothing becomes markup
  messages.append(item);
  while (messages.children.length > 500) messages.firstChild.remove();
  item.scrollIntoView({ block: "nearest" });
}

function bidiIsolated(text) {
  const element = document.createElement("bdi");
  element.textContent = text;
  return element;
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (socket.readyState !== WebSocket.OPEN) return;
  const message = { name: nameInput.value, text: textInput.value, time: new Date().toISOString() };
  socket.send(JSON.stringify(message));
  show(message);
  localStorage.setItem("name", nameInput.value);
  textInput.value = "";
};

open();
