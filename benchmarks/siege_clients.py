"""The clients of ``benchmarks/siege.py``: honest ones, and what the hostile ones do.

An honest client checks each answer, and raises `Disturbed` if it is wrong, late or missing. A hostile one
breaks a rule, asks for too much, or stops in the middle; it does not mind how the server ends it.
"""

import asyncio
import json
import random
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from rfc6455 import BinaryMessage, Connection, ConnectionClosed, Opcode, Role, State, TextMessage
from rfc6455.deflate import DeflateParameters
from rfc6455.frames import FIN, RSV1, encode_frame, encode_header

HONEST: Final = "127.0.0.1"
HOSTILE: Final = tuple(f"127.0.0.{number}" for number in range(2, 6))
"""The addresses that clients connect from: a limit by address keeps the hostile ones to themselves."""

PATIENCE: Final = 15.0
"""Seconds that an honest client waits for an answer."""

_KEY: Final = b"abcd"


class Disturbed(Exception):  # noqa: N818 - it reads as what it says
    """An honest client was not served as it should be."""


def opening(path: str, extensions: str = "") -> bytes:
    """Returns the request of an opening handshake."""
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: siege\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{offer}\r\n"
    ).encode()


class Peer:
    """A TCP connection, and what is sent and read on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = Connection(Role.CLIENT)

    async def write(self, *data: bytes) -> None:
        for part in data:
            self.writer.write(part)
        await self.writer.drain()

    async def upgrade(self, path: str, extensions: str = "") -> None:
        await self.write(opening(path, extensions))
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.partition(b"\r\n")[0])
        if b"permessage-deflate" in head:
            self.codec = Connection(Role.CLIENT, deflate=DeflateParameters())

    async def say(self, message: str) -> None:
        self.codec.send_text(message)
        await self.write(self.codec.data_to_send())

    async def hear(self) -> str:
        """Returns the next text; answers control frames. Raises `ConnectionError` at the end."""
        while True:
            event = self.codec.next_event()
            if isinstance(event, TextMessage):
                return str(event.data)
            if isinstance(event, ConnectionClosed):
                raise ConnectionError(f"closed: {event}")
            if event is None:
                await self.write(self.codec.data_to_send())
                data = await self.reader.read(1 << 16)
                if data:
                    self.codec.receive_data(data)
                else:
                    self.codec.receive_eof()
            elif isinstance(event, BinaryMessage):
                continue

    async def close(self) -> None:
        if self.codec.state is State.OPEN:
            self.codec.close(1000)
            await self.write(self.codec.data_to_send())
        with suppress(ConnectionError):
            while True:
                await self.hear()

    async def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Sends a request of HTTP; returns the body of a 200. Raises `ConnectionError` for another status."""
        await self.write(
            f"{method} {path} HTTP/1.1\r\nHost: siege\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body
        )
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = int(head.lower().partition("content-length:")[2].split()[0])
        answer = await self.reader.readexactly(length)
        if not head.startswith("HTTP/1.1 200"):
            raise ConnectionError(f"{head.splitlines()[0]} {answer!r}")
        return answer


