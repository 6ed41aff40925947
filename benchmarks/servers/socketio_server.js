// Node's socket.io with bufferutil: a room, and an event that is emitted to all its members.
import { createServer } from "node:http";
import { createRequire } from "node:module";

const { Server } = createRequire(new URL("../node/", import.meta.url))("socket.io");

const server = createServer();
const io = new Server(server, { pingInterval: 3600000, maxHttpBufferSize: 1 << 24 });
io.on("connection", (socket) => {
  socket.join("all");
  socket.on("message", (data) => io.to("all").emit("message", data));
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
