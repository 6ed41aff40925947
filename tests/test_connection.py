"""The state machine, one rule at a time, for both roles."""

import functools
import random
import zlib
from collections import deque
from collections.abc import Callable

import pytest

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    ClientHandshake,
    CloseReceived,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    DeflateParameters,
    Event,
    LocalProtocolError,
    Opcode,
    Ping,
    Pong,
    PreparedMessage,
    Request,
    Role,
    ServerHandshake,
    State,
    TextFragment,
    TextMessage,
    encode_frame,
)
from tests.helpers import (
    ABNORMAL,
    DATA_OPCODES,
    KEY,
    both_roles,
    bytes_held,
    close_payload,
    feed,
    make_connection,
    measured,
    outcome,
    peak_bytes,
    raw_frame,
    sent_frames,
)
from tests.rules import RULES

TEXT, BINARY, CONTINUATION = Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION


@pytest.mark.parametrize(("role", "code", "slug", "data"), RULES)
def test_a_violation_fails_the_connection(role: Role, code: int, slug: str, data: bytes) -> None:
    events, sent = outcome(role, data)
    failed, closed = events
    assert isinstance(failed, ConnectionFailed)
    assert (failed.code, failed.error.slug, failed.error.code) == (code, slug, code)
    assert closed == ABNORMAL
    # The endpoint sends one Close, with the same code and reason, and nothing else.
    assert sent == [(0x88, close_payload(code, failed.reason.encode()))]


@pytest.mark.parametrize(("role", "code", "slug", "data"), RULES)
def test_messages_before_a_violation_are_delivered(role: Role, code: int, slug: str, data: bytes) -> None:
    good = raw_frame(role, TEXT, b"good") + raw_frame(role, 9, b"ping") + raw_frame(role, BINARY, b"too")
    connection = make_connection(role)
    connection.receive_data(good + data)
    seen = []
    for event in connection.events():
        seen.append(event)
        if isinstance(event, TextMessage | BinaryMessage):
            connection.send_binary(b"echo")  # still open: the violation has not been read yet
    assert seen[:3] == [TextMessage("good"), Ping(b"ping"), BinaryMessage(b"too")]
    assert isinstance(seen[3], ConnectionFailed)
    assert seen[4:] == [ABNORMAL]
    sent = sent_frames(role, connection.data_to_send())
    assert [first for first, _ in sent] == [0x82, 0x8A, 0x82, 0x88]


@both_roles
def test_after_a_failure_nothing_is_processed(role: Role) -> None:
    connection = make_connection(role)
    feed(connection, [raw_frame(role, 3)])
    assert connection.state is State.CLOSED
    assert connection.should_close
    assert not connection.close_expected
    connection.data_to_send()
    reply = raw_frame(role, 8, close_payload(1002)) + raw_frame(role, TEXT, b"more")
    assert feed(connection, [reply], eof=True) == []
    assert connection.data_to_send() == b""


# Valid messages.


@both_roles
def test_bad_utf8_is_reported_at_its_first_byte(role: Role) -> None:
    """RFC 6455 §8.1; the frame and the message are unfinished (Autobahn 6.4.3, 6.4.4)."""
    good, bad = "Hello-µ@ßöä".encode(), b"\xf4\x90"
    frame = raw_frame(role, TEXT, good + bad + b"\x80\x80edited", fin=False)
    header = len(frame) - len(good) - 10
    connection = make_connection(role)
    end = header + len(good) + 1
    assert feed(connection, [frame[:end]]) == []
    failed = feed(connection, [frame[end : end + 1]])[0]
    assert isinstance(failed, ConnectionFailed)
    assert failed.code == 1007


@both_roles
def test_fail_while_iterating_drops_the_remaining_events(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, TEXT, b"x") * 5)
    seen: list[Event] = []
    for event in connection.events():
        seen.append(event)
        if len(seen) == 2:
            connection.fail(1008)
    assert seen == [TextMessage("x"), TextMessage("x"), ABNORMAL]


