"""A chat: rooms with their people and latest messages, images, direct messages, typing.

No message is lost or doubled when a connection is lost. Each message has a number in its room, so that a
client that comes back asks for those after the last one that it has. Each has a key from its sender, so that
a message that is sent again is added once.

The types of the events are in their annotations, so that what a client sends is checked before it arrives
here, and ``/events`` shows them.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from secrets import token_hex
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from rfc6455_server.socketio import Bounds, Namespace, Socket, SocketIO

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

_KEYS: Final = 200

ImageType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
"""Types that cannot carry a script."""

Name = Annotated[str, Bounds(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, Bounds(min_length=1, max_length=MAX_TEXT)]
Key = Annotated[str, Bounds(min_length=1, max_length=MAX_NAME), "The same if a message is sent again."]


class Person(TypedDict):
    """What others see of a socket."""

    id: str
    name: str


class Content(TypedDict, total=False):
    """What a message says: a text, or an image and its type."""

    text: str
    image: bytes
    type: ImageType


class Message(Person, Content):
    """A message in a room's history."""

    key: str
    number: int
    date: str


class Direct(Person):
    """A message to one person only."""

    to: Annotated[str, "The name of that person."]
    text: str
    date: str


class Left(Person):
    """Somebody who has left, and why, if the connection ended."""

    reason: NotRequired[str]


class Entrance(TypedDict):
    """What somebody is shown who enters a room. The numbers of messages are unique in an epoch."""

    people: list[Person]
    messages: list[Message]
    epoch: str


@dataclass
class Room:
    """The history of a room."""

    number: int = 0
    epoch: str = field(
        default_factory=lambda: token_hex(8)
    )  # of the numbers, which start again when the server does
    messages: deque[Message] = field(default_factory=deque)
    keys: "OrderedDict[str, int]" = field(
        default_factory=OrderedDict
    )  # the number of each message, by its key

    def add(self, sender: Person, content: Content, key: str) -> Message | None:
        """Keeps a message under the next number, and returns it; ``None`` if its key was added before."""
        if key in self.keys:
            return None
        self.number += 1
        now = datetime.now(UTC).isoformat()
        message: Message = {"key": key, "number": self.number, "date": now, **sender, **content}
        self.messages.append(message)
        self.keys[key] = self.number
        if len(self.keys) > _KEYS:
            self.keys.popitem(last=False)
        while len(self.messages) > HISTORY or self._bytes() > MAX_ROOM_BYTES:
            self.messages.popleft()
        return message

    def after(self, number: int) -> list[Message]:
        """Returns the messages after the one with this number."""
        return [message for message in self.messages if message["number"] > number]

    def _bytes(self) -> int:
        return sum(len(message.get("image", b"")) for message in self.messages)


@dataclass
class Upload:
    """An image that arrives in pieces."""

    key: str
    type: ImageType
    size: int
    data: bytearray = field(default_factory=bytearray)


class Chat:
    """The rooms and their people."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._message = namespace.emits("message")(_message)
        self._rooms: OrderedDict[str, Room] = OrderedDict()

    def room(self, name: str) -> Room:
        """Returns the history of a room, new if there is none."""
        room = self._rooms.get(name) or Room()
        self._rooms[name] = room
        self._rooms.move_to_end(name)
        if len(self._rooms) > MAX_ROOMS:
            self._rooms.popitem(last=False)
        return room

    def people(self, name: str) -> list[Person]:
        return [person(socket) for socket in self._namespace.to(name).fetch_sockets()]

    def say(self, socket: Socket, key: str, content: Content) -> bool:
        """Adds a message to the socket's room and sends it to all, unless its key was added before."""
        name = socket.data["room"]
        added = self.room(name).add(person(socket), content, key)
        if added is not None:
            self._message.emit(self._namespace.to(name), added)
        return True


def person(socket: Socket) -> Person:
    return {"id": socket.id, "name": socket.data["name"]}


def _message(data: Message) -> None:
    """A message in the room."""


def _direct(data: Direct) -> None:
    """A message to this person only."""


def _joined(person: Person) -> None:
    """Somebody has entered the room."""


def _left(person: Left) -> None:
    """Somebody has left the room."""


def _typing(person: Person) -> None:
    """Somebody is typing."""


def add_chat(io: SocketIO) -> Chat:
    """Adds the namespace ``/chat``."""
    namespace = io.of("/chat")
    chat = Chat(namespace)
    direct_event = namespace.emits("direct")(_direct)
    joined_event = namespace.emits("joined")(_joined)
    left_event = namespace.emits("left")(_left)
    typing_event = namespace.emits("typing")(_typing)

    @namespace.on("connect")
    def connected(socket: Socket) -> None:
        if socket.recovered:  # it is back in its room, and is sent what it missed
            joined_event.emit(socket.to(socket.data["room"]), person(socket))

    @namespace.on("join")
    def join(socket: Socket, room: Name, name: Name, seen: int = 0, epoch: str = "") -> Entrance | None:
        """Enters a room under a name; answers with its people and the messages after number ``seen``."""
        room, name = room.strip(), name.strip()
        if not room or not name:
            return None
        leave(socket)
        socket.data.update(room=room, name=name)
        socket.join(room)
        joined_event.emit(socket.to(room), person(socket))
        history = chat.room(room)
        messages = history.after(seen if epoch == history.epoch else 0)
        return {"people": chat.people(room), "messages": messages, "epoch": history.epoch}

    @namespace.on("say")
    def say(socket: Socket, key: Key, text: Text) -> bool:
        """Sends a text to all in the room; True if it is sent, now or before."""
        text, key = text.strip(), key.strip()
        return bool(text and key and "room" in socket.data) and chat.say(socket, key, {"text": text})

    @namespace.on("image")
    def image(  # noqa: PLR0917 - the event's arguments
        socket: Socket,
        key: Key,
        type_: ImageType,
        size: Annotated[int, Bounds(ge=1, le=MAX_IMAGE), "Bytes of the whole image."],
        offset: Annotated[int, Bounds(ge=0), "Bytes before this piece."],
        piece: bytes,
    ) -> bool:
        """Takes a piece of an image, and sends the image after the last one; False if the upload failed."""
        key = key.strip()
        if "room" not in socket.data or not key:
            return False
        upload = socket.data.get("upload")
        if offset == 0:
            upload = socket.data["upload"] = Upload(key, type_, size)
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
    def direct(socket: Socket, to: Annotated[str, "The id of that person."], text: Text) -> bool:
        """Sends a text to one person only; False if that person is not in the room."""
        text = text.strip()
        other = namespace.sockets.get(to)
        if not text or other is None or other.data.get("room") != socket.data.get("room", ""):
            return False
        now = datetime.now(UTC).isoformat()
        direct_event.emit(other, {**person(socket), "to": other.data["name"], "text": text, "date": now})
        return True

    @namespace.on("typing")
    def typing(socket: Socket) -> None:
        """Tells the others in the room that this person is typing."""
        if "room" in socket.data:
            typing_event.emit(socket.to(socket.data["room"]).volatile, person(socket))

    def leave(socket: Socket) -> None:
        room = socket.data.get("room")
        if room is not None:
            socket.leave(room)
            left_event.emit(socket.to(room), {"id": socket.id, "name": socket.data["name"]})

    @namespace.on("disconnecting")
    def gone(socket: Socket, reason: str, _: set[str]) -> None:
        room = socket.data.get("room")
        socket.data.pop("upload", None)
        if room is not None:
            left_event.emit(namespace.to(room), {**person(socket), "reason": reason})

    return chat
