"""asyncio alone, without the WebSocket protocol: the minimum that any server on asyncio does.

It answers the upgrade, takes the size of all frames from the first header, and then only counts bytes. For
each frame it sends one of the same size.
"""

import asyncio
import re

from rfc6455 import Opcode, accept_value, decode_header, encode_frame

members: dict["Counter", None] = {}


READ_BUFFER = memoryview(bytearray(1 << 18))
"""All connections read into this buffer, as in our server."""


class Counter(asyncio.BufferedProtocol):
    """Answers each frame with one of the same size, without parsing it. In the room, all members get it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # it is one
        self._transport = transport
        self._answer = b""
        self._frame_size = 0
        self._unanswered = 0

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Answers the frames that are complete with these bytes."""
        if not self._frame_size and not self._begin(bytes(READ_BUFFER[:nbytes])):
            return
        frames, self._unanswered = divmod(self._unanswered + nbytes, self._frame_size)
        if not frames:
            return
        answer = self._answer * frames
        if self in members:
            for member in members:
                member._transport.write(answer)
        else:
            self._transport.write(answer)

    def _begin(self, data: bytes) -> bool:
        """Answers the request, or reads the header of the first frame; returns whether it was the frame."""
        if data.startswith(b"GET "):
            key = re.search(rb"Sec-WebSocket-Key: (\S+)", data)
            assert key is not None
            accept = accept_value(key[1].decode())
            self._transport.write(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
            if b"GET /room " in data:
                members[self] = None
            return False
        header = decode_header(data, masked=True)
        assert header is not None
        self._frame_size = header.size + header.length
        self._answer = encode_frame(Opcode.TEXT, b"x" * header.length)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        members.pop(self, None)


async def main() -> None:
    """Serves until the process is stopped."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Counter, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
