"""Socket.IO where it can hurt: a storm of returning clients, bursts, and what clients make the server hold.

``--before REV`` measures another revision as well. Each case starts a server of its own.
"""

import argparse
import json
import re
import resource
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from benchmarks.before_after import checked_out, command
from benchmarks.common import HERE, OURS, Figure, as_json, console, request, upgrade, write_results
from rfc6455 import Opcode, encode_frame

BEFORE: Final = "before"
SERVER: Final = HERE / "servers" / "socketio_cases.py"
PATH: Final = "/socket.io/?EIO=4&transport="
TIME_LIMIT: Final = 300.0
"""Seconds after which a case ends, whatever is missing."""

PATIENCE: Final = 3.0
"""Seconds that a client waits for the answer to a POST that the server may hold back."""

MAX_OPENING: Final = 256
"""Connections that wait for their first byte. With more of them than the system queues for a server, it drops
some, and they try again after a second: the benchmark would measure that second."""

# The number ends with a comma: with a part of it, an event does not match yet.
_EVENT: Final = re.compile(rb'42\["news",(\d+),')
_IDS: Final = re.compile(rb'"pid":"([^"]+)"')

Result = dict[str, float]
"""The figures of a case in one round, by name and unit."""


class CaseServer:
    """A server process, and the commands that it takes."""

    def __init__(self, tree: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            command(tree, str(SERVER), *arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def do(self, *what: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def until(self, done: Callable[[Any], bool], seconds: float = 10.0) -> Any:
        """Waits until the state is as wanted, for some seconds; returns it."""
        deadline = time.monotonic() + seconds
        while not done(state := self.do("state")) and time.monotonic() < deadline:
            time.sleep(0.05)  # between two questions
        return state

    def stop(self) -> None:
        self._process.kill()  # it would drain for some seconds
        self._process.wait()


@contextmanager
def serving(tree: Path, *arguments: str) -> Iterator[CaseServer]:
    """Runs a server."""
    server = CaseServer(tree, *arguments)
    try:
        yield server
    finally:
        server.stop()


def text_frame(text: str) -> bytes:
    """Returns the frame that a client sends."""
    return encode_frame(Opcode.TEXT, text.encode(), mask_key=b"abcd")


def reset(connection: socket.socket) -> None:
    """Loses a connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Clients that return together.


class Returning:
    """A client of the storm: what it sends, and what it has seen."""

    def __init__(self, port: int, auth: Mapping[str, str]) -> None:
        self._auth = json.dumps(auth) if auth else ""
        self._received = b""
        self._said = False
        self.is_opening = True
        """Whether nothing has arrived yet."""
        self.private_id = b""
        self.seen: list[int] = []
        self.connection = socket.socket()
        self.connection.setblocking(False)
        self.connection.connect_ex(("127.0.0.1", port))
        self.opening = request(port, PATH + "websocket")

    def read(self) -> bytes:
        """Returns the bytes that have arrived; none at the end of the connection."""
        try:
            return self.connection.recv(1 << 16)
        except OSError:
            return b""

    def receive(self, data: bytes) -> bytes:
        """Handles bytes; returns what to answer."""
        self._received += data
        if not self.private_id and (found := _IDS.search(self._received)):
            self.private_id = found[1]
        answer = b""
        if not self._said and b'"maxPayload":' in self._received:
            self._said = True
            answer = text_frame("40" + self._auth)
        end = 0
        for match in _EVENT.finditer(self._received):
            self.seen.append(int(match[1]))
            end = match.end()
        self._received = self._received[end:]
        return answer


def connect_all(port: int, auths: list[dict[str, str]], done: Callable[[Returning], bool]) -> list[Returning]:
    """Connects a client for each of ``auths``, and reads until all are done or the time is up."""
    selector = selectors.DefaultSelector()
    clients: list[Returning] = []
    opening = waiting = 0
    deadline = time.monotonic() + TIME_LIMIT
    while (waiting or len(clients) < len(auths)) and time.monotonic() < deadline:
        while opening < MAX_OPENING and len(clients) < len(auths):
            client = Returning(port, auths[len(clients)])
            clients.append(client)
            selector.register(client.connection, selectors.EVENT_WRITE, client)
            opening += 1
            waiting += 1
        for key, mask in selector.select(1.0):
            client = key.data
            if mask & selectors.EVENT_WRITE:
                with suppress(OSError):  # the server has refused the connection, as reading will show
                    client.connection.send(client.opening)
                selector.modify(client.connection, selectors.EVENT_READ, client)
                continue
            data = client.read()
            if client.is_opening:
                client.is_opening = False
                opening -= 1
            if answer := client.receive(data):
                client.connection.send(answer)
            if not data or done(client):
                selector.unregister(client.connection)
                waiting -= 1
    selector.close()
    return clients


def read_all(clients: list[Returning], done: Callable[[Returning], bool]) -> None:
    """Reads until all clients are done, or the server has closed their connections."""
    selector = selectors.DefaultSelector()
    for client in clients:
        if client.connection.fileno() >= 0:
            selector.register(client.connection, selectors.EVENT_READ, client)
    deadline = time.monotonic() + TIME_LIMIT
    while selector.get_map() and time.monotonic() < deadline:
        for key, _ in selector.select(1.0):
            data = key.data.read()
            key.data.receive(data)
            if not data or done(key.data):
                selector.unregister(key.fileobj)
    selector.close()


MISSED: Final = 20


def storm(tree: Path, *, quick: bool) -> Result:
    """All clients of a room lose their connections, miss 20 of 40,000 small events, and return at once."""
    count, events = (500, 4000) if quick else (10_000, 40_000)
    with serving(tree, "--recovery=600") as server:
        server.do("emit_between", "nobody", MISSED, events // 2)
        clients = connect_all(server.port, [{}] * count, lambda client: bool(client.private_id))
        server.until(lambda state: state["sockets"] == count)
        for client in clients:
            reset(client.connection)
        server.until(lambda state: state["sockets"] == 0, 60)
        server.do("emit_between", "all", MISSED, events // 2)
        before = server.do("state")
        server.do("watch")
        begin = time.monotonic()
        auths = [{"pid": client.private_id.decode()} for client in clients]
        clients = connect_all(server.port, auths, lambda client: len(client.seen) >= MISSED)
        seconds = time.monotonic() - begin
        after = server.do("state")
        server.do("emit", "all", 1, 1)  # behind all that was missed, so that doubled events are seen
        read_all(clients, lambda client: client.seen[-1:] == [1] and len(client.seen) > MISSED)
        expected = [*range(1, MISSED + 1), 1]
        wrong = sum(client.seen != expected for client in clients)
        for client in clients:
            client.connection.close()
    return {
        "s until all are recovered": seconds,
        "s of server CPU": after["cpu"] - before["cpu"],
        "ms, the largest stall": 1000 * after["stall"],
        "ms of CPU, the largest stall": 1000 * after["stall_cpu"],
        "clients not recovered": count - after["recovered"],
        "clients that missed or doubled events": wrong,
    }


# Bursts to a client that reads.


class Polling:
    """A client that polls, with one request at a time."""

    def __init__(self, port: int) -> None:
        self._http = HTTPConnection("127.0.0.1", port, timeout=60)
        self._query = PATH + "polling"
        opening = self.ask()
        self._query += "&sid=" + json.loads(opening[1:])["sid"]

    def connect(self) -> None:
        self.ask("40")
        self.ask()

    def ask(self, body: str | bytes | None = None) -> bytes:
        """Posts the body, or polls; raises `OSError` or `HTTPException` if it has no good answer."""
        self._http.request("GET" if body is None else "POST", self._query, body)
        answer = self._http.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise ConnectionError(f"{answer.status}: {data!r}")
        return data

    def again(self) -> "Polling":
        """Returns the same client on a connection of its own."""
        other = copy(self)
        other._http = HTTPConnection(self._http.host, self._http.port, timeout=PATIENCE)
        return other

    def close(self) -> None:
        self._http.close()


def burst_over_websocket(server: CaseServer, count: int, size: int) -> int:
    """Returns how many events of a burst arrive."""
    connection = upgrade(server.port, PATH + "websocket")
    connection.sendall(text_frame("40"))
    server.until(lambda state: state["sockets"] == 1)
    server.do("emit", "all", count, size)
    connection.settimeout(30)
    seen, received = 0, b""
    try:
        while seen < count and (data := connection.recv(1 << 18)):
            received += data
            found = list(_EVENT.finditer(received))
            seen += len(found)
            received = received[found[-1].end() :] if found else received[-64:]
    except TimeoutError:
        pass
    connection.close()
    return seen


def burst_over_polling(server: CaseServer, count: int, size: int) -> int:
    client = Polling(server.port)
    client.connect()
    server.until(lambda state: state["sockets"] == 1)
    server.do("emit", "all", count, size)
    seen = 0
    try:
        while seen < count:
            seen += len(_EVENT.findall(client.ask()))
    except (OSError, HTTPException):
        pass
    client.close()
    return seen


def bursts(tree: Path, *, quick: bool) -> Result:
    """A client that reads is sent much in one tick."""
    result: Result = {}
    cases: list[tuple[int, int]] = [(60, 50_000), (2000 if quick else 20_000, 200)]
    for burst, name in ((burst_over_websocket, "WebSocket"), (burst_over_polling, "polling")):
        for count, size in cases:
            with serving(tree) as server:
                begin = time.monotonic()
                seen = burst(server, count, size)
                seconds = time.monotonic() - begin
                where = f"{name}, {count:,} × {size:,} B"
                result[f"events that arrived, {where}"] = seen
                result[f"disconnects, {where}"] = int(seen < count)
                result[f"s, {where}"] = seconds
    return result


# Clients that send faster than the handlers work.


def tiny_events(size: int, *, acknowledged: bool = False) -> bytes:
    """Returns a POST body of tiny events with that many bytes, and at most 65,000 packets."""
    event = b'421["x"]' if acknowledged else b'42["x",1]'
    return b"\x1e".join([event] * min(65_000, size // (len(event) + 1)))


def post_on(stack: ExitStack, client: Polling, body: bytes) -> bool:
    """Posts a body on a connection of its own, which ends with ``stack``; returns whether it was refused.

    Waits for the answer only for a while.
    """
    other = client.again()
    stack.callback(other.close)
    try:
        other.ask(body)
    except TimeoutError:
        return False
    except (OSError, HTTPException):
        return True
    return False


def push_back(tree: Path, *, quick: bool) -> Result:
    """What events hold while their handlers wait, and after their sessions have ended."""
    size = 66_000 if quick else 660_000
    result: Result = {}
    with serving(tree) as server:
        client = Polling(server.port)
        client.connect()
        server.do("hold")
        server.do("trace")
        with ExitStack() as stack:
            refused = sum(post_on(stack, client, tiny_events(size)) for _ in range(8))
            state = server.do("state")
        result["POSTs refused of 8, while a handler waits"] = refused
        result["MB held by them"] = state["held"] / 1e6
        result["MB at most"] = state["peak"] / 1e6
        client.close()
    with serving(tree) as server:
        server.do("hold")
        server.do("trace")
        for _ in range(5):
            client = Polling(server.port)
            client.connect()
            with ExitStack() as stack:
                post_on(stack, client, tiny_events(size))
                post_on(stack, client, b"1")
            client.close()
        state = server.until(lambda state: state["sockets"] == 0, 5)
        result["MB held after five sessions were closed"] = state["held"] / 1e6
    with serving(tree) as server:
        client = Polling(server.port)
        client.connect()
        server.do("watch")
        body = tiny_events(1_000_000)
        begin = time.monotonic()
        client.ask(body)
        packets = body.count(b"\x1e") + 1
        state = server.until(lambda state: state["handled"] == packets)
        result["s, a payload of 65,000 events"] = time.monotonic() - begin
        result["ms, the largest stall by it"] = 1000 * state["stall"]
        result["ms of CPU, the largest stall by it"] = 1000 * state["stall_cpu"]
        client.close()
    return result


# What waits for clients that do not fetch it.


def pollers(tree: Path, *, quick: bool) -> Result:
    """What clients make the server hold, and how much of it the budget counts, with a limit of 4 MiB."""
    scale = 4 if quick else 1
    result: Result = {}

    def note(server: CaseServer, what: str) -> None:
        state = server.do("state")
        result[f"MB held, {what}"] = state["held"] / 1e6
        result[f"MB counted, {what}"] = state["queued"] / 1e6

    with serving(tree, f"--max-total-queue={4 << 20}") as server:
        clients = [Polling(server.port) for _ in range(20)]
        for client in clients:
            client.connect()
        server.until(lambda state: state["sockets"] == 20)
        server.do("trace")
        server.do("emit_to_each", 19_000_000 // scale, 10_000)
        note(server, "19 MB for 20 that never poll")
        for client in clients:
            client.close()
    with serving(tree, f"--max-total-queue={4 << 20}") as server:
        client = Polling(server.port)
        client.connect()
        server.do("trace")
        with ExitStack() as stack:
            for _ in range(2):
                post_on(stack, client, tiny_events(600_000 // scale, acknowledged=True))
        note(server, "tiny acks to one that never polls")
        client.close()
    with serving(tree, f"--max-total-queue={4 << 20}") as server, ExitStack() as stack:
        server.do("trace")
        for _ in range(10):
            connection = stack.enter_context(upgrade(server.port, PATH + "websocket"))
            connection.settimeout(PATIENCE)
            send_attachments(connection, 9 // scale)
        server.until(lambda _: False, 0.5)
        note(server, "attachments of ten packets in flight")
    return result


def send_attachments(connection: socket.socket, count: int) -> None:
    """Sends a packet with ten attachments, and ``count`` of these, of 1 MB each."""
    places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(10))
    attachment = encode_frame(Opcode.BINARY, bytes(990_000), mask_key=b"abcd")
    try:
        connection.sendall(text_frame("40") + text_frame(f'4510-["x",{places}]'))
        for _ in range(count):
            connection.sendall(attachment)
    except OSError:
        pass  # disconnected, or held back


CASES: Final = {"storm": storm, "bursts": bursts, "push-back": push_back, "pollers": pollers}


def main() -> None:
    """Prints the figures of each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller cases")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each case (1)")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--before", metavar="REV", help="also measure this revision")
    args = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(65536, hard)), hard))
    stored: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        trees = {OURS: HERE.parent}
        if args.before:
            trees = {BEFORE: stack.enter_context(checked_out(args.before)), **trees}
        table = Table(title="Socket.IO: medians", title_justify="left")
        for column in ("case", "figure", *trees):
            table.add_column(column, justify="left" if column in ("case", "figure") else "right")
        for case in args.only:
            results = measure(CASES[case], trees, args.rounds, quick=args.quick)
            for name, figures in results.items():
                table.add_row(case, name, *(f"{figures[tree].median:,.4g}" for tree in trees))
                stored[f"{case}: {name}"] = as_json(figures)
    console.print(table)
    report = {"unit": "see each case", "before": args.before, "cases": stored, "targets": {}}
    write_results("socketio", report, quick=args.quick)


def measure(
    case: Callable[..., Result], trees: Mapping[str, Path], rounds: int, *, quick: bool
) -> dict[str, dict[str, Figure]]:
    """Returns the figures of a case, by name and by tree."""
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for tree, path in trees.items():
            print(f"{case.__name__}, {tree}", file=sys.stderr)
            for name, value in case(path, quick=quick).items():
                samples.setdefault(name, {}).setdefault(tree, []).append(value)
    return {
        name: {tree: Figure.of(values) for tree, values in by_tree.items()}
        for name, by_tree in samples.items()
    }


if __name__ == "__main__":
    main()