@both_roles
def test_every_way_to_pull_returns_each_event_once(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(b"".join(raw_frame(role, TEXT, b"%d" % i) for i in range(9)))
    events = connection.events()
    pulled = [next(events), connection.next_event(), next(events), *connection.next_batch()]
    assert connection.next_batch() == deque()
    assert list(events) == []
    assert pulled == [TextMessage(str(i)) for i in range(9)]
    connection.receive_data(raw_frame(role, TEXT, b"9"))
    assert list(connection.events()) == [TextMessage("9")]


def test_data_received_with_the_handshake() -> None:
    connection = Connection(Role.SERVER, trailing_data=raw_frame(Role.SERVER, TEXT, b"early"))
    assert list(connection.events()) == [TextMessage("early")]


# Fragments: assemble=False.


@both_roles
def test_fragments_are_delivered_as_they_arrive(role: Role) -> None:
    connection = make_connection(role, assemble=False)
    frame = raw_frame(role, TEXT, b"ab\xe2\x82\xac")
    cut = len(frame) - 4
    assert feed(connection, [frame[:cut], frame[cut : cut + 2], frame[cut + 2 :]]) == [
        TextFragment("a", False),
        TextFragment("b", False),
        TextFragment("€", True),
    ]
    data = raw_frame(role, BINARY, b"ab", fin=False) + raw_frame(role, 9) + raw_frame(role, CONTINUATION)
    assert feed(connection, [data]) == [BinaryFragment(b"ab", False), Ping(b""), BinaryFragment(b"", True)]
    assert feed(connection, [raw_frame(role, BINARY)]) == [BinaryFragment(b"", True)]


@both_roles
def test_a_large_message_in_fragments_holds_at_most_one_read(role: Role) -> None:
    connection = make_connection(role, assemble=False, max_message_size=1 << 30)
    header = raw_frame(role, BINARY, length=64 << 20, key=b"\0\0\0\0")
    chunk = bytes(1 << 16)
    feed(connection, [header])
    with measured() as memory:
        total = 0
        for _ in range(1 << 10):
            connection.receive_data(chunk)
            for event in connection.events():
                assert isinstance(event, BinaryFragment)
                total += len(event.data)
                ended = event.final
        peak = memory.peak()
    assert total == 64 << 20
    assert ended
    assert peak < 1 << 20


@both_roles
def test_the_size_limit_applies_to_the_sum_of_fragments(role: Role) -> None:
    connection = make_connection(role, assemble=False, max_message_size=4)
    events = feed(
        connection, [raw_frame(role, BINARY, b"abc", fin=False) + raw_frame(role, CONTINUATION, b"de")]
    )
    assert events[0] == BinaryFragment(b"abc", False)
    assert isinstance(events[1], ConnectionFailed)
    assert events[1].code == 1009


# Control frames and floods.


@both_roles
def test_ten_pings_are_answered_by_ten_pongs(role: Role) -> None:
    connection = make_connection(role)
    events = feed(connection, [b"".join(raw_frame(role, 9, b"%d" % i) for i in range(10))])
    assert events == [Ping(b"%d" % i) for i in range(10)]
    assert sent_frames(role, connection.data_to_send()) == [(0x8A, b"%d" % i) for i in range(10)]


@both_roles
def test_control_frames_of_125_bytes(role: Role) -> None:
    payload = bytes(range(125))
    assert outcome(role, raw_frame(role, 9, payload)) == ([Ping(payload)], [(0x8A, payload)])
    assert outcome(role, raw_frame(role, 10, payload)) == ([Pong(payload)], [])


@both_roles
@pytest.mark.parametrize("opcode", [9, 10])
def test_a_flood_of_control_frames(role: Role, opcode: int) -> None:
    connection = make_connection(role, max_control_frames=3)
    frame = raw_frame(role, opcode)
    for _ in range(4):
        assert len(feed(connection, [frame * 3])) == 3
        connection.data_to_send()  # empties the queue
    events = feed(connection, [frame * 4])
    assert len(events) == 5
    assert isinstance(events[3], ConnectionFailed)
    assert (events[3].code, events[3].error.slug) == (1008, "control-frames")


@both_roles
def test_a_flood_of_empty_fragments(role: Role) -> None:
    connection = make_connection(role, max_empty_fragments=3)
    empty = raw_frame(role, CONTINUATION, fin=False)
    whole = raw_frame(role, TEXT, fin=False) + empty * 2 + raw_frame(role, CONTINUATION)
    assert feed(connection, [whole * 3]) == [TextMessage("")] * 3
    events = feed(connection, [raw_frame(role, TEXT, fin=False) + empty * 3])
    assert isinstance(events[0], ConnectionFailed)
    assert (events[0].code, events[0].error.slug) == (1008, "empty-fragments")


@pytest.mark.parametrize("name", ["max_message_size", "max_control_frames", "max_empty_fragments"])
def test_a_limit_is_at_least_one(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Connection(Role.SERVER, **{name: 0})  # type: ignore[arg-type]


@both_roles
def test_a_limit_of_one(role: Role) -> None:
    connection = Connection(role, max_message_size=1, max_control_frames=1, max_empty_fragments=1)
    empty = raw_frame(role, TEXT, fin=False)
    assert feed(connection, [empty + raw_frame(role, CONTINUATION, b"a")]) == [TextMessage("a")]
    assert feed(connection, [raw_frame(role, Opcode.PING)]) == [Ping(b"")]


# The closing handshake.

CLOSES = [
    (b"", 1005, "", b""),
    (close_payload(1000), 1000, "", close_payload(1000)),
    (close_payload(1001, "é€".encode()), 1001, "é€", close_payload(1001)),
    (close_payload(4999, b"x" * 123), 4999, "x" * 123, close_payload(4999)),
]


@both_roles
@pytest.mark.parametrize(("payload", "code", "reason", "reply"), CLOSES)
def test_the_peer_closes(role: Role, payload: bytes, code: int, reason: str, reply: bytes) -> None:
    connection = make_connection(role)
    received = CloseReceived(code, reason)
    closed = ConnectionClosed(code, reason, True)
    events = feed(connection, [raw_frame(role, 8, payload) + raw_frame(role, TEXT, b"after")])
    # RFC 6455 §7.1.1: a server closes TCP at once, a client waits for it.
    if role is Role.SERVER:
        assert events == [received, closed]
        assert (connection.should_close, connection.close_expected) == (True, False)
        assert feed(connection, [b"\xff"], eof=True) == []
    else:
        assert events == [received]
        assert (connection.should_close, connection.close_expected) == (False, True)
        assert feed(connection, [b"\xff"], eof=True) == [closed]
        assert (connection.should_close, connection.close_expected) == (True, False)
    assert connection.state is State.CLOSED
    assert sent_frames(role, connection.data_to_send()) == [(0x88, reply)]


@both_roles
def test_we_close(role: Role) -> None:
    connection = make_connection(role)
    connection.close(1001, "bye")
    assert connection.state is State.CLOSING
    assert (connection.should_close, connection.close_expected) == (False, True)
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1001, b"bye"))]
    # Messages in flight are delivered; a Ping is answered until the peer's Close (RFC 6455 §5.5.2).
    assert feed(connection, [raw_frame(role, TEXT, b"late") + raw_frame(role, 9, b"p")]) == [
        TextMessage("late"),
        Ping(b"p"),
    ]
    assert sent_frames(role, connection.data_to_send()) == [(0x8A, b"p")]
    events = feed(connection, [raw_frame(role, 8, close_payload(1001))], eof=True)
    assert events == [CloseReceived(1001, ""), ConnectionClosed(1001, "", True)]
    assert connection.data_to_send() == b""
    assert connection.should_close


