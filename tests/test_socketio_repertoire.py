"""The repertoire of a Socket.IO client beside Node's server, in one run: docs/socketio-differences.md."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.server_helpers import PATIENCE, ROOT, need
from tests.socketio_differences import MISSING, MODES, PAGE, Difference, expected, page
from tests.socketio_python_client import python_transcript
from tests.socketio_raw import raw_transcript
from tests.socketio_repertoire import serving_repertoire

NODE = ROOT / "tests" / "node"
Transcript = dict[str, dict[str, Any]]
"""By scenario and step, what the client or the server saw."""


@asynccontextmanager
async def node(program: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Runs a script. It ends with its standard input, or is killed at the end."""
    found = shutil.which("node")
    need("Node", found is not None and (NODE / "node_modules" / "socket.io").exists())
    process = await asyncio.create_subprocess_exec(
        *(str(found), str(NODE / program), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,  # bytes of a line
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def serving_repertoire_on_node() -> AsyncIterator[dict[str, int]]:
    async with node("repertoire_server.js") as process:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            ports = json.loads(await process.stdout.readline())
        yield ports


async def transcript(ports: dict[str, int], mode: str) -> Transcript:
    """Returns what the official client says over a transport, or what raw requests do."""
    if mode == "raw":
        return await raw_transcript(ports)
    async with node("repertoire.js", json.dumps(ports), mode) as process:
        assert process.stdout is not None
        lines = [json.loads(line) async for line in process.stdout]
        assert await process.wait() == 0
    return {line["scenario"]: dict(line["steps"]) for line in lines}


def compare(node: Transcript, ours: Transcript) -> dict[tuple[str, str], Difference]:
    """Returns the steps that differ, and how."""
    differences = {}
    for scenario in node | ours:
        nodes_steps, our_steps = node.get(scenario, {}), ours.get(scenario, {})
        for step in nodes_steps | our_steps:
            values = tuple(
                json.dumps(steps[step], ensure_ascii=False) if step in steps else MISSING
                for steps in (nodes_steps, our_steps)
            )
            if values[0] != values[1]:
                differences[scenario, step] = (values[0], values[1])
    return differences


@pytest.mark.parametrize("mode", [*MODES["all"], *MODES["raw"]])
async def test_the_same_as_nodes_server_but_for_the_listed_differences(mode: str) -> None:
    async with serving_repertoire_on_node() as nodes_ports, serving_repertoire() as our_ports:
        async with asyncio.timeout(2 * PATIENCE):
            node, ours = await asyncio.gather(transcript(nodes_ports, mode), transcript(our_ports, mode))
    check(node, ours, mode)


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # from aiohttp, about the client
@pytest.mark.parametrize("mode", MODES["python"])
async def test_the_client_of_python_socketio(mode: str) -> None:
    """Over WebSocket, it gets on with Node's server: that is how it must be over each of our transports."""
    async with serving_repertoire_on_node() as nodes_ports, serving_repertoire() as our_ports:
        async with asyncio.timeout(2 * PATIENCE):
            node = await python_transcript(nodes_ports, "python-websocket")
            check(node, await python_transcript(our_ports, mode), mode)


def check(node: Transcript, ours: Transcript, mode: str) -> None:
    """Fails unless the transcripts differ as listed."""
    assert list(node) == list(ours)
    found, listed = compare(node, ours), expected(mode)
    wrong = [
        f"{scenario}: {step}\n    Node {found[key][0]}\n    ours {found[key][1]}"
        + (f"\n    listed {listed[key][0]}\n    and {listed[key][1]}" if key in listed else "")
        for key in found
        if found[key] != listed.get(key)
        for scenario, step in [key]
    ]
    vanished = [f"{scenario}: {step}" for scenario, step in listed if (scenario, step) not in found]
    assert not wrong, "not listed, or otherwise:\n" + "\n".join(wrong)
    assert not vanished, "listed, but the same:\n" + "\n".join(vanished)


def test_a_difference_that_is_new_and_one_that_has_vanished_fail() -> None:
    listed = expected("raw")
    node: Transcript = {}
    ours: Transcript = {}
    for (scenario, step), values in listed.items():
        for transcript, value in zip((node, ours), values, strict=True):
            transcript.setdefault(scenario, {})[step] = json.loads(value)
    check(node, ours, "raw")
    (scenario, step), *_ = listed
    node[scenario]["new"], ours[scenario]["new"] = 1, 2
    with pytest.raises(AssertionError, match="not listed, or otherwise"):
        check(node, ours, "raw")
    ours[scenario] |= {"new": 1, step: "otherwise"}
    with pytest.raises(AssertionError, match="not listed, or otherwise"):
        check(node, ours, "raw")
    ours[scenario][step] = node[scenario][step]
    with pytest.raises(AssertionError, match="listed, but the same"):
        check(node, ours, "raw")


def test_the_page_of_the_differences() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.socketio_differences --write"
