"""Close codes and reasons."""

import pytest

from rfc6455 import CloseReceived, Connection, ConnectionFailed, LocalProtocolError, Opcode, Role, State
from tests.helpers import both_roles, close_payload, feed, make_connection, raw_frame, sent_frames
from tests.hostile.flaws import flaw

WRONG_TYPES: list[tuple[object, object]] = [
    (1000, b"bytes"),
    (1000, bytearray(100)),
    (1000, memoryview(b"view")),
    (1000, 5),
    (1000, 123456789),
    (1000, None),
    (1000, ["a"]),
    (1000, object()),
    (None, b""),
    ("1000", ""),
    (b"\x03\xe8", ""),
    (1000.0, ""),
    (3000.5, ""),
    ([], ""),
]


@flaw(
    "CVE-2026-45736",
    what="makes an application pass on a reason of another type, which sends memory that was never written",
    here="`TypeError` before anything has changed; the connection stays open",
)
@pytest.mark.parametrize(("code", "reason"), WRONG_TYPES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("method", [Connection.close, Connection.fail], ids=["close", "fail"])
@both_roles
def test_a_reason_of_another_type(role: Role, method: object, code: object, reason: object) -> None:
    connection = make_connection(role)
    with pytest.raises(TypeError, match="a Close has an int and a str"):
        method(connection, code, reason)  # type: ignore[operator]
    assert connection.state is State.OPEN
    assert connection.data_to_send() == b""


@flaw(
    what="makes an application echo a reason that is too long or has a surrogate, and the Close is malformed",
    here="`LocalProtocolError` before anything has changed",
)
@pytest.mark.parametrize("reason", ["a" * 124, "안" * 42, "\ud800"], ids=["124", "126", "surrogate"])
@both_roles
def test_a_reason_that_does_not_fit(role: Role, reason: str) -> None:
    connection = make_connection(role)
    for call in (connection.close, connection.fail):
        with pytest.raises(LocalProtocolError):
            call(1000, reason)
    assert (connection.state, connection.data_to_send()) == (State.OPEN, b"")
    connection.close(1000, "안" * 41)
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1000, ("안" * 41).encode()))]


@flaw(
    what="sends a Close with a code that must not be on the wire, half a code, or a reason that is not UTF-8",
    here="1002, or 1007 for the reason; the application never sees either",
)
@pytest.mark.parametrize(
    ("payload", "code", "slug"),
    [
        (b"\x03", 1002, "bad-close-payload"),
        *(
            (close_payload(code), 1002, "bad-close-code")
            for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
        ),
        (close_payload(1000, b"\xff"), 1007, "bad-close-reason"),
        (close_payload(1000, b"\xed\xa0\x80"), 1007, "bad-close-reason"),
        (close_payload(1000, b"\xf4\x90\x80\x80"), 1007, "bad-close-reason"),
        (close_payload(1000, b"ab\xc3"), 1007, "bad-close-reason"),
        (close_payload(1000, b"\xc0\xaf"), 1007, "bad-close-reason"),
    ],
)
@both_roles
def test_malformed_closes(role: Role, payload: bytes, code: int, slug: str) -> None:
    connection = make_connection(role)
    failed, _ = feed(connection, [raw_frame(role, Opcode.CLOSE, payload)])
    assert isinstance(failed, ConnectionFailed)
    assert (failed.code, failed.error.slug) == (code, slug)
    ((first, answer),) = sent_frames(role, connection.data_to_send())
    assert (first, answer[:2]) == (0x88, close_payload(code))
    assert answer[2:] == failed.reason.encode()
    assert failed.reason.isascii()


@flaw(
    what="sends a Close again and again, each of which is answered",
    here="one Close is sent, whatever arrives and whatever is called",
)
@both_roles
def test_many_closes(role: Role) -> None:
    connection = make_connection(role)
    close = raw_frame(role, Opcode.CLOSE, close_payload(1001, b"bye"))
    events = feed(connection, [close * 10, close])
    connection.close(1000)
    connection.fail(1011, "late")
    events += connection.events()
    assert [event for event in events if isinstance(event, CloseReceived)] == [CloseReceived(1001, "bye")]
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1001))]
