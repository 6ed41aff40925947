"""Programs that use the codec, and what they get wrong."""

from dataclasses import fields
from functools import partial
from typing import Any, cast

import pytest

from rfc6455 import ClientHandshake, Connection, Headers, PerMessageDeflate, Request, Role, ServerHandshake
from rfc6455_server.limits import Limits
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
