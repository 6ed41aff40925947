"""A TCP relay between a client and a server of a test, which cuts connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rfc6455_server.testing import settle


class Relay:
    """A TCP relay in front of a server. It stands for the network, which the test cuts and restores."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.open = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        try:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for pair in self._pairs:
                for writer in pair:
                    writer.transport.abort()
            await settle()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._pairs.append((writer, back))
        for source, sink in ((reader, back), (there, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()
        except OSError:
            sink.transport.abort()

    def cut(self, *, server_notices: bool) -> None:
        """Resets the clients' connections; those to the server stay open unless `server_notices`."""
        for writer, back in self._pairs:
            if not server_notices:
                for task in self._tasks:
                    task.cancel()
            else:
                back.transport.abort()
            writer.transport.abort()
