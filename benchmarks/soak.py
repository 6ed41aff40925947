"""The soak test: idle connections, members that do not read, and connections that come and go.

Memory is the resident memory of the server. Rounds with stalled members alternate with rounds without any, so
that other load on the machine affects the latencies of both. The churn has as many connections as an hour at
ten per second, as fast as the server takes them.
"""

import json
import os
import random
import selectors
import socket
import ssl
import statistics
import struct
import subprocess
import tempfile
import time
from argparse import Namespace
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from rich.progress import Progress
from rich.table import Table

from benchmarks.common import (
    DEFLATE,
    OURS,
    Figure,
    ServerProcess,
    as_json,
    console,
    interleaved,
    options,
    servers,
    upgrade,
    write_results,
)
from benchmarks.load import TIME_LIMIT
from benchmarks.memory import PEERS, idle_memory, plain
from rfc6455 import (
    BinaryMessage,
    CloseCode,
    Connection,
    ConnectionClosed,
    Event,
    Opcode,
    Role,
    TextMessage,
    encode_frame,
)
from rfc6455.deflate import DeflateParameters
from rfc6455.frames import FIN, encode_header

MIB = 1 << 20


@dataclass(frozen=True)
class Finding:
    """A figure, its upper bound, and whether it is within the bound."""

    what: str
    figure: str
    bound: str
    met: bool


class Findings:
    """Collects the findings. ``figures`` is written as JSON."""

    def __init__(self) -> None:
        self.figures: dict[str, object] = {}
        self._findings: list[Finding] = []

    def check(self, what: str, figure: float, bound: float, unit: str) -> None:
        """Adds a figure that must be at most ``bound``."""
        self._findings.append(
            Finding(what, f"{figure:,.4g} {unit}", f"≤ {bound:,.4g} {unit}", met=figure <= bound)
        )

    def fail(self, what: str, why: str) -> None:
        """Adds a part that could not be measured."""
        self._findings.append(Finding(what, why, "", met=False))

    def finish(self, *, quick: bool) -> None:
        """Prints the verdicts and writes the file."""
        table = _table("targets of the soak test", "what", "figure", "target", "verdict")
        for found in self._findings:
            verdict = "[green]PASS[/]" if found.met else "[red]FAIL[/]"
            table.add_row(found.what, found.figure, found.bound, verdict)
        console.print(table)
        self.figures["targets"] = [asdict(found) for found in self._findings]
        write_results("soak", self.figures, quick=quick)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


# Idle connections.

IDLE_TARGETS = {"plain": 8.0, "permessage-deflate": 9.0}  # KiB
COMPRESSING = [OURS, "websockets", "aiohttp", "Node ws"]


def _compressed(port: int) -> socket.socket:
    """Opens a connection with permessage-deflate, without any message."""
    return upgrade(port, "/echo", DEFLATE)


def _used(port: int, size: int = 200) -> socket.socket:
    """Opens a connection, and gets an echo and a Pong on it."""
    connection = plain(port)
    for opcode, payload in ((Opcode.TEXT, b"x" * size), (Opcode.PING, b"x" * 4)):
        connection.sendall(encode_frame(opcode, payload, mask_key=b"abcd"))
        connection.recv(len(encode_frame(opcode, payload)), socket.MSG_WAITALL)
    return connection


def soak_idle(args: Namespace, findings: Findings) -> None:
    """Measures KiB per idle connection: without extensions, with permessage-deflate, and over TLS."""
    count, rounds = (1000, 1) if args.quick else (5000, 3)
    cases: list[tuple[str, list[str], Callable[[int], socket.socket], list[str]]] = [
        ("plain", PEERS, plain, []),
        ("permessage-deflate", COMPRESSING, _compressed, ["--compression"]),
        ("plain, after a message and a Ping", [OURS], _used, []),
    ]
    table = _table(f"{count} idle connections: KiB per connection", "case", *PEERS)
    found: dict[str, dict[str, Figure]] = {}
    for case, peers, connect, arguments in cases:

        def measure(
            name: str,
            connect: Callable[[int], socket.socket] = connect,
            arguments: list[str] = arguments,
        ) -> float:
            with servers([name], [name], *arguments) as running:
                return idle_memory(running[name], count, connect)

        names = [name for name in peers if name == OURS or not args.only or name in args.only]
        row = found[case] = interleaved(names, rounds, measure, f"idle connections, {case}")
        table.add_row(case, *(str(row[peer]) if peer in row else "–" for peer in PEERS))
    console.print(table)
    for case, target in IDLE_TARGETS.items():
        findings.check(f"an idle connection, {case}", found[case][OURS].median, target, "KiB")
    tls = _tls_memory(100 if args.quick else 500, rounds)
    findings.check(
        "an idle TLS connection, compared with half of one with asyncio's buffers",
        tls["ours"].median,
        tls["asyncio"].median / 2,
        "KiB",
    )
    findings.figures["idle"] = {
        "unit": "KiB per connection",
        "connections": count,
        "cases": {case: as_json(figures) for case, figures in found.items()},
        "TLS": as_json(tls),
    }