def test_closes_that_cross() -> None:
    for role in Role:
        connection = make_connection(role)
        connection.receive_data(raw_frame(role, 8, close_payload(3000, b"mine")))
        connection.close(4000, "ours")  # before the peer's Close is pulled
        connection.receive_eof()
        assert list(connection.events()) == [
            CloseReceived(3000, "mine"),
            ConnectionClosed(3000, "mine", True),
        ]
        assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(4000, b"ours"))]


@both_roles
def test_close_is_sent_once(role: Role) -> None:
    connection = make_connection(role)
    connection.close()
    connection.close(1001)
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1000))]
    feed(connection, [raw_frame(role, 8)], eof=True)
    connection.close()
    connection.fail(1002)
    assert connection.data_to_send() == b""
    assert list(connection.events()) == []


@both_roles
def test_a_close_without_code(role: Role) -> None:
    connection = make_connection(role)
    connection.close(None)
    assert sent_frames(role, connection.data_to_send()) == [(0x88, b"")]


@both_roles
def test_a_close_inside_a_fragmented_message_is_answered(role: Role) -> None:
    data = raw_frame(role, TEXT, b"a", fin=False) + raw_frame(role, 8, close_payload(1000))
    connection = make_connection(role)
    assert feed(connection, [data], eof=True) == [CloseReceived(1000, ""), ConnectionClosed(1000, "", True)]
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1000))]


@both_roles
def test_we_close_inside_a_message_that_we_are_sending(role: Role) -> None:
    connection = make_connection(role)
    connection.send_text("a", fin=False)
    connection.close()
    with pytest.raises(LocalProtocolError):
        connection.send_text("b")
    assert [first for first, _ in sent_frames(role, connection.data_to_send())] == [0x01, 0x88]


@both_roles
@pytest.mark.parametrize(
    "before",
    [b"", "header", "payload", "message"],
    ids=["between frames", "in a header", "in a payload", "in a message"],
)
def test_eof_without_a_close_is_1006(role: Role, before: str) -> None:
    frame = raw_frame(role, TEXT, b"abc")
    data = {
        "": b"",
        "header": frame[:1],
        "payload": frame[:-1],
        "message": raw_frame(role, TEXT, fin=False),
    }
    connection = make_connection(role)
    assert feed(connection, [data.get(before, b"")], eof=True) == [ABNORMAL]
    assert connection.state is State.CLOSED
    assert connection.should_close
    assert connection.data_to_send() == b""
    assert list(connection.events()) == []


