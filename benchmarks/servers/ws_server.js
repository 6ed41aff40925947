// Node's ws with bufferutil: an echo at /echo, a room at /room. --compression turns permessage-deflate on.
import { createRequire } from "node:module";

const { WebSocketServer, WebSocket } = createRequire(new URL("../node/", import.meta.url))("ws");

const members = new Set();
const perMessageDeflate = process.argv.includes("--compression");
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate, maxPayload: 1 << 24 });

server.on("listening", () => console.log(server.address().port));
server.on("connection", (socket, request) => {
  socket.on("error", () => {});
  if (request.url === "/echo") {
    socket.on("message", (data, isBinary) => socket.send(data, { binary: isBinary }));
    return;
  }
  members.add(socket);
  socket.on("close", () => members.delete(socket));
  socket.on("message", (data, isBinary) => {
    for (const member of members) {
      if (member.readyState === WebSocket.OPEN) member.send(data, { binary: isBinary });
    }
  });
});