def _tls_memory(count: int, rounds: int) -> dict[str, Figure]:
    """Measures KiB per idle TLS connection: with our TLS buffers, and with asyncio's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def connect(port: int) -> socket.socket:
        return upgrade(port, "/echo", context=context)

    arguments = {"ours": [], "asyncio": ["--whole-tls-buffers"]}
    with tempfile.TemporaryDirectory() as directory:
        certificate = _certificate(Path(directory))

        def measure(case: str) -> float:
            with servers([OURS], None, "--tls", str(certificate), *arguments[case]) as running:
                return idle_memory(running[OURS], count, connect)

        found = interleaved(list(arguments), rounds, measure, "idle TLS connections")
    table = _table(f"{count} idle TLS connections: KiB per connection", "our buffers", "asyncio's buffers")
    table.add_row(*(str(found[case]) for case in arguments))
    console.print(table)
    return found


def _certificate(directory: Path) -> Path:
    """Makes a self-signed certificate; returns a file with it and its key."""
    key, certificate, both = (directory / name for name in ("key.pem", "certificate.pem", "both.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    both.write_text(certificate.read_text() + key.read_text())
    return both


# A room with members that do not read.

STALLED = 20
HEALTHY = 80
SIZE = 10_000
RATE = 100.0  # broadcasts a second
MAX_QUEUE = MIB
RECEIVE_BUFFER = 1 << 14  # of a stalled member: little is buffered outside the server

BASELINE = "none stalled"
CASES = {
    BASELINE: ("disconnect", 0),
    f"{STALLED} stalled, disconnect": ("disconnect", STALLED),
    f"{STALLED} stalled, drop_oldest": ("drop_oldest", STALLED),
}
LATENCIES = ("p50", "p99", "slowest member's p50", "slowest member's p99")


@dataclass(frozen=True)
class Round:
    """Latencies of the healthy members in ms, from broadcast to receipt; growth of memory in bytes."""

    latencies: dict[str, float]
    at_end: int
    at_peak: int
    queued: int
    dropped: int
    closes: dict[str, int]


def soak_broadcasts(args: Namespace, findings: Findings) -> None:
    """Broadcasts to members, some of which do not read: measures memory, and the latency of the others."""
    rounds, broadcasts = (2, 250) if args.quick else (4, 1000)
    found: dict[str, list[Round]] = {case: [] for case in CASES}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("broadcasts", total=rounds * len(CASES))
        for _ in range(rounds):
            for case, (policy, stalled) in CASES.items():
                found[case].append(_broadcast(policy, stalled, broadcasts))
                progress.advance(task)
    _check_memory(found, broadcasts, findings)
    _check_latencies(found, findings)
    findings.figures["broadcasts"] = {
        "broadcasts": broadcasts,
        "bytes": SIZE,
        "healthy": HEALTHY,
        "max_queue": MAX_QUEUE,
        "rounds": {case: [asdict(found_in) for found_in in rounds] for case, rounds in found.items()},
    }


def _broadcast(policy: str, stalled: int, broadcasts: int) -> Round:
    arguments = ["--max-queue", str(MAX_QUEUE), "--slow-consumer", policy]
    with servers([OURS], None, *arguments) as running:
        server = running[OURS]
        # Stalled members join first, so each broadcast is queued for them before it is queued for the others.
        idle = [upgrade(server.port, "/room") for _ in range(stalled)]
        for connection in idle:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        members = [upgrade(server.port, "/room") for _ in range(HEALTHY)]
        speaker = upgrade(server.port, "/soak/speaker")
        warm = _used(server.port, SIZE)  # allocates what the first large message needs
        time.sleep(0.3)  # until all have joined
        before = server.memory()
        latencies = _speak(speaker, members, broadcasts)
        after, peak = server.memory(), server.peak_memory()
        state = _state(server)
        for connection in (*idle, *members, speaker, warm):
            connection.close()
    return Round(
        _summary(latencies), after - before, peak - before, state["queued"], state["dropped"], state["closes"]
    )


def _speak(speaker: socket.socket, members: list[socket.socket], broadcasts: int) -> list[list[float]]:
    """Returns seconds from broadcast to receipt, by member. Client and server read the same clock."""
    frame = encode_frame(Opcode.TEXT, b"x" * SIZE, mask_key=b"abcd")
    delivery = len(encode_frame(Opcode.TEXT, b"x" * SIZE))
    receipts: dict[socket.socket, list[float]] = {member: [] for member in members}
    received = dict.fromkeys(members, 0)
    missing = broadcasts * len(members)
    stamped = bytearray()
    stamp_size = len(f"{0:020.9f}") + 2
    sent = 0
    buffer = bytearray(1 << 18)
    selector = selectors.DefaultSelector()
    for connection in (speaker, *members):
        selector.register(connection, selectors.EVENT_READ, connection)
    begin = time.monotonic()
    while missing or len(stamped) < broadcasts * stamp_size:
        now = time.monotonic()
        if sent < broadcasts and now >= begin + sent / RATE:
            speaker.sendall(frame)
            sent += 1
        due = begin + sent / RATE - now if sent < broadcasts else 1.0
        for key, _ in selector.select(max(0.0, due)):
            connection = key.data
            size = connection.recv_into(buffer)
            now = time.monotonic()
            if not size:
                raise ConnectionError("the server closed")
            if connection is speaker:
                stamped += buffer[:size]
                continue
            received[connection] += size
            times = receipts[connection]
            while len(times) < received[connection] // delivery:
                times.append(now)
                missing -= 1
        if now > begin + broadcasts / RATE + TIME_LIMIT:
            raise TimeoutError("the server did not deliver")
    selector.close()
    stamps = [float(stamped[at + 2 : at + stamp_size]) for at in range(0, len(stamped), stamp_size)]
    return [[end - stamp for stamp, end in zip(stamps, times, strict=True)] for times in receipts.values()]


def _summary(latencies: list[list[float]]) -> dict[str, float]:
    everything = [seconds for times in latencies for seconds in times]
    figures = (
        _percentile(everything, 50),
        _percentile(everything, 99),
        max(_percentile(times, 50) for times in latencies),
        max(_percentile(times, 99) for times in latencies),
    )
    return {name: seconds * 1000 for name, seconds in zip(LATENCIES, figures, strict=True)}


def _percentile(values: Iterable[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[(len(ordered) - 1) * percent // 100]


def _check_memory(found: dict[str, list[Round]], broadcasts: int, findings: Findings) -> None:
    table = _table(
        f"growth of memory after {broadcasts} broadcasts of {SIZE:,} B, with {HEALTHY} healthy members",
        *("case", "at the end, MiB", "at peak, MiB", "queued at the end, MiB", "dropped", "disconnected"),
    )
    for case, (_, stalled) in CASES.items():
        rounds = found[case]
        end, peak, queued = (
            max(getattr(one, name) for one in rounds) / MIB for name in ("at_end", "at_peak", "queued")
        )
        ended = sum(count for cause, count in rounds[-1].closes.items() if cause.startswith("slow consumer"))
        table.add_row(
            case, f"{end:.1f}", f"{peak:.1f}", f"{queued:.1f}", f"{rounds[-1].dropped:,}", str(ended)
        )
        if stalled:
            bound = stalled * MAX_QUEUE / MIB
            findings.check(f"growth at the end, {case}", end, bound, "MiB")
            findings.check(f"growth at peak, {case}", peak, bound, "MiB")
    console.print(table)


def _check_latencies(found: dict[str, list[Round]], findings: Findings) -> None:
    """Checks that stalled members add no more latency than the rounds without any differ by."""
    table = _table(
        f"from broadcast to receipt by healthy members, ms: median of {len(found[BASELINE])} rounds",
        *("case", *LATENCIES),
    )
    noise = {}
    cells = []
    without = {}
    for name in LATENCIES:
        samples = [one.latencies[name] for one in found[BASELINE]]
        without[name], noise[name] = statistics.median(samples), max(samples) - min(samples)
        cells.append(f"{without[name]:.2f} (noise {noise[name]:.2f})")
    table.add_row(BASELINE, *cells)
    for case in CASES:
        if case == BASELINE:
            continue
        cells = []
        for name in LATENCIES:
            value = statistics.median(one.latencies[name] for one in found[case])
            cells.append(f"{value:.2f} (× {value / without[name]:.2f})")
            later = max(0.0, value - without[name])
            findings.check(f"added latency: {name}, {case}", later, noise[name], "ms")
        table.add_row(case, *cells)
    console.print(table)
    console.print(
        f"noise: difference of the fastest and the slowest round with {BASELINE}; ×: ratio to their median",
        style="dim",
    )


# Churn.

OPEN = 200  # at a time
ROOMS = 20
ROUTE = "/soak/rooms/{}"
PING_INTERVAL = 0.5
PING_TIMEOUT = 3.0  # longer than a visitor stays that does not answer Pings
SETTLE_TIME = PING_TIMEOUT + 5.0  # until the last timers of ended connections have run
ANSWER_TIME = 15.0  # seconds that a visitor waits for the server
SAMPLE_INTERVAL = 0.25
FLAT = 0.05  # growth relative to the first third: malloc keeps the memory of a rare peak
SLOPE = 512.0  # bytes per connection: as if one of the 16 ways to end leaked the 8 KiB of a connection
OBJECTS = 0.05  # per connection; one of the 16 ways to end leaks 0.06 or more, if it leaks
EXPECTED = "RuntimeError: requested by a visitor"  # in the log


class Visitor:
    """A connection of the churn: joins a room, sends messages, and ends in one of many ways."""

    def __init__(self, port: int, path: str, *, deflate: bool = False) -> None:
        self.socket = upgrade(port, path, DEFLATE if deflate else "")
        self._codec = Connection(Role.CLIENT, deflate=DeflateParameters() if deflate else None)

    def talk(self, text: str) -> None:
        """Sends a message to the room and waits until it comes back."""
        self.say(text)
        while (heard := self.hear()) != TextMessage(text):
            if isinstance(heard, ConnectionClosed):
                raise ConnectionResetError(f"the server closed: {heard}")

    def say(self, text: str) -> None:
        self._codec.send_text(text)
        self._write()

    def hear(self) -> Event:
        """Returns the next message or the end of the connection; answers control frames."""
        while True:
            event = self._codec.next_event()
            if isinstance(event, TextMessage | BinaryMessage | ConnectionClosed):
                return event
            if event is None:
                self._write()
                data = self.socket.recv(1 << 16)
                if data:
                    self._codec.receive_data(data)
                else:
                    self._codec.receive_eof()

    def vanish(self) -> None:
        """Resets the TCP connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # The ways to end.

    def close(self) -> None:
        """Performs the closing handshake."""
        self._codec.close(CloseCode.NORMAL_CLOSURE)
        self._see_the_end()

    def go_away(self) -> None:
        """Sends a message, then closes with 1001, as a browser does that leaves a page."""
        self._codec.send_text("bye")
        self._codec.close(CloseCode.GOING_AWAY, "bye")
        self._see_the_end()

    def hang_up(self) -> None:
        """Closes TCP without a Close frame."""
        self.socket.close()

    def break_off(self) -> None:
        """Resets TCP in the middle of a frame."""
        self.socket.sendall(encode_frame(Opcode.BINARY, os.urandom(20_000), mask_key=b"abcd")[:12_345])
        self.vanish()

    def hang_up_inside(self) -> None:
        """Closes TCP between two fragments of a message."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"one, " * 1000, fin=False, mask_key=b"abcd"))
        self.socket.close()

    def break_rules(self) -> None:
        """Sends an unmasked frame: 1002."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"hello"))
        self._see_the_end()

    def send_bad_text(self) -> None:
        """Sends invalid UTF-8: 1007."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"\xff", mask_key=b"abcd"))
        self._see_the_end()

    def send_too_much(self) -> None:
        """Sends the header of a frame over the size limit: 1009."""
        self.socket.sendall(encode_header(FIN | Opcode.BINARY, 1 << 25, b"abcd") + b"and so on")
        self._see_the_end()

    def ask_to_leave(self) -> None:
        """Makes its handler return."""
        self.say("leave")
        self._see_the_end()

    def ask_to_fail(self) -> None:
        """Makes its handler raise: 1011."""
        self.say("fail")
        self._see_the_end()

    def ask_to_cancel(self) -> None:
        """Makes its handler raise CancelledError."""
        self.say("cancel")
        self._see_the_end()

    def stall(self) -> None:
        """Does not read while the handler posts more than the queue holds: a slow consumer."""
        self._do_not_read("post")

    def stall_a_sender(self) -> None:
        """Does not read while the handler sends and waits."""
        self._do_not_read("send")

    def leave_a_stream(self) -> None:
        """Reads some of an endless stream of messages, then resets TCP."""
        self.say("send")
        for _ in range(20):
            self.hear()
        self.vanish()

    def fall_silent(self) -> None:
        """Stops answering Pings. `Churn` closes the socket later."""

    def _do_not_read(self, how: str) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.say(how)
        time.sleep(0.005)  # for the server to send
        self.vanish()

    def _write(self) -> None:
        self.socket.sendall(self._codec.data_to_send())

    def _see_the_end(self) -> None:
        try:
            while not isinstance(self.hear(), ConnectionClosed):
                pass
        except ConnectionError:
            pass  # one side closed TCP while the other was still sending
        self.socket.close()


WAYS = [
    Visitor.close,
    Visitor.go_away,
    Visitor.vanish,
    Visitor.hang_up,
    Visitor.break_off,
    Visitor.hang_up_inside,
    Visitor.break_rules,
    Visitor.send_bad_text,
    Visitor.send_too_much,
    Visitor.ask_to_leave,
    Visitor.ask_to_fail,
    Visitor.ask_to_cancel,
    Visitor.stall,
    Visitor.stall_a_sender,
    Visitor.leave_a_stream,
    Visitor.fall_silent,
]

OPENINGS = [
    b"",
    b"GET /soak/rooms/0 HTTP/1.1\r\nHost: exam",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"GET /soak/rooms/0 HTTP/1.1\r\nHost: example.com\r\n\r\n",
    b"GET /nowhere HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
]
"""What clients send instead of an opening handshake."""


class Sample(NamedTuple):
    """The server's memory in bytes after a number of connections."""

    connections: int
    memory: int