@both_roles
def test_eof_is_reported_after_the_received_messages(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, TEXT, b"last"))
    connection.receive_eof()
    assert connection.state is State.OPEN
    assert list(connection.events()) == [TextMessage("last"), ABNORMAL]


@both_roles
def test_eof_while_our_close_is_unanswered(role: Role) -> None:
    connection = make_connection(role)
    connection.close()
    assert feed(connection, [], eof=True) == [ABNORMAL]


@both_roles
def test_a_violation_while_our_close_is_unanswered(role: Role) -> None:
    connection = make_connection(role)
    connection.close()
    connection.data_to_send()
    failed, closed = feed(connection, [raw_frame(role, 3)])
    assert isinstance(failed, ConnectionFailed)
    assert closed == ABNORMAL
    assert connection.data_to_send() == b""


@both_roles
def test_we_fail_the_connection(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, TEXT, b"one") + raw_frame(role, TEXT, b"two"))
    assert connection.next_event() == TextMessage("one")
    connection.fail(1008, "policy")
    assert list(connection.events()) == [ABNORMAL]
    assert connection.should_close
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1008, b"policy"))]


@both_roles
def test_we_fail_the_connection_without_a_reason(role: Role) -> None:
    connection = make_connection(role)
    connection.fail(1011)
    assert sent_frames(role, connection.data_to_send()) == [(0x88, close_payload(1011))]


