// Sends text, binary and 16 MiB messages to the echo server at argv[2]; exits with 0 if all came back.
// With argv[3] = deflate, it offers permessage-deflate, and the server must accept it.
import { WebSocket } from "ws";

const messages = ["", "Hello", "é€😀", Buffer.alloc(0), Buffer.from([0, 255, 128]), "x".repeat(70000)];
messages.push(Buffer.alloc(16 * 1024 * 1024, "payload "));

const deflate = process.argv[3] === "deflate";
const socket = new WebSocket(process.argv[2], { maxPayload: 32 * 1024 * 1024, perMessageDeflate: deflate });
const received = [];

socket.on("open", () => {
  if (socket.extensions.startsWith("permessage-deflate") !== deflate) fail(`extensions: ${socket.extensions}`);
  for (const message of messages) socket.send(message);
});
socket.on("message", (data, isBinary) => {
  received.push(isBinary ? data : data.toString());
  if (received.length === messages.length) socket.ping("bye");
});
socket.on("pong", (data) => {
  if (data.toString() === "bye") socket.close(1000, "done");
});
socket.on("close", (code) => {
  const same = messages.every((sent, i) => (Buffer.isBuffer(sent) ? sent.equals(received[i]) : sent === received[i]));
  if (code !== 1000 || !same) fail(`code ${code}, same ${same}`);
  process.exit(0);
});
socket.on("error", (error) => fail(error.message));

function fail(why) {
  console.error(why);
  process.exit(1);
}
