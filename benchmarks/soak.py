"""The soak: what idle connections, members that do not read, and an hour of churn do to the server.

Memory is the server's resident memory. Latencies are held against rounds without stalled members, which are
run in between: the machine is the same, and so is whatever else it does. The churn is that of an hour at ten
connections a second, as fast as it goes.
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
    """A figure, the bound that it is to keep, and whether it does."""

    what: str
    figure: str
    bound: str
    met: bool


class Findings:
    """What was found; ``figures`` are written as JSON."""

    def __init__(self) -> None:
        self.figures: dict[str, object] = {}
        self._findings: list[Finding] = []

    def hold(self, what: str, figure: float, bound: float, unit: str) -> None:
        """A figure that is to be ``bound`` at most."""
        self._findings.append(
            Finding(what, f"{figure:,.4g} {unit}", f"≤ {bound:,.4g} {unit}", met=figure <= bound)
        )

    def miss(self, what: str, why: str) -> None:
        """Something that went wrong altogether."""
        self._findings.append(Finding(what, why, "", met=False))

    def finish(self, *, quick: bool) -> None:
        """Prints the verdicts, and writes the file."""
        table = _table("the soak's targets", "what", "figure", "to reach", "verdict")
        for found in self._findings:
            verdict = "[green]PASS[/]" if found.met else "[red]short[/]"
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
    """A connection that has agreed on permessage-deflate and says nothing."""
    return upgrade(port, "/echo", DEFLATE)


def _spoken(port: int, size: int = 200) -> socket.socket:
    """A connection on which a message and a Ping were answered."""
    connection = plain(port)
    for opcode, payload in ((Opcode.TEXT, b"x" * size), (Opcode.PING, b"x" * 4)):
        connection.sendall(encode_frame(opcode, payload, mask_key=b"abcd"))
        connection.recv(len(encode_frame(opcode, payload)), socket.MSG_WAITALL)
    return connection


def soak_idle(asked: Namespace, findings: Findings) -> None:
    """KiB that an idle connection costs: plain, with permessage-deflate agreed on, and over TLS."""
    count, rounds = (1000, 1) if asked.quick else (5000, 3)
    cases: list[tuple[str, list[str], Callable[[int], socket.socket], list[str]]] = [
        ("plain", PEERS, plain, []),
        ("permessage-deflate", COMPRESSING, _compressed, ["--compression"]),
        ("plain, after a message and a Ping", [OURS], _spoken, []),
    ]
    table = _table(f"{count} idle connections: KiB each", "case", *PEERS)
    found: dict[str, dict[str, Figure]] = {}
    for case, peers, connect, arguments in cases:

        def measure(
            name: str,
            connect: Callable[[int], socket.socket] = connect,
            arguments: list[str] = arguments,
        ) -> float:
            with servers([name], [name], *arguments) as running:
                return idle_memory(running[name], count, connect)

        names = [name for name in peers if name == OURS or not asked.only or name in asked.only]
        row = found[case] = interleaved(names, rounds, measure, f"idle connections, {case}")
        table.add_row(case, *(str(row[peer]) if peer in row else "–" for peer in PEERS))
    console.print(table)
    for case, target in IDLE_TARGETS.items():
        findings.hold(f"an idle connection, {case}", found[case][OURS].median, target, "KiB")
    tls = _tls_memory(100 if asked.quick else 500, rounds)
    findings.hold(
        "a TLS connection's share of asyncio's 256 KiB of buffer",
        tls["ours"].median,
        tls["asyncio"].median / 2,
        "KiB",
    )
    findings.figures["idle"] = {
        "unit": "KiB a connection",
        "connections": count,
        "cases": {case: as_json(figures) for case, figures in found.items()},
        "TLS": as_json(tls),
    }


def _tls_memory(count: int, rounds: int) -> dict[str, Figure]:
    """KiB for an idle TLS connection: as ours makes it, and with the buffers that asyncio makes."""
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
    table = _table(f"{count} idle TLS connections: KiB each", "ours", "with the buffers that asyncio makes")
    table.add_row(*(str(found[case]) for case in arguments))
    console.print(table)
    return found


def _certificate(directory: Path) -> Path:
    """A certificate of our own, with its key."""
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
RECEIVE_BUFFER = 1 << 14  # of a stalled member: what the operating system hides of it is little

BASELINE = "nobody stalled"
CASES = {
    BASELINE: ("disconnect", 0),
    f"{STALLED} stalled, disconnect": ("disconnect", STALLED),
    f"{STALLED} stalled, drop_oldest": ("drop_oldest", STALLED),
}
LATENCIES = ("p50", "p99", "slowest member's p50", "slowest member's p99")


@dataclass(frozen=True)
class Round:
    """Milliseconds from broadcast to receipt at the healthy members; bytes that the server grew by."""

    latencies: dict[str, float]
    at_end: int
    at_peak: int
    queued: int
    dropped: int
    closes: dict[str, int]


def soak_broadcasts(asked: Namespace, findings: Findings) -> None:
    """Broadcasts to members of whom some do not read: memory, and whether the others notice."""
    rounds, broadcasts = (2, 250) if asked.quick else (4, 1000)
    found: dict[str, list[Round]] = {case: [] for case in CASES}
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("broadcasts", total=rounds * len(CASES))
        for _ in range(rounds):
            for case, (policy, stalled) in CASES.items():
                found[case].append(_broadcast(policy, stalled, broadcasts))
                progress.advance(task)
    _hold_memory(found, broadcasts, findings)
    _hold_latencies(found, findings)
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
        # Those who stall come first: whatever the server does for them, the others wait for.
        idle = [upgrade(server.port, "/room") for _ in range(stalled)]
        for connection in idle:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        members = [upgrade(server.port, "/room") for _ in range(HEALTHY)]
        speaker = upgrade(server.port, "/soak/speaker")
        warm = _spoken(server.port, SIZE)  # the first large message imports numpy
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
    """Seconds from broadcast to receipt, by member. Both clocks are the machine's."""
    frame = encode_frame(Opcode.TEXT, b"x" * SIZE, mask_key=b"abcd")
    delivery = len(encode_frame(Opcode.TEXT, b"x" * SIZE))
    receipts: dict[socket.socket, list[float]] = {member: [] for member in members}
    received = dict.fromkeys(members, 0)
    missing = broadcasts * len(members)
    told = bytearray()
    stamp_size = len(f"{0:020.9f}") + 2
    sent = 0
    buffer = bytearray(1 << 18)
    selector = selectors.DefaultSelector()
    for connection in (speaker, *members):
        selector.register(connection, selectors.EVENT_READ, connection)
    begin = time.monotonic()
    while missing or len(told) < broadcasts * stamp_size:
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
                told += buffer[:size]
                continue
            received[connection] += size
            times = receipts[connection]
            while len(times) < received[connection] // delivery:
                times.append(now)
                missing -= 1
        if now > begin + broadcasts / RATE + TIME_LIMIT:
            raise TimeoutError("the server did not deliver")
    selector.close()
    stamps = [float(told[at + 2 : at + stamp_size]) for at in range(0, len(told), stamp_size)]
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


