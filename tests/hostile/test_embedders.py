"""Programs that use the codec, and what they get wrong."""

from dataclasses import fields
from functools import partial
from typing import Any, cast

import pytest

from rfc6455 import (
    ClientHandshake,
    Connection,
    Headers,
    Opcode,
    PerMessageDeflate,
    Request,
    Role,
    ServerHandshake,
    TextMessage,
)
from rfc6455_server.limits import Limits
from tests.helpers import both_roles, make_connection, raw_frame
from tests.hostile.flaws import flaw
from tests.hostile.test_handshake_input import FIELDS


def accept(**options: Any) -> Connection:
    """Returns the connection of a handshake with ``options``."""
    handshake = ServerHandshake(**options)
    handshake.receive_data(Request("GET", "/", Headers(FIELDS.items())).encode())
    handshake.next_event()
    return handshake.accept()


@flaw(
    "CVE-2026-44545",
    "found here",
    what="sends anything to a program whose limits are NaN, which nothing exceeds, or no ints: bytes raise",
    here="`TypeError` or `ValueError` in the call of the program, never in the one that takes bytes",
)
@pytest.mark.parametrize("value", [None, True, 1.5, float("nan"), float("inf"), "5", -1])
def test_limits_that_are_none(value: Any) -> None:
    for make in (partial(Connection, Role.SERVER), partial(ClientHandshake, "a"), accept):
        for name in ("max_message_size", "max_control_frames", "max_empty_fragments"):
            with pytest.raises((TypeError, ValueError), match=name):
                make(**{name: value})
    for name in ("max_line_size", "max_fields", "max_head_size"):
        with pytest.raises((TypeError, ValueError), match=name):
            ServerHandshake(**{name: value})
        with pytest.raises((TypeError, ValueError), match=name):
            ClientHandshake("a", limits=cast("Any", {name: value}))
    with pytest.raises((TypeError, ValueError), match="max_early_data"):
        ServerHandshake(max_early_data=value)
    for name in ("server_max_window_bits", "client_max_window_bits", "level", "memory_level", "threshold"):
        with pytest.raises((TypeError, ValueError), match=name):
            PerMessageDeflate(**{name: value})
    for field in fields(Limits):
        if field.type is int:
            with pytest.raises((TypeError, ValueError), match=f"{field.name}|not supported"):
                Limits(**{field.name: value})


@flaw(
    "found here",
    what="sends so that data ends inside a frame or a head, to a program that passes on views with gaps",
    here="these views are taken always; it depended on what the peer had sent before",
)
@both_roles
def test_views_with_gaps(role: Role) -> None:
    def spread(data: bytes) -> memoryview:
        return memoryview(bytes(octet for pair in zip(data, data, strict=True) for octet in pair))[::2]

    frame = raw_frame(role, Opcode.TEXT, b"Hello")
    connection = make_connection(role)
    for part in (frame[:1], frame[1:3], frame[3:], frame):
        connection.receive_data(spread(part))
    assert list(connection.events()) == [TextMessage("Hello")] * 2
    request = Request("GET", "/", Headers(FIELDS.items()))
    given = ServerHandshake.from_request(request)
    parsed = ServerHandshake()
    parsed.receive_data(spread(request.encode()))
    for handshake in (given, parsed):
        early = raw_frame(Role.SERVER, Opcode.TEXT, b"early")
        handshake.receive_data(spread(early[:2]))
        handshake.receive_data(spread(early[2:]))
        assert isinstance(handshake.next_event(), Request)
        assert list(handshake.accept().events()) == [TextMessage("early")]


@flaw(
    "found here",
    what="asks for a WebSocket whose handler gives a wrong limit, and neither 101 nor an error can be sent",
    here="nothing has changed when `accept` raises: the request can still be rejected",
)
def test_accepting_with_a_wrong_limit_changes_nothing() -> None:
    handshake = ServerHandshake()
    handshake.receive_data(Request("GET", "/", Headers(FIELDS.items())).encode())
    assert isinstance(handshake.next_event(), Request)
    with pytest.raises(ValueError, match="max_message_size"):
        handshake.accept(max_message_size=0)
    assert handshake.data_to_send() == b""
    handshake.reject(500)
    assert handshake.data_to_send().startswith(b"HTTP/1.1 500 ")