class Churn:
    """Keeps a constant number of visitors on a server. Calls ``advance`` for each that has ended."""

    def __init__(self, server: ServerProcess, advance: Callable[[], None]) -> None:
        self.done = 0
        self._server = server
        self._advance = advance
        self._random = random.Random(0)
        self._visitors: deque[Visitor] = deque()
        self._silent: deque[tuple[float, Visitor]] = deque()
        self._ways: list[Callable[[Visitor], None]] = []

    def run(self, count: int) -> list[Sample]:
        """Opens and ends at least ``count`` visitors; samples the memory while `OPEN` are connected."""
        samples = []
        sampled = 0.0
        self.done = 0
        for _ in range(OPEN):
            self._open()
        while self.done < count:
            self._open()
            self._end(self._visitors.popleft())
            if self.done % 10 == 0:
                self._open_badly()
            if time.monotonic() > sampled + SAMPLE_INTERVAL:
                sampled = time.monotonic()
                samples.append(Sample(self.done, self._server.memory()))
                self._forget_the_silent(sampled - PING_TIMEOUT - 2 * PING_INTERVAL)
        while self._visitors:
            self._end(self._visitors.popleft())
        self._forget_the_silent(float("inf"))
        return samples

    def _forget_the_silent(self, since: float) -> None:
        while self._silent and self._silent[0][0] < since:
            self._silent.popleft()[1].socket.close()

    def _open(self) -> None:
        path = ROUTE.format(self._random.randrange(ROOMS))
        visitor = Visitor(self._server.port, path, deflate=self._random.random() < 0.5)
        for size in (40, 200, 2000):
            visitor.talk(f"{self.done} {self._random.random()} ".ljust(size, "."))
        self._visitors.append(visitor)

    def _end(self, visitor: Visitor) -> None:
        if not self._ways:
            self._ways = self._random.sample(WAYS, len(WAYS))
        way = self._ways.pop()
        try:
            way(visitor)
        except ConnectionError:
            visitor.socket.close()  # the server closed first: a waiting visitor does not answer Pings
        if way is Visitor.fall_silent:
            self._silent.append((time.monotonic(), visitor))
        self.done += 1
        self._advance()

    def _open_badly(self) -> None:
        with socket.create_connection(("127.0.0.1", self._server.port)) as connection:
            connection.sendall(self._random.choice(OPENINGS))
            if self._random.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def soak_churn(args: Namespace, findings: Findings) -> None:
    """Opens and ends many connections: checks memory, leaked objects and the log."""
    count = 2400 if args.quick else 36_000
    arguments = ["--compression", "--ping-interval", str(PING_INTERVAL), "--ping-timeout", str(PING_TIMEOUT)]
    socket.setdefaulttimeout(ANSWER_TIME)
    with (
        tempfile.TemporaryFile("w+") as errors,
        servers([OURS], None, *arguments, errors=errors) as running,
        Progress(console=console, transient=True) as progress,
    ):
        server = running[OURS]
        task = progress.add_task("churn", total=count)
        churn = Churn(server, lambda: progress.advance(task))
        try:
            churn.run(count // 5)  # warm-up
            before = _settle(server)
            samples = churn.run(count - count // 5)
            after = _settle(server)
        except TimeoutError:
            findings.fail("churn", f"no answer in {ANSWER_TIME:g} s after {churn.done:,} connections")
            return
        finally:
            socket.setdefaulttimeout(None)
        unexpected = _unexpected_lines(errors)
    _check_churn(samples, before, after, unexpected, findings, long_enough=not args.quick)


def _settle(server: ServerProcess) -> dict[str, Any]:
    """Waits until the timers of ended connections have run; returns the server's state."""
    time.sleep(SETTLE_TIME)  # the timers run by the server's clock, and nothing tells when the last has
    return _state(server)


def _state(server: ServerProcess) -> dict[str, Any]:
    """Returns what /soak/state reports."""
    visitor = Visitor(server.port, "/soak/state")
    visitor.say("?")
    heard = visitor.hear()
    visitor.close()
    assert isinstance(heard, TextMessage)
    state: dict[str, Any] = json.loads(heard.data)
    return state


def _unexpected_lines(errors: IO[str]) -> Counter[str]:
    """Counts the lines of the server's log, without tracebacks and what the visitors caused on purpose."""
    errors.seek(0)
    return Counter(
        line.rstrip()
        for line in errors
        if not line.startswith((" ", "\n", "Traceback", "During", "handle:", "a handler failed", EXPECTED))
    )


def _check_churn(
    samples: list[Sample],
    before: dict[str, Any],
    after: dict[str, Any],
    unexpected: Counter[str],
    findings: Findings,
    *,
    long_enough: bool,
) -> None:
    third = len(samples) // 3
    first, last = (
        statistics.median(size for _, size in part) / MIB for part in (samples[:third], samples[-third:])
    )
    slope = statistics.linear_regression(*zip(*samples, strict=True)).slope
    count = samples[-1][0]
    kinds = Counter(after["objects"])
    kinds.subtract(before["objects"])
    objects, blocks = kinds.total() / count, (after["blocks"] - before["blocks"]) / count

    closes = Counter(after["closes"])
    closes.subtract(before["closes"])
    ends = _table(f"{count:,} connections, {OPEN} at a time, by how they ended", "cause", "count")
    for cause, number in closes.most_common():
        ends.add_row(cause, f"{number:,}")
    console.print(ends)
    table = _table(
        "the server's memory",
        *("first third, MiB", "last third, MiB", "slope, B per connection"),
        *("leaked objects per connection", "leaked blocks per connection"),
    )
    table.add_row(f"{first:.2f}", f"{last:.2f}", f"{slope:+.1f}", f"{objects:+.4f}", f"{blocks:+.4f}")
    console.print(table)
    if objects > OBJECTS:
        most = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(20))
        console.print(f"leaked: {most}", style="red")
    for line, number in unexpected.most_common(10):
        console.print(f"log, {number} times: {line}", style="red", markup=False)

    if long_enough:  # the heap grows during the first thousands of connections
        growth = max(0.0, last - first)
        findings.check("churn: growth from the first third to the last", growth, FLAT * first, "MiB")
        findings.check("churn: slope", max(0.0, slope), SLOPE, "B per connection")
    findings.check("churn: leaked objects per connection", max(0.0, objects), OBJECTS, "")
    findings.check("churn: unexpected lines in the log", unexpected.total(), 0, "lines")
    findings.figures["churn"] = {
        "connections": count,
        "open": OPEN,
        "first third, MiB": first,
        "last third, MiB": last,
        "slope, B per connection": slope,
        "leaked per connection": {"objects": objects, "blocks": blocks},
        "closes": closes,
        "unexpected": unexpected,
        "samples": samples[:: max(1, len(samples) // 100)],
    }


def main() -> None:
    """Runs all parts and prints the verdicts."""
    args = options(__doc__)
    findings = Findings()
    soak_idle(args, findings)
    soak_broadcasts(args, findings)
    soak_churn(args, findings)
    findings.finish(quick=args.quick)


if __name__ == "__main__":
    main()
