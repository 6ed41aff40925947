"""Where we differ from wsproto and websockets, and what decides: `differences.toml`, and the page of it.

`python -m tests.differences --write` writes the page.
"""

import random
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rfc6455 import Role
from tests import oracles
from tests.fuzz.inputs import changed, seeds
from tests.helpers import raw_frame
from tests.oracles import Answer
from tests.rules import violations

_HERE = Path(__file__).parent
PAGE = _HERE.parent / "docs" / "differences.md"
ANY = "*"
CHANGED = 500
"""Inputs of each kind that are made from the seeds."""

_INTRODUCTION = """\
# Where we differ from wsproto and websockets

`tests/test_oracles.py` gives the same bytes to all three, in both roles: valid conversations, each violation
of RFC 6455 §5 to §8, the seeds of the fuzz targets, and some thousand inputs made from them. Messages, close
codes and outcomes of the opening handshake must be the same, except for what this page lists, with the
section that decides. A difference that is not listed fails the test, and so does one that is listed and does
not show. Which of several violations comes first is not compared.

| on | what | who differs | does what | why we do not |
|---|---|---|---|---|
"""


class Kind(NamedTuple):
    """A kind of difference: what was sent, to whom, our slug, and `oracles.difference`."""

    on: str
    peer: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Row:
    """Kinds of one cause, in words."""

    on: str
    peers: list[str]
    ours: str
    theirs: list[str]
    what: str
    them: str
    why: str

    def kinds(self) -> Iterator[Kind]:
        for peer in self.peers:
            for theirs in self.theirs:
                yield Kind(self.on, peer, self.ours, theirs)


def rows() -> list[Row]:
    table = tomllib.loads((_HERE / "differences.toml").read_text())
    return [Row(**row) for row in table["difference"]]


def listed() -> dict[Kind, Row]:
    return {kind: row for row in rows() for kind in row.kinds()}


def page() -> str:
    lines = [
        f"| {row.on} | {row.what} | {', '.join(row.peers)} | {row.them} | {row.why} |\n" for row in rows()
    ]
    return _INTRODUCTION + "".join(lines)


Peer = Callable[[bytes], Answer]


def _groups() -> Iterator[tuple[str, Peer, dict[str, Peer], list[bytes]]]:
    """Yields (what is sent, our answer, the others' answers, inputs)."""
    for role in Role:
        yield (
            "frames",
            partial(oracles.ours, role),
            {
                "wsproto": partial(oracles.wsproto, role),
                "websockets": partial(oracles.websockets, role),
            },
            [data for *_, data in violations(role)]
            + [seed.read_bytes()[5:] for seed in seeds("frames") if seed.name.startswith(role.value)],
        )
        compressed = [raw_frame(role, 2, seed.read_bytes()[6:], rsv=4) for seed in seeds("deflate")]
        yield (
            "deflate",
            partial(oracles.ours, role, deflate=True),
            {
                "wsproto": partial(oracles.wsproto, role, deflate=True),
                "websockets": partial(oracles.websockets, role, deflate=True),
            },
            compressed
            + [first + second for first in compressed for second in compressed[:3]]
            + [first + raw_frame(role, 2, b"J", rsv=4, fin=False) for first in compressed]
            + [raw_frame(role, 2, rsv=4, length=(1 << 63) - 1)[:10]],
        )
    yield (
        "requests",
        oracles.our_server,
        {"wsproto": oracles.wsproto_server, "websockets": oracles.websockets_server},
        [seed.read_bytes()[3:] for seed in seeds("requests")],
    )


def found() -> dict[Kind, bytes]:
    """Returns each kind of difference that shows, with the shortest input that shows it.

    Only inputs that break one rule are compared by the code or the status that answers them.
    """
    shortest: dict[Kind, bytes] = {}
    for on, ours, others, inputs in _groups():
        rng = random.Random(on)
        made = [changed(rng, inputs) for _ in range(CHANGED)]
        for index, data in enumerate([*inputs, *made]):
            our = ours(data)
            for peer, theirs in others.items():
                word = oracles.difference(our, theirs(data))
                if not word or (word.isdigit() and index >= len(inputs)):
                    continue
                kind = Kind(on, peer, our.slug or "accepted", word)
                if len(data) < len(shortest.get(kind, data + b"x")):
                    shortest[kind] = data
    return shortest


def unlisted_and_unseen() -> tuple[dict[Kind, bytes], list[Kind]]:
    """Returns the differences that no row lists, and the kinds of rows that did not show."""
    table = listed()
    seen: Counter[Kind] = Counter()
    unlisted = {}
    for kind, data in found().items():
        general = kind._replace(ours=ANY)
        if kind in table or general in table:
            seen[kind if kind in table else general] += 1
        else:
            unlisted[kind] = data
    return unlisted, [kind for kind in table if not seen[kind]]


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    PAGE.write_text(page())
