"""A Socket.IO chat: rooms, direct messages, images, acknowledgements, recovery of lost connections.

Any Socket.IO client can connect. In a browser: ``const socket = io({auth: {name: "Ann"}})``.
"""

from datetime import UTC, datetime
from typing import Any

from rfc6455_server import Server
from rfc6455_server.socketio import ConnectError, Socket, SocketIO

io = SocketIO(recovery=120)  # seconds within which a lost socket can come back without missing an event


@io.use
def check(socket: Socket) -> None:
    if not socket.handshake.auth.get("name"):
        raise ConnectError("auth needs a name")
    socket.data["name"] = socket.handshake.auth["name"]


@io.on("connect")
def back(socket: Socket) -> None:
    if socket.recovered:  # its connection was lost, and it is in its rooms again
        socket.to(*socket.rooms).emit("joined", socket.data["name"])


@io.on("join")
def join(socket: Socket, room: str) -> list[str]:
    socket.join(room)
    socket.to(room).emit("joined", socket.data["name"])
    return [other.data["name"] for other in io.to(room).fetch_sockets()]  # the acknowledgement


@io.on("message")
def message(socket: Socket, room: str, text: str) -> dict[str, Any]:
    date = datetime.now(UTC).isoformat(timespec="seconds")
    io.to(room).emit("message", {"name": socket.data["name"], "text": text, "date": date})
    return {"ok": True}


@io.on("image")
def image(socket: Socket, room: str, data: bytes) -> None:
    socket.to(room).emit("image", socket.data["name"], data)


@io.on("direct")
async def direct(socket: Socket, to: str, text: str) -> Any:
    for other in io.fetch_sockets():
        if other.data["name"] == to:
            return await other.timeout(5).emit_with_ack("direct", socket.data["name"], text)
    return None


@io.on("disconnecting")
def left(socket: Socket, reason: str, rooms: set[str]) -> None:
    io.to(*rooms).emit("left", socket.data["name"], reason)


server = Server()
server.mount(io)
if __name__ == "__main__":
    server.run("127.0.0.1", 8765)