@asynccontextmanager
async def tcp(port: int, address: str) -> AsyncIterator[Peer]:
    """Opens a connection from an address; resets it in the end, if it is still open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0), limit=1 << 20)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def patience(what: str) -> AsyncIterator[None]:
    """Raises `Disturbed` for what an honest client must not meet."""
    try:
        async with asyncio.timeout(PATIENCE):
            yield
    except TimeoutError:
        raise Disturbed(f"{what}: no answer within {PATIENCE:g} s") from None
    except (OSError, EOFError) as error:
        raise Disturbed(f"{what}: {error!r}") from None


# Honest clients: each serves itself for some seconds, and counts what went well.

Count = Callable[[str], None]

ECHOES: Final = ("/echo", "/called")
"""By a coroutine, and by a called handler."""

_TURNS: Final = 20
_PAUSE: Final = 0.2  # seconds between two messages


async def echo(port: int, count: Count) -> None:
    """Sends messages of different sizes, and gets each back."""
    async with patience("opening an echo"), tcp(port, HONEST) as peer:
        await peer.upgrade(random.choice(ECHOES), random.choice(["", "permessage-deflate"]))
        for turn in range(_TURNS):
            async with patience("echo"):
                message = f"{turn} " + "안녕" * random.choice([1, 100, 5_000])
                await peer.say(message)
                if await peer.hear() != message:
                    raise Disturbed("echo: another message came back")
            count("echo")
            await asyncio.sleep(_PAUSE)
        async with patience("closing"):
            await peer.close()


async def room(port: int, count: Count) -> None:
    """Two members of a room; each message of one reaches both, in order and once."""
    name = f"/rooms/{random.randrange(1 << 30)}"
    async with patience("opening two members"), tcp(port, HONEST) as first, tcp(port, HONEST) as second:
        for peer in (first, second):
            await peer.upgrade(name)
            await peer.say("here")
            while await peer.hear() != "here":
                pass
        async with patience("joining"):
            while await first.hear() != "here":
                pass
        for turn in range(_TURNS):
            async with patience("room"):
                await first.say(str(turn))
                for peer in (first, second):
                    if (heard := await peer.hear()) != str(turn):
                        raise Disturbed(f"room: {heard} instead of {turn}")
            count("room")
            await asyncio.sleep(_PAUSE)
        async with patience("leaving"):
            await first.close()
            await second.close()


_SOCKET_IO: Final = "/socket.io/?EIO=4&transport="


async def events(port: int, count: Count) -> None:
    """Emits over a WebSocket; gets the acknowledgement, and the event of its room."""
    name = f"room-{random.randrange(1 << 30)}"
    async with patience("opening Socket.IO"), tcp(port, HONEST) as peer:
        await peer.upgrade(_SOCKET_IO + "websocket")
        await peer.say("40")
        await peer.say(f'42["join","{name}"]')
        for turn in range(_TURNS):
            async with patience("events"):
                await peer.say(f'42{turn}["say","{name}",{turn}]')
                expected = {f'43{turn}["ok"]', f'["said",{turn}'}
                while expected:
                    heard = await peer.hear()
                    if heard == "2":
                        await peer.say("3")
                    expected -= {one for one in expected if heard == one or heard[2:].startswith(one)}
            count("events")
            await asyncio.sleep(_PAUSE)


async def polled_events(port: int, count: Count) -> None:
    """Does the same over polling, with a connection for GETs and another for POSTs."""
    name = f"room-{random.randrange(1 << 30)}"
    async with patience("opening polling"), tcp(port, HONEST) as gets, tcp(port, HONEST) as posts:
        path = _SOCKET_IO + "polling"
        sid = json.loads((await gets.request("GET", path))[1:])["sid"]
        path += f"&sid={sid}"
        await posts.request("POST", path, f'40\x1e42["join","{name}"]'.encode())
        for turn in range(_TURNS):
            async with patience("polling"):
                await posts.request("POST", path, f'42{turn}["say","{name}",{turn}]'.encode())
                expected = {f'43{turn}["ok"]', f'["said",{turn}'}
                while expected:
                    packets = (await gets.request("GET", path)).decode().split("\x1e")
                    for packet in packets:
                        if packet == "2":
                            await posts.request("POST", path, b"3")
                        expected -= {one for one in expected if packet == one or packet[2:].startswith(one)}
            count("polling")
            await asyncio.sleep(_PAUSE)
        async with patience("closing a session"):
            await posts.request("POST", path, b"41\x1e1")


async def page(port: int, count: Count) -> None:
    """Reads a page."""
    for _ in range(_TURNS):
        async with patience("page"), tcp(port, HONEST) as peer:
            if len(await peer.request("GET", "/")) < 10_000:
                raise Disturbed("page: too short")
        count("page")
        await asyncio.sleep(_PAUSE)


HONEST_CLIENTS: Final[tuple[Callable[[int, Count], Awaitable[None]], ...]] = (
    echo,
    room,
    events,
    polled_events,
    page,
)


# Hostile clients.

Hostile = Callable[[Peer, str], Awaitable[None]]
"""Does something on a new connection. The path of a WebSocket is given; nothing is upgraded yet."""

HOSTILE_CLIENTS: Final[dict[str, Hostile]] = {}


def hostile(client: Hostile) -> Hostile:
    HOSTILE_CLIENTS[client.__name__] = client
    return client


async def see_the_end(peer: Peer, seconds: float = 20.0) -> None:
    """Reads until the server ends the connection, at most some seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while await peer.reader.read(1 << 16):
                pass


