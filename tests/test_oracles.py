"""wsproto and websockets as oracles. For each difference, a table cites the section that decides."""

import itertools
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame
from websockets.protocol import CLIENT, SERVER, Protocol
from websockets.protocol import State as WebsocketsState
from wsproto import ConnectionType
from wsproto import events as wsproto_events
from wsproto.connection import Connection as WsprotoConnection

from rfc6455 import (
    BinaryMessage,
    CloseReceived,
    Connection,
    ConnectionFailed,
    Opcode,
    Role,
    TextMessage,
)
from tests.helpers import feed, raw_frame
from tests.rules import RULES

LIMIT = 1 << 20


class Answer(NamedTuple):
    """The result of an implementation for some input."""

    messages: list[str | bytes]
    code: int | None
    """The code of the Close that it received or sent after a violation; None while it is open."""


def ours(role: Role, data: bytes) -> Answer:
    messages: list[str | bytes] = []
    code = None
    for event in feed(Connection(role, max_message_size=LIMIT), [data]):
        if isinstance(event, TextMessage | BinaryMessage):
            messages.append(event.data)
        elif isinstance(event, CloseReceived | ConnectionFailed):
            code = event.code
    return Answer(messages, code)


def wsproto(role: Role, data: bytes) -> Answer:
    connection = WsprotoConnection(ConnectionType.SERVER if role is Role.SERVER else ConnectionType.CLIENT)
    connection.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[str | bytes] = []
    code = None
    for event in connection.events():
        if isinstance(event, wsproto_events.TextMessage | wsproto_events.BytesMessage):
            piece = event.data if isinstance(event.data, str) else bytes(event.data)
            parts.append(piece)
            if event.message_finished:
                messages.append(type(piece)().join(parts))  # type: ignore[arg-type]
                parts.clear()
        elif isinstance(event, wsproto_events.CloseConnection):
            code = int(event.code)
    return Answer(messages, code)


def websockets(role: Role, data: bytes) -> Answer:
    protocol = Protocol(SERVER if role is Role.SERVER else CLIENT, state=WebsocketsState.OPEN, max_size=LIMIT)
    protocol.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    opcode = 0
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode >= Opcode.CLOSE:
            continue
        opcode = event.opcode or opcode
        parts.append(bytes(event.data))
        if event.fin:
            whole = b"".join(parts)
            parts.clear()
            messages.append(whole.decode("utf-8", "replace") if opcode == Opcode.TEXT else whole)
    if protocol.parser_exc is not None:
        close = protocol.close_sent
        return Answer(messages, close.code if close else None)
    return Answer(messages, protocol.close_rcvd.code if protocol.close_rcvd else None)


# (oracle, our slug) -> the section that decides. A test shows that the results differ for each entry.
DIFFERENCES = {
    (wsproto, "message-too-big"): "RFC 6455 §10.4: wsproto leaves the limit to its caller",
    (websockets, "bad-length"): "RFC 6455 §5.2: a length takes the shortest form",
    (
        websockets,
        "length-too-long",
    ): "RFC 6455 §5.2: the highest bit of 64 is 0, whatever the size limit",
    (
        websockets,
        "control-too-long",
    ): "RFC 6455 §5.5: we reject the extended form without waiting for the length",
    (websockets, "bad-utf8"): "RFC 6455 §8.1: websockets checks in the layer above its protocol class",
}


@pytest.mark.parametrize("oracle", [wsproto, websockets], ids=["wsproto", "websockets"])
@pytest.mark.parametrize(("role", "code", "slug", "data"), RULES)
def test_violations(oracle: object, role: Role, code: int, slug: str, data: bytes) -> None:
    answer = oracle(role, data)  # type: ignore[operator]
    assert ours(role, data).code == code
    if answer.code != code:
        assert (oracle, slug) in DIFFERENCES


@pytest.mark.parametrize(("oracle", "slug"), DIFFERENCES, ids=lambda value: getattr(value, "__name__", value))
def test_every_listed_difference_exists(oracle: object, slug: str) -> None:
    cases = [case.values for case in RULES if case.values[2] == slug]
    assert cases
    assert any(oracle(role, data).code != code for role, code, _, data in cases)  # type: ignore[operator]


@st.composite
def conversation(draw: st.DrawFn, role: Role) -> bytes:
    """Draws valid messages in fragments, with control frames between them, and perhaps a Close."""
    data = b""
    for _ in range(draw(st.integers(0, 5))):
        whole = draw(st.text(max_size=100).map(str.encode) | st.binary(max_size=300))
        try:
            whole.decode()
            first = draw(st.sampled_from([1, 2]))
        except UnicodeDecodeError:
            first = 2
        bounds = sorted({0, len(whole), *draw(st.lists(st.integers(0, len(whole)), max_size=4))})
        pieces = [whole[a:b] for a, b in itertools.pairwise(bounds)] or [b""]
        for index, piece in enumerate(pieces):
            fin = index == len(pieces) - 1
            data += raw_frame(role, 0 if index else first, piece, fin=fin)
            if draw(st.booleans()):
                data += raw_frame(role, draw(st.sampled_from([9, 10])), draw(st.binary(max_size=125)))
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1011, 3000, 4999]))
        data += raw_frame(role, 8, code.to_bytes(2, "big") + draw(st.text(max_size=30)).encode())
    return data


@given(st.data(), st.sampled_from(Role))
def test_valid_conversations(data: st.DataObject, role: Role) -> None:
    sent = data.draw(conversation(role))
    assert ours(role, sent) == wsproto(role, sent) == websockets(role, sent)
