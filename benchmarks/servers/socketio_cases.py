"""A Socket.IO server for ``benchmarks/socketio.py``, which tells it on standard input what to do.

Prints its port, and a line of JSON for each command, which is a line of JSON too: ``[name, argument, …]``.
It uses nothing that another revision of this project may lack.
"""

import argparse
import asyncio
import gc
import json
import resource
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from rfc6455_server import Server
from rfc6455_server.socketio import Socket, SocketIO

try:
    from rfc6455_server.collector import rare_full_collections
except ImportError:  # an older revision
    from contextlib import nullcontext as rare_full_collections  # type: ignore[assignment]

TICK = 0.002
"""Seconds between two looks at how late the event loop is."""


class Stalls:
    """Measures the largest delay of the event loop, and the most CPU time that it used between two looks.

    On a busy machine, only the latter tells what the server did.
    """

    def __init__(self) -> None:
        self.largest = self.largest_cpu = 0.0
        self.skips = True
        """Whether the next look does not count."""
        self._cpu = 0.0
        self._loop = asyncio.get_running_loop()
        self._look(self._loop.time())

    def _look(self, due: float) -> None:
        now, cpu = self._loop.time(), time.thread_time()
        if not self.skips:
            self.largest = max(self.largest, now - due)
            self.largest_cpu = max(self.largest_cpu, cpu - self._cpu)
        self.skips = False
        self._cpu = cpu
        self._loop.call_at(now + TICK, self._look, now + TICK)


class Cases:
    """What the benchmark can make the server do."""

    def __init__(self, server: Server, io: SocketIO) -> None:
        self.server = server
        self.io = io
        self.stalls = Stalls()
        self.recovered = 0
        self.disconnected = 0
        self.handled = 0
        self.gate = asyncio.Event()
        self.gate.set()

        @io.on("connect")
        def connected(socket: Socket) -> None:
            if socket.recovered:
                self.recovered += 1
            else:
                socket.join("all")

        @io.on("disconnect")
        def gone(socket: Socket, reason: str) -> None:
            self.disconnected += 1

        @io.on("x")
        async def handle(socket: Socket, *args: Any) -> Any:
            self.handled += 1
            await self.gate.wait()
            return None

    def state(self) -> dict[str, float]:
        """Returns the counters and the memory."""
        self.stalls.skips = True  # collecting garbage takes a while
        gc.collect()
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "sockets": len(self.io.sockets),
            "recovered": self.recovered,
            "disconnected": self.disconnected,
            "handled": self.handled,
            "queued": self.server.queued,
            "stall": self.stalls.largest,
            "stall_cpu": self.stalls.largest_cpu,
            "cpu": usage.ru_utime + usage.ru_stime,
            "held": tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0,
            "peak": tracemalloc.get_traced_memory()[1] if tracemalloc.is_tracing() else 0,
        }

    def watch(self) -> None:
        """Measures stalls from now on."""
        self.stalls.largest = self.stalls.largest_cpu = 0.0
        self.stalls.skips = True

    def trace(self) -> None:
        """Counts memory from now on."""
        gc.collect()
        tracemalloc.start()

    def emit(self, room: str, count: int, size: int) -> None:
        """Emits events to a room in one tick, numbered from 1."""
        filler = "x" * size
        for number in range(1, count + 1):
            self.io.to(room).emit("news", number, filler)

    def emit_between(self, room: str, count: int, others: int) -> None:
        """Emits ``count`` events to a room, and ``others`` between them to a room without members."""
        for number in range(1, count + 1):
            for _ in range(others // count):
                self.io.to("elsewhere").emit("other", 0)
            self.io.to(room).emit("news", number, "")

    def emit_to_each(self, total: int, size: int) -> None:
        """Emits different events of that size to all sockets, until there are ``total`` bytes."""
        sockets = list(self.io.sockets.values())
        for number in range(total // size):
            if sockets:
                sockets[number % len(sockets)].emit("news", number, chr(97 + number % 26) * size)

    def hold(self) -> None:
        """Makes handlers wait."""
        self.gate.clear()

    def release(self) -> None:
        """Lets handlers end."""
        self.gate.set()

    def run(self, line: str) -> None:
        name, *arguments = json.loads(line)
        begin = time.monotonic()
        result = getattr(self, name)(*arguments)
        print(json.dumps(result or {"seconds": time.monotonic() - begin}), flush=True)


def read_commands(call: Callable[[str], object]) -> None:
    """Passes each line of standard input on."""
    for line in sys.stdin:
        call(line)


async def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-total-queue", type=int, default=1 << 28)
    parser.add_argument("--recovery", type=float)
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(65536, hard)), hard))
    server = Server(
        max_total_queue=args.max_total_queue,
        max_connections=60_000,
        max_connections_per_address=60_000,
        ping_interval=3600,
    )
    io = SocketIO(
        ping_interval=3600,
        recovery=args.recovery,
        recovery_bytes=1 << 28,
        max_payload=1_000_000,
        connect_timeout=60,
    )
    server.mount(io)
    await server.start()
    cases = Cases(server, io)
    loop = asyncio.get_running_loop()
    threading.Thread(
        target=read_commands, args=(lambda line: loop.call_soon_threadsafe(cases.run, line),), daemon=True
    ).start()
    print(server.port, flush=True)
    await asyncio.Event().wait()


with rare_full_collections():  # as in `Server.run`
    asyncio.run(main())