@hostile
async def tiny_fragments(peer: Peer, path: str) -> None:
    """Sends fragments of one byte and of none, by the thousand, and never the last one."""
    await peer.upgrade(path)
    await peer.write(encode_frame(Opcode.TEXT, b"x", fin=False, mask_key=_KEY))
    for payload in (b"x", b""):
        await peer.write(encode_frame(Opcode.CONTINUATION, payload, fin=False, mask_key=_KEY) * 20_000)
    await see_the_end(peer, 5)


@hostile
async def unfinished_message(peer: Peer, path: str) -> None:
    """Sends a message but for its last byte, then a byte now and then."""
    await peer.upgrade(path)
    size = (256 << 10) - 1
    await peer.write(encode_header(FIN | Opcode.BINARY, size, _KEY), bytes(size - 100))
    for _ in range(10):
        await peer.write(b"x")
        await asyncio.sleep(1)


@hostile
async def does_not_read(peer: Peer, path: str) -> None:
    """Sends messages that come back, and reads nothing."""
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a reading transport as well
    await peer.write(opening(path))
    with suppress(TimeoutError):
        async with asyncio.timeout(10):
            while True:
                await peer.write(
                    encode_frame(Opcode.TEXT, b"x" * random.choice([0, 100, 60_000]), mask_key=_KEY)
                )


@hostile
async def deflate_bomb(peer: Peer, path: str) -> None:
    """Sends a message that inflates to a thousand times its size."""
    await peer.upgrade(path, "permessage-deflate")
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    await peer.write(encode_header(FIN | RSV1 | Opcode.BINARY, len(data), bytes(4)), data)
    await see_the_end(peer)


@hostile
async def endless_blocks(peer: Peer, path: str) -> None:
    """Sends a message of empty deflate blocks."""
    await peer.upgrade(path, "permessage-deflate")
    data = b"\x02\x08\x20\x80\x00" * 40_000
    await peer.write(encode_header(FIN | RSV1 | Opcode.BINARY, len(data), bytes(4)), data)
    await see_the_end(peer, 5)


@hostile
async def noise(peer: Peer, path: str) -> None:
    """Sends random bytes as frames."""
    await peer.upgrade(path)
    await peer.write(random.randbytes(random.randrange(1, 5_000)))
    await see_the_end(peer, 3)


@hostile
async def too_long(peer: Peer, path: str) -> None:
    """Announces the largest frame there is."""
    await peer.upgrade(path)
    await peer.write(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + _KEY, bytes(10_000))
    await see_the_end(peer)


@hostile
async def ping_flood(peer: Peer, path: str) -> None:
    """Sends Pings, and reads no Pong."""
    await peer.upgrade(path)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a reading transport as well
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while True:
                await peer.write(encode_frame(Opcode.PING, b"x" * 125, mask_key=_KEY) * 100)


@hostile
async def pong_flood(peer: Peer, path: str) -> None:
    """Sends Pongs that nobody asked for."""
    await peer.upgrade(path)
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while True:
                await peer.write(encode_frame(Opcode.PONG, b"", mask_key=_KEY) * 100)


@hostile
async def slow_head(peer: Peer, path: str) -> None:
    """Sends a request byte by byte."""
    for octet in f"GET {path} HTTP/1.1\r\nHost: siege\r\n".encode():
        await peer.write(bytes([octet]))
        await asyncio.sleep(0.2)


@hostile
async def large_head(peer: Peer, path: str) -> None:
    """Sends a request with more fields than a server takes."""
    fields = "".join(f"X-{random.randrange(1 << 40)}: {'x' * 100}\r\n" for _ in range(2_000))
    await peer.write(f"GET {path} HTTP/1.1\r\nHost: siege\r\n{fields}\r\n".encode())
    await see_the_end(peer)


@hostile
async def no_http(peer: Peer, path: str) -> None:
    """Sends a TLS hello, or anything."""
    await peer.write(random.choice([b"\x16\x03\x01\x02\x00\x01\x00", random.randbytes(500), b"\r\n" * 500]))
    await see_the_end(peer, 5)


@hostile
async def strange_paths(peer: Peer, path: str) -> None:
    """Asks for files outside, with line ends in the path, and for pages by the pipeline."""
    for target in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/%0d%0aX: y", "//etc", "/\\..\\", "*"):
        await peer.write(f"GET {target} HTTP/1.1\r\nHost: siege\r\n\r\n".encode())
    await peer.write(b"GET / HTTP/1.1\r\nHost: siege\r\n\r\n" * 200)
    await asyncio.sleep(2)