@both_roles
def test_data_after_eof_raises(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_eof()
    with pytest.raises(LocalProtocolError) as caught:
        connection.receive_data(b"x")
    assert caught.value.slug == "data-after-eof"


@both_roles
@pytest.mark.parametrize("answered", [True, False], ids=["after a Close", "without one"])
def test_data_after_eof_is_ignored_once_closed(role: Role, *, answered: bool) -> None:
    """What TCP had buffered when the connection ended is no misuse."""
    connection = make_connection(role)
    frames = [raw_frame(role, Opcode.CLOSE, close_payload(1000))] if answered else []
    events = feed(connection, frames, eof=True)
    assert events[-1] == (ConnectionClosed(1000, "", True) if answered else ABNORMAL)
    assert feed(connection, [b"x", raw_frame(role, TEXT, b"late")]) == []
    assert not connection.unread


@both_roles
@pytest.mark.parametrize("wrong", [5, "text", [1, 2], None], ids=repr)
def test_only_bytes_are_received(role: Role, wrong: object) -> None:
    """``bytes(5)`` would be five bytes."""
    connection = make_connection(role)
    for before in (b"", raw_frame(role, TEXT, b"ab")[:3]):
        connection.receive_data(before)
        with pytest.raises(TypeError):
            connection.receive_data(wrong)  # type: ignore[arg-type]
    given = ServerHandshake.from_request(Request("GET", "/"))
    for handshake in (ClientHandshake("a"), ServerHandshake(), given):
        with pytest.raises(TypeError):
            handshake.receive_data(wrong)  # type: ignore[arg-type]
    assert feed(connection, [raw_frame(role, TEXT, b"ab")[3:]]) == [TextMessage("ab")]


@both_roles
def test_every_kind_of_bytes_is_received(role: Role) -> None:
    frame = raw_frame(role, TEXT, b"ab")
    for kind in (bytes, bytearray, memoryview):
        for cut in (0, 3):
            connection = make_connection(role)
            connection.receive_data(kind(frame[:cut]))
            connection.receive_data(kind(frame[cut:]))
            assert connection.next_event() == TextMessage("ab")


# Sending.


@both_roles
def test_messages_are_sent(role: Role) -> None:
    connection = make_connection(role)
    connection.send_text("é€")
    connection.send_binary(bytearray(b"\xff"))
    connection.send_binary(memoryview(b"\xfe"))
    connection.send_ping(b"1")
    connection.send_ping()
    connection.send_pong(b"2")
    connection.send_pong()
    expected = [(0x81, "é€".encode()), (0x82, b"\xff"), (0x82, b"\xfe")]
    expected += [(0x89, b"1"), (0x89, b""), (0x8A, b"2"), (0x8A, b"")]
    assert sent_frames(role, connection.data_to_send()) == expected
    assert connection.data_to_send() == b""


@both_roles
@pytest.mark.parametrize("opcode", DATA_OPCODES)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_every_length_form_is_sent(role: Role, opcode: Opcode, size: int) -> None:
    connection = make_connection(role)
    if opcode is TEXT:
        connection.send_text("x" * size)
    else:
        connection.send_binary(b"x" * size)
    key = KEY if role is Role.CLIENT else None
    assert connection.data_to_send() == encode_frame(opcode, b"x" * size, mask_key=key)


@both_roles
@pytest.mark.parametrize("size", [0, 125, 126, 4095, 4096, 65535, 65536])
def test_buffers_to_send_returns_the_bytes_of_data_to_send(role: Role, size: int) -> None:
    joined, separate = make_connection(role), make_connection(role)
    for connection in (joined, separate):
        connection.send_text("x" * size)
        connection.send_binary(bytes(size))
        connection.send_ping(b"?")
    assert b"".join(separate.buffers_to_send()) == joined.data_to_send()
    assert separate.buffers_to_send() == []
    assert separate.data_to_send() == b""


def test_buffers_of_a_large_message_are_not_copied() -> None:
    payload = bytes(100_000)
    connection = make_connection(Role.SERVER)
    connection.send_binary(payload)
    assert any(buffer is payload for buffer in connection.buffers_to_send())


@both_roles
def test_buffers_to_send_resets_the_count_of_control_frames(role: Role) -> None:
    connection = make_connection(role, max_control_frames=2)
    for _ in range(10):
        assert feed(connection, [raw_frame(role, Opcode.PING) * 2]) == [Ping(b"")] * 2
        connection.buffers_to_send()
    assert connection.state is State.OPEN


@both_roles
def test_messages_are_sent_in_fragments(role: Role) -> None:
    connection = make_connection(role)
    connection.send_text("a", fin=False)
    connection.send_ping()
    connection.send_text("", fin=False)
    connection.send_text("b")
    connection.send_binary(b"c", fin=False)
    connection.send_binary(b"d", fin=True)
    connection.send_text("e")
    sent = sent_frames(role, connection.data_to_send())
    assert sent == [
        (0x01, b"a"), (0x89, b""), (0x00, b""), (0x80, b"b"), (0x02, b"c"), (0x80, b"d"), (0x81, b"e")
    ]  # fmt: skip


def test_a_prepared_message() -> None:
    connection = Connection(Role.SERVER)
    message = PreparedMessage("to many")
    connection.send_prepared(message)
    assert connection.data_to_send() == encode_frame(TEXT, b"to many")
    connection.send_text("a", fin=False)
    with pytest.raises(LocalProtocolError) as caught:
        connection.send_prepared(message)
    assert caught.value.slug == "unfinished-message"
    with pytest.raises(LocalProtocolError) as caught:
        Connection(Role.CLIENT).send_prepared(message)
    assert caught.value.slug == "not-masked"


@both_roles
def test_misuse_changes_nothing(role: Role) -> None:
    connection = make_connection(role)
    connection.send_text("a", fin=False)
    connection.data_to_send()
    misuses = [
        ("unfinished-message", lambda: connection.send_binary(b"")),
        ("bad-text", lambda: connection.send_text("\ud83d")),
        ("control-too-long", lambda: connection.send_ping(bytes(126))),
        ("control-too-long", lambda: connection.send_pong(bytes(126))),
        ("bad-close-code", lambda: connection.close(1005)),
        ("bad-close-code", lambda: connection.fail(1006)),
        ("control-too-long", lambda: connection.close(1000, "x" * 124)),
        ("bad-close-reason", lambda: connection.close(None, "x")),
    ]
    for slug, misuse in misuses:
        with pytest.raises(LocalProtocolError) as caught:
            misuse()  # type: ignore[no-untyped-call]
        assert caught.value.slug == slug
    assert connection.state is State.OPEN
    assert connection.data_to_send() == b""
    connection.send_text("b")
    assert sent_frames(role, connection.data_to_send()) == [(0x80, b"b")]


@both_roles
def test_the_wrong_type_is_a_type_error(role: Role) -> None:
    connection = make_connection(role)
    with pytest.raises(TypeError):
        connection.send_text(b"bytes")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        connection.send_binary("str")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        connection.send_binary(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a PreparedMessage, not int"):
        connection.send_prepared(5)  # type: ignore[arg-type]
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("wrong", [5, "server", None, State.OPEN], ids=repr)
def test_a_role_is_a_role(wrong: Role) -> None:
    with pytest.raises(TypeError, match="role must be a Role"):
        Connection(wrong)


@both_roles
def test_nothing_is_sent_after_a_close(role: Role) -> None:
    closing, closed = make_connection(role), make_connection(role)
    closing.close()
    feed(closed, [raw_frame(role, 8)], eof=True)
    for connection in (closing, closed):
        connection.data_to_send()
        calls: list[Callable[[], None]] = [
            functools.partial(connection.send_text, ""),
            functools.partial(connection.send_binary, b""),
            connection.send_ping,
            connection.send_pong,
        ]
        for call in calls:
            with pytest.raises(LocalProtocolError) as caught:
                call()
            assert caught.value.slug == "not-open"
        assert connection.data_to_send() == b""
    server = Connection(Role.SERVER)
    server.close()
    with pytest.raises(LocalProtocolError) as caught:
        server.send_prepared(PreparedMessage(""))
    assert caught.value.slug == "not-open"


def test_a_clients_frames_have_fresh_keys() -> None:
    """RFC 6455 §5.3: a fresh, unpredictable key for each frame."""
    connection = Connection(Role.CLIENT)
    for _ in range(1000):
        connection.send_binary(b"\0\0\0\0")
    data = connection.data_to_send()
    keys = {data[i + 2 : i + 6] for i in range(0, len(data), 10)}
    assert len(keys) >= 999
    connection = Connection(Role.CLIENT, mask_key_source=lambda: b"\1\2\3\4")
    connection.send_ping()
    assert connection.data_to_send() == b"\x89\x80\1\2\3\4"


# What a connection holds.


def ended(role: Role, frames: list[bytes], *, fail: bool = False, **options: object) -> Connection:
    """Returns a closed connection that has sent a message and received ``frames``."""
    connection = make_connection(role, **options)
    connection.send_text("x" * 1000)
    connection.data_to_send()
    feed(connection, frames)
    if fail:
        connection.fail(1008)
    else:
        connection.receive_eof()
    for _ in connection.events():
        pass
    connection.data_to_send()
    assert connection.state is State.CLOSED
    return connection


def compressed_message(role: Role) -> bytes:
    """Returns a compressed message of 20,000 random bytes, as the peer of ``role`` sends it."""
    peer = make_connection(
        Role.CLIENT if role is Role.SERVER else Role.SERVER, deflate=DeflateParameters(threshold=0)
    )
    peer.send_binary(random.Random(1).randbytes(20_000))
    return peer.data_to_send()


@both_roles
@pytest.mark.parametrize("fail", [True, False])
@pytest.mark.parametrize("case", ["part of a frame", "part of a message", "compression", "compressed part"])
def test_a_closed_connection_holds_no_data(role: Role, case: str, fail: bool) -> None:
    deflate = DeflateParameters() if "compress" in case else None
    frames = {
        "part of a frame": [raw_frame(role, BINARY, bytes(100_000))[:-1]],
        "part of a message": [raw_frame(role, TEXT, b"x" * 100_000, fin=False)],
        "compression": [compressed_message(role)],
        "compressed part": [compressed_message(role)[:-1]],
    }[case]
    # A compressor holds 256 KiB, a decompressor 40 KiB, the connection itself about 2 KB.
    assert bytes_held(lambda: ended(role, frames, fail=fail, deflate=deflate)) < 8000


@both_roles
@pytest.mark.parametrize("waits", [False, True])
def test_data_after_a_close_is_dropped(role: Role, waits: bool) -> None:
    """RFC 6455 §5.5.1. A client's connection is closed only by EOF, and stores no data until then."""
    close, more = raw_frame(role, 8, close_payload(1000)), raw_frame(role, BINARY, bytes(200_000))
    connection = make_connection(role)
    if waits:
        connection.receive_data(close)
        connection.receive_data(more)
    else:
        connection.receive_data(close + more)
    assert connection.unread
    assert connection.next_event() == CloseReceived(1000, "")

    def receive() -> None:
        for _ in range(10):
            connection.receive_data(more)
            assert not connection.unread

    assert peak_bytes(receive) < 10_000
    reader = connection._reader
    assert not reader._buffer
    assert not reader._incoming


@both_roles
def test_data_after_a_failure_is_dropped(role: Role) -> None:
    connection = make_connection(role)
    more = raw_frame(role, BINARY, bytes(200_000))
    feed(connection, [raw_frame(role, 3) + more])
    assert not connection.unread
    assert peak_bytes(lambda: connection.receive_data(more)) < 10_000
    assert not connection.unread


@both_roles
def test_a_failure_keeps_no_traceback(role: Role) -> None:
    """A traceback would keep the stack frames, and so the connection, alive as long as the event."""
    failed, _ = feed(make_connection(role), [raw_frame(role, 3)])
    assert isinstance(failed, ConnectionFailed)
    assert failed.error.__traceback__ is None


@both_roles
def test_unread_is_true_while_events_can_be_pulled(role: Role) -> None:
    connection = make_connection(role)
    assert not connection.unread
    connection.receive_data(raw_frame(role, TEXT, b"last") + raw_frame(role, TEXT, b"cut")[:-1])
    assert connection.unread
    assert connection.next_event() == TextMessage("last")
    assert connection.next_event() is None
    assert not connection.unread
    connection.receive_eof()
    assert connection.unread  # ConnectionClosed
    assert list(connection.events()) == [ABNORMAL]
    assert not connection.unread


@both_roles
def test_unread_at_the_end_of_a_closing_handshake(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, 8))
    connection.receive_eof()
    for _ in connection.events():
        assert connection.unread is (connection.state is not State.CLOSED)
    assert not connection.unread
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, TEXT, b"unread"))
    connection.fail(1008)
    assert not connection.unread  # the remaining events of `fail` are already parsed
    assert list(connection.events()) == [ABNORMAL]


