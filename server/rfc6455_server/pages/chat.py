"""A chat: rooms with their people and latest messages, images, direct messages, typing.

No message is lost or doubled when a connection is lost. Each message has a number in its room, so that a
client that comes back asks for those after the last one that it has. Each has a key from its sender, so that
a message that is sent again is added once.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any, Final

from rfc6455_server.socketio import Namespace, Socket, SocketIO

HISTORY: Final = 50
"""Maximum messages in a room's history, which those who join are shown."""

MAX_ROOMS: Final = 100
"""Maximum rooms whose history is kept; the least recently used is dropped first."""

MAX_ROOM_BYTES: Final = 4 << 20
"""Maximum bytes of the images in a room's history; the oldest messages are dropped first."""

MAX_TEXT: Final = 2000
"""Maximum code points of a message."""

MAX_NAME: Final = 40
"""Maximum code points of the name of a person or a room."""

MAX_IMAGE: Final = 2 << 20
"""Maximum bytes of an image."""

IMAGE_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Types that cannot carry a script."""

_KEYS: Final = 200


@dataclass
class Room:
    """The history of a room."""

    number: int = 0
    epoch: str = field(
        default_factory=lambda: token_hex(8)
    )  # of the numbers, which start again when the server does
    messages: deque[dict[str, Any]] = field(default_factory=deque)
    keys: "OrderedDict[str, int]" = field(
        default_factory=OrderedDict
    )  # the number of each message, by its key

    def add(self, message: dict[str, Any], key: str) -> dict[str, Any] | None:
        """Keeps a message under the next number, and returns it; ``None`` if its key was added before."""
        if key in self.keys:
            return None
        self.number += 1
        message = {"key": key, "number": self.number, "date": datetime.now(UTC).isoformat(), **message}
        self.messages.append(message)
        self.keys[key] = self.number
        if len(self.keys) > _KEYS:
            self.keys.popitem(last=False)
        while len(self.messages) > HISTORY or self._bytes() > MAX_ROOM_BYTES:
            self.messages.popleft()
        return message

    def after(self, number: int) -> list[dict[str, Any]]:
        """Returns the messages after the one with this number."""
        return [message for message in self.messages if message["number"] > number]

    def _bytes(self) -> int:
        return sum(len(message.get("image", b"")) for message in self.messages)


@dataclass
class Upload:
    """An image that arrives in pieces."""

    key: str
    type: str
    size: int
    data: bytearray = field(default_factory=bytearray)


class Chat:
    """The rooms and their people."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._rooms: OrderedDict[str, Room] = OrderedDict()

    def room(self, name: str) -> Room:
        """Returns the history of a room, new if there is none."""
        room = self._rooms.get(name) or Room()
        self._rooms[name] = room
        self._rooms.move_to_end(name)
        if len(self._rooms) > MAX_ROOMS:
            self._rooms.popitem(last=False)
        return room

    def people(self, name: str) -> list[dict[str, str]]:
        return [person(socket) for socket in self._namespace.to(name).fetch_sockets()]

    def say(self, socket: Socket, key: str, message: dict[str, Any]) -> bool:
        """Adds a message to the socket's room and sends it to all, unless its key was added before."""
        name = socket.data["room"]
        added = self.room(name).add({**person(socket), **message}, key)
        if added is not None:
            self._namespace.to(name).emit("message", added)
        return True


def person(socket: Socket) -> dict[str, str]:
    """Returns what others see of a socket."""
    return {"id": socket.id, "name": socket.data["name"]}


def clean(value: object, limit: int) -> str:
    """Returns the text that a client sent, stripped; empty if it is not a text or is too long."""
    text = value.strip() if isinstance(value, str) else ""
    return text if len(text) <= limit else ""


def add_chat(io: SocketIO) -> Chat:
    """Adds the namespace ``/chat``."""
    namespace = io.of("/chat")
    chat = Chat(namespace)

    @namespace.on("connect")
    def connected(socket: Socket) -> None:
        if socket.recovered:  # it is back in its room, and is sent what it missed
            socket.to(socket.data["room"]).emit("joined", person(socket))

    @namespace.on("join")
    def join(
        socket: Socket, room: object, name: object, seen: object = 0, epoch: object = ""
    ) -> dict[str, Any] | None:
        """Enters a room under a name; answers with its people and the messages after number ``seen``."""
        room, name = clean(room, MAX_NAME), clean(name, MAX_NAME)
        if not room or not name:
            return None
        leave(socket)
        socket.data.update(room=room, name=name)
        socket.join(room)
        socket.to(room).emit("joined", person(socket))
        history = chat.room(room)
        messages = history.after(seen if isinstance(seen, int) and epoch == history.epoch else 0)
        return {"people": chat.people(room), "messages": messages, "epoch": history.epoch}

    @namespace.on("say")
    def say(socket: Socket, key: object, text: object) -> bool:
        """Sends a text to all in the room; True if it is sent, now or before."""
        text, key = clean(text, MAX_TEXT), clean(key, MAX_NAME)
        return bool(text and key and "room" in socket.data) and chat.say(socket, key, {"text": text})

    @namespace.on("image")
    def image(  # noqa: PLR0917 - the event's arguments
        socket: Socket, key: object, type_: object, size: object, offset: object, piece: object
    ) -> bool:
        """Takes a piece of an image, and sends the image after the last one; False if the upload failed."""
        key = clean(key, MAX_NAME)
        if not isinstance(piece, bytes) or not isinstance(size, int) or "room" not in socket.data:
            return False
        if type_ not in IMAGE_TYPES or not 0 < size <= MAX_IMAGE or not key:
            return False
        upload = socket.data.get("upload")
        if offset == 0:
            upload = socket.data["upload"] = Upload(key, str(type_), size)
        if not isinstance(upload, Upload) or upload.key != key or offset != len(upload.data):
            return False
        upload.data += piece
        if len(upload.data) < upload.size:
            return True
        del socket.data["upload"]
        if len(upload.data) > upload.size:
            return False
        return chat.say(socket, key, {"image": bytes(upload.data), "type": upload.type})

    @namespace.on("direct")
    def direct(socket: Socket, to: object, text: object) -> bool:
        """Sends a text to one person only; False if that person is not in the room."""
        text = clean(text, MAX_TEXT)
        other = namespace.sockets.get(to) if isinstance(to, str) else None
        if not text or other is None or other.data.get("room") != socket.data.get("room", ""):
            return False
        now = datetime.now(UTC).isoformat()
        message = {**person(socket), "to": other.data["name"], "text": text, "date": now}
        other.emit("direct", message)
        return True

    @namespace.on("typing")
    def typing(socket: Socket) -> None:
        if "room" in socket.data:
            socket.to(socket.data["room"]).volatile.emit("typing", person(socket))

    def leave(socket: Socket) -> None:
        room = socket.data.get("room")
        if room is not None:
            socket.leave(room)
            socket.to(room).emit("left", person(socket))

    @namespace.on("disconnecting")
    def gone(socket: Socket, reason: str, _: set[str]) -> None:
        room = socket.data.get("room")
        socket.data.pop("upload", None)
        if room is not None:
            namespace.to(room).emit("left", {**person(socket), "reason": reason})

    return chat
