// Official Socket.IO clients that a test tells what to do: node chatters.js URL. Each line of standard input is a JSON
// array, [client, command, ...arguments], and each line of the output answers one, as {"answer": value}:
//   ["a", "open", options]       opens a client, which connects again as fast as it can; answers when it is connected
//   ["a", "call", event, ...]    answers with the acknowledgement, or null if there is none within a second
//   ["a", "id"]                  answers with the socket's id, or null if it is not connected now
//   ["a", "heard"]               answers with the texts of the events "said" since the last time
import { createInterface } from "node:readline";
import { io } from "socket.io-client";

const [url] = process.argv.slice(2);
const clients = new Map();
const timing = { reconnectionDelay: 50, reconnectionDelayMax: 50, randomizationFactor: 0 };

const commands = {
  async open(name, options) {
    const socket = io(url, { forceNew: true, ...timing, ...options });
    clients.set(name, { socket, heard: [] });
    socket.on("said", (text) => clients.get(name).heard.push(text)); // `recovery` adds an offset
    await new Promise((resolve) => socket.once("connect", resolve));
  },
  call: (name, event, ...args) => clients.get(name).socket.timeout(1000).emitWithAck(event, ...args).catch(() => null),
  id: (name) => clients.get(name).socket.id ?? null,
  heard: (name) => clients.get(name).heard.splice(0),
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, command, ...args] = JSON.parse(line);
  console.log(JSON.stringify({ answer: (await commands[command](name, ...args)) ?? null }));
}
process.exit(0);