@both_roles
def test_connections_without_events_share_one_empty_batch(role: Role) -> None:
    first, second = make_connection(role), make_connection(role)
    feed(first, [raw_frame(role, TEXT, b"x"), raw_frame(role, Opcode.PING)])
    assert first.next_batch() is second.next_batch()
    first.fail(1008)
    assert second.next_event() is None
    assert list(first.events()) == [ABNORMAL]


@both_roles
def test_unread_messages_are_parsed_together(role: Role) -> None:
    connection = make_connection(role)
    connection.receive_data(raw_frame(role, Opcode.PING))
    connection.receive_data(raw_frame(role, TEXT, b"x") * 10)
    assert list(connection.next_batch()) == [Ping(b"")]
    assert list(connection.next_batch()) == [TextMessage("x")] * 10


@both_roles
def test_the_size_of_a_batch(role: Role) -> None:
    frame = raw_frame(role, TEXT, b"x" * 10)
    connection = make_connection(role)
    connection.receive_data(frame * 10)
    assert (len(connection.next_batch()), connection.batch_size) == (10, 10 * len(frame))
    connection.receive_data(frame * 10)
    connection.next_event()
    # `batch_size` includes events that were pulled before.
    assert (len(connection.next_batch()), connection.batch_size) == (9, 10 * len(frame))
    connection.receive_data(raw_frame(role, TEXT, b"12", fin=False) + raw_frame(role, CONTINUATION, b"345"))
    assert (len(connection.next_batch()), connection.batch_size) == (1, 5)
    connection.receive_data(raw_frame(role, Opcode.PING, b"?"))
    assert (len(connection.next_batch()), connection.batch_size) == (1, 0)


