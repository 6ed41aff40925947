"""A drain of many connections: how evenly they are told, when the last one is, and when the server has ended.

The server is the command, in a process of its own. Both processes need a descriptor for each connection, so
the hard limit of open files bounds their number.
"""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from rich.progress import track

from benchmarks.common import HERE, Figure, as_json, console, machine, options, upgrade, write_results
from rfc6455 import Opcode, encode_frame

CONNECTIONS: Final = 20_000
RESERVED: Final = 100
"""Descriptors for everything else."""

DRAIN_TIME: Final = 5.0
GRACE: Final = 1.0
"""Seconds after the drain time by which the last connection must have been told."""

CLOSE: Final = (1001).to_bytes(2, "big")
ANSWER: Final = encode_frame(Opcode.CLOSE, CLOSE, mask_key=b"abcd")


class Drained(NamedTuple):
    """Seconds after the signal at which each connection was told, and at which the process had ended.

    ``cpu`` is the CPU time that the server took from the signal to its end.
    """

    told: list[float]
    ended: float
    cpu: float


def start_server(connections: int) -> tuple["subprocess.Popen[str]", int]:
    """Starts the command with room for ``connections``; returns it and its port."""
    limits = [f"--max-connections={connections + 1}", f"--max-per-address={connections + 1}"]
    limits += ["--ping-interval=3600", f"--drain-time={DRAIN_TIME}", "--log-level=error"]
    command = [sys.executable, "-m", "rfc6455_server", "--port=0", "--no-pages", *limits]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parent)
    assert process.stdout is not None
    return process, int(process.stdout.readline().rsplit(":", 1)[1])


def cpu_of(pid: int) -> float:
    """Returns the CPU time that a process has used, in seconds."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def drain(connections: int) -> Drained:
    """Opens the connections, asks the server to end, and answers each Close."""
    process, port = start_server(connections)
    sockets: dict[int, socket.socket] = {}
    poll = select.epoll()
    try:
        for _ in track(range(connections), "connecting", console=console, transient=True):
            peer = upgrade(port, "/echo")
            sockets[peer.fileno()] = peer
            poll.register(peer, select.EPOLLIN)
        time.sleep(1)  # until the server has nothing left to do
        told: dict[int, float] = {}
        cpu_before = cpu_of(process.pid)
        begin = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while sockets:
            for descriptor, _ in poll.poll():
                peer = sockets[descriptor]
                data = peer.recv(100)
                if data and descriptor not in told:
                    assert data[2:4] == CLOSE, data
                    told[descriptor] = time.monotonic() - begin
                    peer.sendall(ANSWER)
                if not data or data[4:]:
                    del sockets[descriptor]
                    peer.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime - cpu_before
        return Drained(list(told.values()), time.monotonic() - begin, cpu)
    finally:
        poll.close()
        for peer in sockets.values():
            peer.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def largest_share(told: list[float], parts: int = 10) -> float:
    """Returns the largest part that was told in one of ``parts`` parts of the drain time, or after it."""
    counts = [0] * (parts + 1)
    for seconds in told:
        counts[min(parts, int(seconds / DRAIN_TIME * parts))] += 1
    return max(counts) / len(told)


def main() -> None:
    """Prints when the last connection was told, and the verdict."""
    args = options(__doc__)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    connections = min(2000 if args.quick else CONNECTIONS, hard - RESERVED)
    rounds = [drain(connections) for _ in range(1 if args.quick else 3)]
    last = Figure.of([max(found.told) for found in rounds])
    ended = Figure.of([found.ended for found in rounds])
    cpu = Figure.of([found.cpu for found in rounds])
    share = Figure.of([largest_share(found.told) for found in rounds])
    console.print(f"{machine()}: {connections:,} connections, a drain time of {DRAIN_TIME:g} s")
    console.print(f"last one told: {last} s; the process had ended: {ended} s")
    console.print(f"CPU time of the server for it: {cpu} s")
    console.print(f"largest part told in a tenth of the drain time, or after it: {share.median:.0%}")
    met = last.median <= DRAIN_TIME + GRACE
    console.print(f"target: all told within {DRAIN_TIME + GRACE:g} s: {'met' if met else 'missed'}")
    figures = {
        "connections": connections,
        "seconds": as_json({"last told": last, "ended": ended, "CPU": cpu}),
    }
    write_results("drain", figures, quick=args.quick)


if __name__ == "__main__":
    main()
