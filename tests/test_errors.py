"""The exceptions: what each has, and copies of it."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from rfc6455 import (
    CloseCode,
    HandshakeError,
    Headers,
    LocalProtocolError,
    RemoteProtocolError,
    Response,
    WebSocketError,
)
from rfc6455_server import (
    ConnectionClosedError,
    HandshakeRejectedError,
    LimitExceededError,
)
from rfc6455_server.listening.proxy import ProxyHeaderError
from rfc6455_server.socketio import AckTimeoutError, ConnectError, EventError
from rfc6455_server.socketio.engine_packets import EngineError
from rfc6455_server.socketio.packet_json import PacketError
from rfc6455_server.socketio.recovery import MissedEventsDroppedError
from rfc6455_server.socketio.sockets import DisconnectedError
from rfc6455_server.socketio.typed.problems import InvalidDataError, Problem


def test_every_error_has_the_common_base_class_and_a_slug() -> None:
    for error in (
        LocalProtocolError("why", slug="some-slug"),
        RemoteProtocolError("why", slug="some-slug"),
        HandshakeError("why", slug="some-slug"),
    ):
        assert isinstance(error, WebSocketError)
        assert error.slug == "some-slug"
        assert str(error) == "why"


def test_the_default_code_of_a_remote_error_is_1002() -> None:
    assert RemoteProtocolError("why", slug="s").code is CloseCode.PROTOCOL_ERROR
    assert RemoteProtocolError("why", slug="s", code=CloseCode.MESSAGE_TOO_BIG).code == 1009


def test_the_default_status_of_a_handshake_error_is_400() -> None:
    assert (HandshakeError("why", slug="s").status, HandshakeError("why", slug="s").headers) == (400, ())
    error = HandshakeError("why", slug="s", status=405, headers=(("Allow", "GET"),))
    assert (error.status, error.headers) == (405, (("Allow", "GET"),))


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda error: pickle.loads(pickle.dumps(error)),
    "pickle, 0": lambda error: pickle.loads(pickle.dumps(error, 0)),
    "pickle, 1": lambda error: pickle.loads(pickle.dumps(error, 1)),
    "pickle, 2": lambda error: pickle.loads(pickle.dumps(error, 2)),
}

ERRORS: list[WebSocketError] = [
    LocalProtocolError("why", slug="some-slug"),
    RemoteProtocolError("why", slug="some-slug", code=CloseCode.MESSAGE_TOO_BIG),
    HandshakeError("why", slug="some-slug", status=405, headers=(("Allow", "GET"),)),
    ConnectionClosedError(1001, "going", clean=True),
    HandshakeRejectedError(Response(403, Headers([("A", "b"), ("A", "c")]), "No")),
    LimitExceededError("too many"),
    ProxyHeaderError("none"),
    EngineError("why", slug="some-slug"),
    PacketError("why", slug="some-slug"),
    DisconnectedError("transport close"),
    MissedEventsDroppedError(),
]
# These have no slug: they derive from other classes.
OTHER_ERRORS: list[Exception] = [
    AckTimeoutError([1, "a"]),
    ConnectError("no", {"a": 1}),
    EventError("no"),
    InvalidDataError("wrong", [Problem("a.b", "got a number", "string")], more=True),
]


@pytest.mark.parametrize("make_copy", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("error", [*ERRORS, *OTHER_ERRORS], ids=lambda error: type(error).__name__)
def test_a_copy_has_everything(error: Exception, make_copy: Callable[[Any], Any]) -> None:
    error.add_note("a note")
    copied = make_copy(error)
    assert copied is not error
    assert type(copied) is type(error)
    assert (str(copied), copied.args, vars(copied)) == (str(error), error.args, vars(error))


def test_the_copies_are_tested_for_every_error_class() -> None:
    classes = [WebSocketError]
    for one in classes:
        classes += [more for more in one.__subclasses__() if more.__module__.startswith("rfc6455")]
    assert set(classes) - {WebSocketError} == set(map(type, ERRORS))
    assert all("slug" in vars(error) for error in ERRORS)