@both_roles
def test_a_message_does_not_reset_the_count_of_control_frames(role: Role) -> None:
    connection = make_connection(role, max_control_frames=3)
    ping, message = raw_frame(role, Opcode.PING), raw_frame(role, TEXT, b"a", fin=False)
    fragments = message + raw_frame(role, CONTINUATION, b"b")
    events = feed(connection, [(ping + fragments) * 4])
    assert isinstance(events[-2], ConnectionFailed)
    assert [type(event) for event in events].count(Ping) == 3


@pytest.mark.parametrize("size", [0, 125, 126, 2047, 2048, 2049, 65535, 65536])
def test_large_payloads_are_queued_without_a_copy(size: int) -> None:
    payload = bytes(size)
    connection = Connection(Role.SERVER)
    for text in (True, False):
        if text:
            connection.send_text("\0" * size)
        else:
            connection.send_binary(payload)
        buffers = connection.buffers_to_send()
        assert len(buffers) == (1 if size < 2048 else 2)
    assert size < 2048 or buffers[1] is payload


@both_roles
@pytest.mark.parametrize("kind", [bytearray, memoryview])
@pytest.mark.parametrize("size", [100, 5000])
def test_queued_data_does_not_change_with_the_data_of_the_caller(role: Role, kind: type, size: int) -> None:
    data = bytearray(b"x" * size)
    connection = make_connection(role)
    connection.send_binary(data if kind is bytearray else memoryview(data))
    data[:] = b"y" * size
    assert sent_frames(role, connection.data_to_send()) == [(0x82, b"x" * size)]


@both_roles
def test_nothing_is_sent_after_eof(role: Role) -> None:
    """Neither side has sent a Close."""
    connection = make_connection(role)
    assert feed(connection, [], eof=True) == [ABNORMAL]
    calls: list[Callable[[], None]] = [
        functools.partial(connection.send_text, ""),
        functools.partial(connection.send_binary, b""),
    ]
    for call in calls:
        with pytest.raises(LocalProtocolError) as caught:
            call()
        assert caught.value.slug == "not-open"
    assert connection.data_to_send() == b""


@both_roles
def test_events_one_at_a_time(role: Role) -> None:
    connection = make_connection(role)
    begun, ping = raw_frame(role, TEXT, b"a", fin=False), raw_frame(role, Opcode.PING)
    connection.receive_data(begun + ping + raw_frame(role, CONTINUATION, b"b"))
    assert [connection.next_event() for _ in range(3)] == [Ping(b""), TextMessage("ab"), None]