@hostile
async def many_rooms(peer: Peer, path: str) -> None:
    """Joins more rooms than it may."""
    await peer.upgrade(f"/rooms/{'x' * random.randrange(1, 2000)}")
    await peer.say("join")
    await see_the_end(peer, 5)


@hostile
async def half_close(peer: Peer, path: str) -> None:
    """Ends its half in the middle of a frame, and stays."""
    await peer.upgrade(path)
    await peer.write(encode_header(FIN | Opcode.BINARY, 10_000, _KEY), bytes(100))
    peer.writer.write_eof()
    await see_the_end(peer)


@hostile
async def no_answer_to_close(peer: Peer, path: str) -> None:
    """Violates a rule, and neither answers the Close nor closes TCP."""
    await peer.upgrade(path)
    await peer.write(encode_frame(Opcode.TEXT, b"not masked"))
    await asyncio.sleep(5)


@hostile
async def sessions(peer: Peer, path: str) -> None:
    """Opens polling sessions that it does not use."""
    for _ in range(100):
        await peer.request("GET", _SOCKET_IO + "polling")


@hostile
async def floods_by_polling(peer: Peer, path: str) -> None:
    """Posts events for itself, and never asks for them."""
    sid = json.loads((await peer.request("GET", _SOCKET_IO + "polling"))[1:])["sid"]
    path = f"{_SOCKET_IO}polling&sid={sid}"
    await peer.request("POST", path, b'40\x1e42["join","flood"]')
    for _ in range(200):
        await peer.request("POST", path, b'42["say","flood","' + b"x" * 200_000 + b'"]')


@hostile
async def many_small_events(peer: Peer, path: str) -> None:
    """Posts as many events as a body holds, all with acknowledgements."""
    sid = json.loads((await peer.request("GET", _SOCKET_IO + "polling"))[1:])["sid"]
    path = f"{_SOCKET_IO}polling&sid={sid}"
    await peer.request("POST", path, b"40")
    for _ in range(5):
        await peer.request("POST", path, b"\x1e".join([b'421["x"]'] * 20_000))


@hostile
async def attachments(peer: Peer, path: str) -> None:
    """Announces attachments that never come."""
    await peer.upgrade(_SOCKET_IO + "websocket")
    await peer.say("40")
    placeholders = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(100))
    await peer.say(f'45100-["say","x",[{placeholders}]]')
    for _ in range(50):
        await peer.write(encode_frame(Opcode.BINARY, bytes(100_000), mask_key=bytes(4)))
    await asyncio.sleep(5)


@hostile
async def no_acknowledgements(peer: Peer, path: str) -> None:
    """Makes the server wait for acknowledgements that never come."""
    await peer.upgrade(_SOCKET_IO + "websocket")
    await peer.say("40")
    for _ in range(500):
        await peer.say('42["ask"]')
    await see_the_end(peer, 8)


@hostile
async def strange_packets(peer: Peer, path: str) -> None:
    """Sends packets that are none, or of another type than announced."""
    packets = [
        "40",
        "42[]",
        '42["disconnect"]',
        "42{}",
        '44{"message":1}',
        "431[1]",
        "4999",
        "42" + "[" * 500,
        "9",
    ]
    await peer.upgrade(_SOCKET_IO + "websocket")
    await peer.say("40")
    await peer.say(random.choice(packets))
    await see_the_end(peer, 3)


@hostile
async def unfinished_post(peer: Peer, path: str) -> None:
    """Announces a body, and sends half of it."""
    sid = json.loads((await peer.request("GET", _SOCKET_IO + "polling"))[1:])["sid"]
    head = f"POST {_SOCKET_IO}polling&sid={sid} HTTP/1.1\r\nHost: siege\r\nContent-Length: 200000\r\n\r\n"
    await peer.write(head.encode(), bytes(100_000))
    await see_the_end(peer, 10)


@hostile
async def comes_back(peer: Peer, path: str) -> None:
    """Connects to Socket.IO, joins rooms and leaves without a word, and another one is kept each time."""
    await peer.upgrade(_SOCKET_IO + "websocket")
    await peer.say("40")
    for number in range(50):
        await peer.say(f'42["join","{number}"]')
    await peer.hear()