def _hold_memory(found: dict[str, list[Round]], broadcasts: int, findings: Findings) -> None:
    table = _table(
        f"{broadcasts} broadcasts of {SIZE:,} B to {HEALTHY} members and those who stall: growth of memory",
        *("case", "at the end, MiB", "at peak, MiB", "queued at the end, MiB", "dropped", "ended by us"),
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
            findings.hold(f"growth at the end, {case}", end, bound, "MiB")
            findings.hold(f"growth at peak, {case}", peak, bound, "MiB")
    console.print(table)


def _hold_latencies(found: dict[str, list[Round]], findings: Findings) -> None:
    """Later than without by no more than rounds without differ among each other."""
    table = _table(
        f"broadcast to receipt at the healthy members, ms: median of {len(found[BASELINE])} rounds",
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
            findings.hold(f"later than without: {name}, {case}", later, noise[name], "ms")
        table.add_row(case, *cells)
    console.print(table)
    console.print(
        "noise: between the fastest and the slowest round without; × is with divided by without",
        style="dim",
    )


# Churn.

OPEN = 200  # at a time
ROOMS = 20
ROUTE = "/soak/rooms/{}"
PING_INTERVAL = 0.5
PING_TIMEOUT = 3.0  # longer than a visitor stays who answers none
SETTLE_TIME = PING_TIMEOUT + 5.0  # until the last timers of those who are gone are done
ANSWER_TIME = 15.0  # seconds in which the server is to do what a visitor waits for
SAMPLE_INTERVAL = 0.25
FLAT = 0.05  # growth between the thirds, of the first: malloc keeps what a rare moment took
SLOPE = 512.0  # bytes a connection: 8 KiB, if one way of ending in 16 left a connection behind
OBJECTS = 0.05  # that a connection may leave behind: a leak is one at least
EXPECTED = "RuntimeError: as asked"  # what stands in the log because a visitor asked for it


class Visitor:
    """A connection of the churn: it joins a room, talks, and ends in one of many ways."""

    def __init__(self, port: int, path: str, *, deflate: bool = False) -> None:
        self.socket = upgrade(port, path, DEFLATE if deflate else "")
        self._codec = Connection(Role.CLIENT, deflate=DeflateParameters() if deflate else None)

    def talk(self, text: str) -> None:
        """Says something to the room, and waits until that is heard there."""
        self.say(text)
        while (heard := self.hear()) != TextMessage(text):
            if isinstance(heard, ConnectionClosed):
                raise ConnectionResetError(f"the server closed: {heard}")

    def say(self, text: str) -> None:
        """Says something."""
        self._codec.send_text(text)
        self._write()

    def hear(self) -> Event:
        """The next message, or the end; control frames are answered."""
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
        """Resets the connection."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # The ways in which it ends.

    def close(self) -> None:
        """With a closing handshake."""
        self._codec.close(CloseCode.NORMAL_CLOSURE)
        self._see_the_end()

    def go_away(self) -> None:
        """The same, as a browser leaves a page, with a message before it."""
        self._codec.send_text("bye")
        self._codec.close(CloseCode.GOING_AWAY, "bye")
        self._see_the_end()

    def hang_up(self) -> None:
        """Ends TCP in order, but without a Close."""
        self.socket.close()

    def break_off(self) -> None:
        """Vanishes in the middle of a frame."""
        self.socket.sendall(encode_frame(Opcode.BINARY, os.urandom(20_000), mask_key=b"abcd")[:12_345])
        self.vanish()

    def hang_up_inside(self) -> None:
        """Ends TCP between two fragments of a message."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"one, " * 1000, fin=False, mask_key=b"abcd"))
        self.socket.close()

    def break_rules(self) -> None:
        """Sends a frame that is not masked: 1002."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"hello"))
        self._see_the_end()

    def send_bad_text(self) -> None:
        """Sends what is not UTF-8: 1007."""
        self.socket.sendall(encode_frame(Opcode.TEXT, b"\xff", mask_key=b"abcd"))
        self._see_the_end()

    def send_too_much(self) -> None:
        """Announces more than may be: 1009."""
        self.socket.sendall(encode_header(FIN | Opcode.BINARY, 1 << 25, b"abcd") + b"and so on")
        self._see_the_end()

    def ask_to_leave(self) -> None:
        """Its handler returns."""
        self.say("leave")
        self._see_the_end()

    def ask_to_fail(self) -> None:
        """Its handler raises: 1011."""
        self.say("fail")
        self._see_the_end()

    def ask_to_cancel(self) -> None:
        """Its handler is cancelled."""
        self.say("cancel")
        self._see_the_end()

    def stall(self) -> None:
        """Is sent more than it reads, without waiting: its queue is full, and it is let go."""
        self._do_not_read("post")

    def stall_a_sender(self) -> None:
        """Is sent more than it reads, by a handler that waits."""
        self._do_not_read("send")

    def leave_a_stream(self) -> None:
        """Reads for a while what a handler sends without end, and vanishes."""
        self.say("send")
        for _ in range(20):
            self.hear()
        self.vanish()

    def fall_silent(self) -> None:
        """Answers no Ping. The socket is closed by whoever has kept it."""

    def _do_not_read(self, how: str) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.say(how)
        time.sleep(0.005)  # for the server to find out
        self.vanish()

    def _write(self) -> None:
        self.socket.sendall(self._codec.data_to_send())

    def _see_the_end(self) -> None:
        try:
            while not isinstance(self.hear(), ConnectionClosed):
                pass
        except ConnectionError:
            pass  # we, or the server, had more to say than the other wanted to hear
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
"""What may come in place of an opening handshake."""


class Sample(NamedTuple):
    """The server's memory in bytes after that many connections."""

    connections: int
    memory: int


class Churn:
    """Visitors of one server, a steady number of them; ``advance`` is called for each that has ended."""

    def __init__(self, server: ServerProcess, advance: Callable[[], None]) -> None:
        self.done = 0
        self._server = server
        self._advance = advance
        self._random = random.Random(0)
        self._visitors: deque[Visitor] = deque()
        self._silent: deque[tuple[float, Visitor]] = deque()
        self._ways: list[Callable[[Visitor], None]] = []

    def run(self, count: int) -> list[Sample]:
        """Lets that many come and go, and samples the server's memory while the most are there."""
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
            visitor.socket.close()  # the server was first: it answers no Ping, and was here for too long
        if way is Visitor.fall_silent:
            self._silent.append((time.monotonic(), visitor))
        self.done += 1
        self._advance()

    def _open_badly(self) -> None:
        with socket.create_connection(("127.0.0.1", self._server.port)) as connection:
            connection.sendall(self._random.choice(OPENINGS))
            if self._random.random() < 0.5:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def soak_churn(asked: Namespace, findings: Findings) -> None:
    """Connections come and go; the server's memory, sampled, is to be flat, and nothing is to stay behind."""
    count = 2400 if asked.quick else 36_000
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
            churn.run(count // 5)  # what the first connections need stays for those to come
            before = _settle(server)
            samples = churn.run(count - count // 5)
            after = _settle(server)
        except TimeoutError:
            findings.miss("churn", f"no answer in {ANSWER_TIME:g} s after {churn.done:,} connections")
            return
        finally:
            socket.setdefaulttimeout(None)
        complaints = _complaints(errors)
    _hold_churn(samples, before, after, complaints, findings, long_enough=not asked.quick)


def _settle(server: ServerProcess) -> dict[str, Any]:
    """The server's state when everybody is gone, and with them what they leave for a while."""
    time.sleep(SETTLE_TIME)  # the last timers are those of visitors who vanished
    return _state(server)


def _state(server: ServerProcess) -> dict[str, Any]:
    """What the server says of itself."""
    visitor = Visitor(server.port, "/soak/state")
    visitor.say("?")
    heard = visitor.hear()
    visitor.close()
    assert isinstance(heard, TextMessage)
    state: dict[str, Any] = json.loads(heard.data)
    return state


def _complaints(errors: IO[str]) -> Counter[str]:
    """What the server wrote to stderr, apart from what it was asked for: messages, and what was raised."""
    errors.seek(0)
    return Counter(
        line.rstrip()
        for line in errors
        if not line.startswith((" ", "\n", "Traceback", "During", "handle:", "a handler failed", EXPECTED))
    )


def _hold_churn(
    samples: list[Sample],
    before: dict[str, Any],
    after: dict[str, Any],
    complaints: Counter[str],
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
    ends = _table(f"{count:,} connections, {OPEN} at a time: how they ended", "cause", "count")
    for cause, number in closes.most_common():
        ends.add_row(cause, f"{number:,}")
    console.print(ends)
    table = _table(
        "the server's memory",
        *("first third, MiB", "last third, MiB", "slope, B a connection"),
        *("objects left behind, a connection", "blocks"),
    )
    table.add_row(f"{first:.2f}", f"{last:.2f}", f"{slope:+.1f}", f"{objects:+.4f}", f"{blocks:+.4f}")
    console.print(table)
    if objects > OBJECTS:
        most = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common(20))
        console.print(f"left behind: {most}", style="red")
    for line, number in complaints.most_common(10):
        console.print(f"the log, {number} times: {line}", style="red", markup=False)

    if long_enough:  # the heap takes some thousands of connections to find its size
        growth = max(0.0, last - first)
        findings.hold("churn: growth from the first third to the last", growth, FLAT * first, "MiB")
        findings.hold("churn: slope", max(0.0, slope), SLOPE, "B a connection")
    findings.hold("churn: objects that a connection leaves behind", max(0.0, objects), OBJECTS, "")
    findings.hold("churn: what the log complains of", complaints.total(), 0, "lines")
    findings.figures["churn"] = {
        "connections": count,
        "open": OPEN,
        "first third, MiB": first,
        "last third, MiB": last,
        "slope, B a connection": slope,
        "left behind a connection": {"objects": objects, "blocks": blocks},
        "closes": closes,
        "complaints": complaints,
        "samples": samples[:: max(1, len(samples) // 100)],
    }


def main() -> None:
    """Prints it all."""
    asked = options(__doc__)
    findings = Findings()
    soak_idle(asked, findings)
    soak_broadcasts(asked, findings)
    soak_churn(asked, findings)
    findings.finish(quick=asked.quick)


if __name__ == "__main__":
    main()