@both_roles
def test_next_event_inflates_until_there_is_an_event(role: Role) -> None:
    connection = make_connection(role, deflate=DeflateParameters(), max_message_size=1 << 22)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = compressor.compress(bytes(1 << 22)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    frame = raw_frame(role, BINARY, payload[:-4], rsv=4)
    connection.receive_data(frame)
    assert not connection.next_batch()
    assert connection.yielded
    assert connection.next_event() == BinaryMessage(bytes(1 << 22))
    assert connection.next_event() is None


@both_roles
def test_the_example_of_rfc_7692_is_sent(role: Role) -> None:
    deflate = DeflateParameters(threshold=0)
    connection = make_connection(role, deflate=deflate)
    connection.send_text("Hello")
    connection.send_text("Hello")
    # RFC 7692 §7.2.3.1, §7.2.3.2: whole, and by the window of the message before.
    sent = [b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"]
    assert sent_frames(role, connection.data_to_send()) == [(0xC1, payload) for payload in sent]


@both_roles
def test_each_end_compresses_by_its_own_window(role: Role) -> None:
    far = random.Random(1).randbytes(600) * 2  # the second half refers further back than 9 bits reach
    of_server = DeflateParameters(threshold=0, server_max_window_bits=9)
    of_client = DeflateParameters(threshold=0, client_max_window_bits=9)
    sizes = []
    for deflate in (of_server, of_client):
        connection = make_connection(role, deflate=deflate)
        connection.send_binary(far)
        sizes.append(len(connection.data_to_send()))
    own, other = sizes if role is Role.SERVER else reversed(sizes)
    assert own > 1200
    assert other < 700


def test_a_prepared_message_is_compressed_once_for_many() -> None:
    deflate = DeflateParameters(server_no_context_takeover=True)
    message = PreparedMessage("to many " * 20)
    members = [Connection(Role.SERVER, deflate=deflate) for _ in range(2)]
    for member in members:
        member.send_prepared(message)
    first, second = (member.data_to_send() for member in members)
    assert first is second


@pytest.mark.parametrize("forgets", [False, True])
def test_a_prepared_message_is_compressed(*, forgets: bool) -> None:
    deflate = DeflateParameters(server_no_context_takeover=forgets)
    server, client = Connection(Role.SERVER, deflate=deflate), Connection(Role.CLIENT, deflate=deflate)
    text = "to many " * 20
    for _ in range(2):
        server.send_prepared(PreparedMessage(text))
    data = server.data_to_send()
    first, second = sent_frames(Role.SERVER, data)
    assert first[0] == second[0] == 0xC1
    assert (len(second[1]) < len(first[1])) is not forgets  # by the window of the message before
    assert feed(client, [data]) == [TextMessage(text)] * 2


@pytest.mark.parametrize("size", [127, 128, 5000])
def test_a_server_with_compression_compresses_from_the_threshold_on(size: int) -> None:
    connection = Connection(Role.SERVER, deflate=DeflateParameters(threshold=128))
    connection.send_text("x" * size)
    connection.send_text("x" * size, fin=False)
    connection.send_text("x" * size)
    connection.send_text("x" * size)
    firsts = [first for first, _ in sent_frames(Role.SERVER, connection.data_to_send())]
    # The size of a fragmented message is not known in advance.
    whole = 0xC1 if size >= 128 else 0x81
    assert firsts == [whole, 0x41, 0x80, whole]


@both_roles
def test_the_payload_of_a_ping_or_pong_is_bytes(role: Role) -> None:
    connection = make_connection(role)
    with pytest.raises(TypeError):
        connection.send_ping("abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        connection.send_pong(5)  # type: ignore[arg-type]
    assert connection.data_to_send() == b""
    connection.send_ping(memoryview(b"abcd").cast("I"))  # type: ignore[arg-type]
    connection.send_pong(bytearray(b"x"))  # type: ignore[arg-type]
    assert sent_frames(role, connection.data_to_send()) == [(0x89, b"abcd"), (0x8A, b"x")]


@both_roles
@pytest.mark.parametrize("deflate", [None, DeflateParameters()])
def test_a_failure_keeps_no_stack_alive(role: Role, deflate: DeflateParameters | None) -> None:
    connection = make_connection(role, deflate=deflate)
    rsv, payload = (0, b"\xff") if deflate is None else (4, b"\xff\xff\xff")
    failed, _ = feed(connection, [raw_frame(role, TEXT, payload, rsv=rsv)])
    assert isinstance(failed, ConnectionFailed)
    assert failed.code == 1007
    assert (failed.error.__traceback__, failed.error.__context__) == (None, None)
