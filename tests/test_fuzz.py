"""The targets of `tests/fuzz` without Atheris: seeds, a fixed set of inputs, flaws that they find."""

import base64
import inspect
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from rfc6455 import Connection, DeflateParameters, PerMessageDeflate, deflate, frames, http11
from rfc6455_server.socketio import packet_json
from tests.fuzz.inputs import SEEDS, changed, seeds
from tests.fuzz.targets import TARGETS

RUNS = 150
"""Inputs for each target that are made from its seeds."""

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize(
    ("target", "seed"),
    [(target, seed) for target in TARGETS for seed in seeds(target)],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_seed(target: str, seed: Path) -> None:
    TARGETS[target](seed.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_inputs_each_time(target: str) -> None:
    rng = random.Random(target)
    inputs = [seed.read_bytes() for seed in seeds(target)]
    for _ in range(RUNS):
        data = changed(rng, inputs)
        try:
            TARGETS[target](data)
        except BaseException as error:
            error.add_note(f"{target}({data!r})")
            raise


def test_each_target_has_a_sentence_and_seeds() -> None:
    assert sorted(TARGETS) == sorted(path.name for path in SEEDS.iterdir())
    for target in TARGETS.values():
        assert str(inspect.getdoc(target)).endswith(".")


def _any_field_line(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(http11, "_FIELD_LINE", re.compile(r"(.*?):(.*)"))


def _any_answer_is_agreed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PerMessageDeflate, "agree", lambda self, answers: PerMessageDeflate().agree(answers))


def _the_offer_does_not_bind(patch: pytest.MonkeyPatch) -> None:
    accept = PerMessageDeflate._accept
    patch.setattr(PerMessageDeflate, "_accept", lambda self, _: accept(self, deflate._Parsed()))


def _reserved_bits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(frames, "_RSV", 0)


def _the_window_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeflateParameters, "no_context_takeover", lambda self, sender: True)


def _a_fragment_is_a_message(patch: pytest.MonkeyPatch) -> None:
    send = Connection._send_frame
    patch.setattr(
        Connection, "_send_frame", lambda self, first, payload: send(self, first | frames.FIN, payload)
    )


def _infinity_is_a_number(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(packet_json, "_JSON", json.JSONDecoder())


def _base64_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    decode = base64.b64decode
    patch.setattr(base64, "b64decode", lambda data, **_: decode(data + "=="))


@pytest.mark.parametrize(
    ("target", "plant"),
    [
        ("requests", _any_field_line),
        ("responses", _any_answer_is_agreed),
        ("extensions", _the_offer_does_not_bind),
        ("frames", _reserved_bits),
        ("deflate", _the_window_is_forgotten),
        ("messages", _a_fragment_is_a_message),
        ("packets", _infinity_is_a_number),
        ("payloads", _base64_is_not_checked),
    ],
)
def test_a_target_finds_a_flaw(target: str, plant: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = 0
    for seed in seeds(target):
        try:
            TARGETS[target](seed.read_bytes())
        except Exception:  # noqa: BLE001 - whatever the flaw leads to
            found += 1
    assert found
