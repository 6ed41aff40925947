"""Runs the suite against our server and our client.

The suite's fuzzing client tests our server, the command ``rfc6455-server``. Its fuzzing server tests our
client, `rfc6455_server.connect`. Both use a free port.
"""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from conformance.results import Result, differences, read_results, table
from conformance.suite import REPORTS, Suite, find_suite
from rfc6455 import PerMessageDeflate
from rfc6455_server import ConnectionClosedError, connect

AGENT: Final = "rfc6455"

ALL: Final = ("*",)

# All cases without compression, and a sample of those with it: each kind of message and each parameter.
QUICK: Final = (
    *(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 9, 10)),
    *(f"12.{group}.{case}" for group in range(1, 6) for case in (5, 9, 13)),
    *(f"13.{group}.{case}" for group in range(1, 8) for case in (5, 9, 13)),
)

COUNTS: Final = {ALL: 517, QUICK: 337}

MAX_MESSAGE_SIZE: Final = 16 << 20
"""In bytes; the largest message of group 9 has this size."""

_TIME_LIMITS: Final = {ALL: 3 * 3600, QUICK: 1200}
"""Seconds for one role."""

REPORT_TIMEOUT: Final = 300.0
"""Seconds for the suite to write its report, which it does before it answers our opening handshake."""

_OUR_SERVER: Final = "import sys; from rfc6455_server.command.cli import main; {}sys.exit(main())"

_HIDE_NUMPY: Final = "sys.modules['numpy'] = None; "
"""Makes the import of numpy fail, to test masking with the standard library."""


def run(cases: tuple[str, ...], roles: Sequence[str], *, without_numpy: bool = False) -> int:
    """Runs ``cases`` for each role. Returns the exit status: 1 if a result is not the expected one."""
    console = Console()
    suite = find_suite()
    if without_numpy:
        sys.modules["numpy"] = None  # type: ignore[assignment]  # for our client, which runs in this process
    console.print(f"Autobahn test suite ({suite.name}), {COUNTS[cases]} cases for each role")
    unexpected: list[str] = []
    for role in roles:
        results = _run_role(suite, role, cases, console, without_numpy)
        worse, better = differences(role, results, full=cases == ALL)
        again = [line.split()[1].rstrip(":") for line in worse if re.match(r"\w+ [\d.]+:", line)]
        if again:
            # Cases that send one byte at a time depend on timing, so a difference must occur twice.
            console.print(f"running again: {', '.join(again)}")
            results.update(_run_role(suite, role, tuple(again), console, without_numpy))
            worse, better = differences(role, results, full=cases == ALL)
        console.print(table(role, results))
        unexpected += worse + [f"{line} (better: record it in expected.json)" for line in better]
    for line in unexpected:
        console.print(line, style="bold red")
    console.print(f"reports: {REPORTS.relative_to(REPORTS.parent.parent)}/*/index.html")
    return 1 if unexpected else 0


def _run_role(
    suite: Suite, role: str, cases: tuple[str, ...], console: Console, without_numpy: bool
) -> dict[str, Result]:
    folder = role if cases in COUNTS else f"{role}-again"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"our {role}", total=COUNTS.get(cases, len(cases)))
        limit = _TIME_LIMITS.get(cases, 600)
        if role == "server":
            with _our_server(without_numpy) as url:
                _test_server(suite, folder, cases, limit, url, lambda: progress.advance(task))
        else:
            _test_client(suite, folder, cases, limit, lambda: progress.advance(task))
    return read_results(REPORTS / folder)


def _config(cases: tuple[str, ...], **more: object) -> dict[str, object]:
    return {
        "options": {"failByDrop": False},
        "cases": list(cases),
        "exclude-cases": [],
        "exclude-agent-cases": {},
        **more,
    }


def _test_server(  # noqa: PLR0917 - all are needed, and it has one caller
    suite: Suite, folder: str, cases: tuple[str, ...], limit: float, url: str, advance: Callable[[], None]
) -> None:
    config = _config(cases, servers=[{"agent": AGENT, "url": url}])
    fuzzer = suite.start("fuzzingclient", config, folder)
    assert fuzzer.stdout is not None  # noqa: S101 - for the type
    with _ended(fuzzer, limit):
        for line in fuzzer.stdout:
            if line.startswith("Running test case ID"):
                advance()


def _test_client(
    suite: Suite, folder: str, cases: tuple[str, ...], limit: float, advance: Callable[[], None]
) -> None:
    port = _free_port()
    url = f"ws://127.0.0.1:{port}"
    fuzzer = suite.start("fuzzingserver", _config(cases, url=url), folder)
    with _ended(fuzzer, limit):
        # Its output must be read, or a full pipe would block it.
        threading.Thread(target=fuzzer.communicate, daemon=True).start()
        asyncio.run(_run_client(url, limit, advance))


async def _run_client(url: str, limit: float, advance: Callable[[], None]) -> None:
    """Runs our client: gets the number of cases, echoes in each, and makes the suite write its report."""
    async with asyncio.timeout(limit):
        count = await _case_count(url)
        for case in range(1, count + 1):
            async with connect(
                f"{url}/runCase?case={case}&agent={AGENT}",
                max_message_size=MAX_MESSAGE_SIZE,
                compression=PerMessageDeflate(),
            ) as ws:
                try:
                    async for message in ws:
                        await ws.send(message)
                except ConnectionClosedError:
                    pass  # the suite closed before we had sent the echo
            advance()
        async with connect(f"{url}/updateReports?agent={AGENT}", open_timeout=REPORT_TIMEOUT) as ws:
            await ws.wait_closed()


async def _case_count(url: str) -> int:
    for attempt in range(200):
        try:
            async with connect(f"{url}/getCaseCount") as ws:
                return int(await ws.recv())
        except OSError:
            if attempt == 199:
                raise
            await asyncio.sleep(0.1)  # the suite is starting
    raise AssertionError("unreachable")


@contextmanager
def _our_server(without_numpy: bool) -> Iterator[str]:
    program = _OUR_SERVER.format(_HIDE_NUMPY if without_numpy else "")
    command = [sys.executable, "-c", program, "--port", "0", "--compression"]
    command += ["--max-message-size", str(MAX_MESSAGE_SIZE)]
    with (REPORTS / "our-server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None  # noqa: S101 - for the type
    with _ended(server, None):
        yield server.stdout.readline().split()[-1].replace("http", "ws") + "/echo"


@contextmanager
def _ended(process: subprocess.Popen[str], limit: float | None) -> Iterator[None]:
    """Stops the process at the end of the block, and kills it after ``limit`` seconds."""
    timer = threading.Timer(limit, process.kill) if limit else None
    if timer:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer:
            timer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
