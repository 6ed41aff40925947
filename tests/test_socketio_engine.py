import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfc6455 import State
from rfc6455_server.socketio.engine import (
    NOOP_INTERVAL,
    PACKET_COST,
    EngineEvent,
    EngineSession,
    Message,
    SessionClosed,
    Transport,
    TransportUpgraded,
    UpgradeFailed,
)
from rfc6455_server.socketio.engine_packets import (
    EngineError,
    EnginePacket,
    EnginePacketType,
    decode_packet,
    decode_payload,
    encode_packet,
    encode_payload,
)

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = EnginePacketType

# Each packet, as a WebSocket message and as part of a payload.
EXAMPLES: list[tuple[EnginePacket, str | bytes, str]] = [
    (EnginePacket(OPEN, '{"sid":"a"}'), '0{"sid":"a"}', '0{"sid":"a"}'),
    (EnginePacket(CLOSE), "1", "1"),
    (EnginePacket(PING), "2", "2"),
    (EnginePacket(PING, "probe"), "2probe", "2probe"),
    (EnginePacket(PONG, "probe"), "3probe", "3probe"),
    (EnginePacket(MESSAGE, "hello"), "4hello", "4hello"),
    (EnginePacket(MESSAGE, "€"), "4€", "4€"),
    (EnginePacket(MESSAGE), "4", "4"),
    (EnginePacket(MESSAGE, b"\x01\x02\x03\x04"), b"\x01\x02\x03\x04", "bAQIDBA=="),
    (EnginePacket(MESSAGE, b""), b"", "b"),
    (EnginePacket(UPGRADE), "5", "5"),
    (EnginePacket(NOOP), "6", "6"),
]


@pytest.mark.parametrize(("packet", "message", "part"), EXAMPLES, ids=lambda value: str(value)[:40])
def test_packets_are_encoded_and_decoded(packet: EnginePacket, message: str | bytes, part: str) -> None:
    assert encode_packet(packet) == message
    assert encode_packet(packet, binary=False) == part
    assert decode_packet(message) == decode_packet(part) == packet
    assert encode_payload([packet]) == part
    assert list(decode_payload(part)) == [packet]


def test_the_example_payload_of_the_specification() -> None:
    packets = [EnginePacket(MESSAGE, "hello"), EnginePacket(PING), EnginePacket(MESSAGE, "world")]
    assert encode_payload(packets) == "4hello\x1e2\x1e4world"
    assert list(decode_payload("4hello\x1e2\x1e4world")) == packets
    packets[1:] = [EnginePacket(MESSAGE, b"\x01\x02\x03\x04")]
    assert list(decode_payload("4hello\x1ebAQIDBA==")) == packets


def test_base64_may_contain_line_breaks_as_from_the_java_client() -> None:
    assert decode_packet("bAQID\nBA==\n") == EnginePacket(MESSAGE, b"\x01\x02\x03\x04")


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("", "bad-packet-type"),
        ("7", "bad-packet-type"),
        ("a", "bad-packet-type"),
        ("B", "bad-packet-type"),
        ("٤", "bad-packet-type"),
        (" 4", "bad-packet-type"),
        ("4a\x1e", "bad-packet-type"),
        ("\x1e4a", "bad-packet-type"),
        ("4a\x1e\x1e4b", "bad-packet-type"),
        ("bAQ", "bad-base64"),
        ("bAQ=", "bad-base64"),
        ("b=", "bad-base64"),
        ("bAQID=", "bad-base64"),
        ("bAQID==", "bad-base64"),
        ("bAQIDBA==AQ==", "bad-base64"),
        ("bA-_A", "bad-base64"),
        ("bAQ ==", "bad-base64"),
        ("bé===", "bad-base64"),
        ("6\x1e6\x1e6\x1e6", "too-many-packets"),
        ("\x1e" * 1000, "too-many-packets"),
    ],
)
def test_a_bad_payload_is_refused(text: str, slug: str) -> None:
    with pytest.raises(EngineError) as caught:
        list(decode_payload(text, max_packets=3))
    assert caught.value.slug == slug


def test_packets_that_cannot_be_encoded_raise() -> None:
    with pytest.raises(ValueError, match="only a MESSAGE"):
        encode_packet(EnginePacket(PING, b""))
    with pytest.raises(ValueError, match=r"U\+001E"):
        encode_payload([EnginePacket(MESSAGE, "a\x1e4b")])


def session(transport: Transport = "polling", now: float = 0.0, **options: Any) -> EngineSession:
    return EngineSession("sid", transport, now, **options)


def events(engine: EngineSession) -> list[EngineEvent]:
    return list(engine.events())


def poll(engine: EngineSession, now: float = 0.0) -> str | None:
    """Returns the body that answers a GET, or ``None`` if the GET waits."""
    engine.start_poll(now)
    return payload(engine)


def payload(engine: EngineSession) -> str | None:
    packets = engine.packets_to_send("polling")
    return encode_payload(packets) if packets else None


def written(engine: EngineSession) -> list[str | bytes]:
    """Returns what is sent on the WebSocket."""
    return [encode_packet(packet) for packet in engine.packets_to_send("websocket")]


def upgraded() -> EngineSession:
    """Returns a session that was upgraded from polling to a WebSocket."""
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.receive_message("5", 0.0)
    assert events(engine) == [TransportUpgraded()]
    assert not engine.sends_directly
    assert written(engine) == ["3probe"]
    assert engine.sends_directly
    return engine


@pytest.mark.parametrize(
    ("engine", "upgrades"),
    [(session(), ["websocket"]), (session(upgrades=False), []), (session("websocket"), [])],
)
def test_the_handshake_contains_the_settings(engine: EngineSession, upgrades: list[str]) -> None:
    packet = engine.handshake_packet()
    assert packet.type is OPEN
    assert json.loads(packet.data) == {
        "sid": "sid",
        "upgrades": upgrades,
        "pingInterval": 25000,
        "pingTimeout": 20000,
        "maxPayload": 1000000,
    }
    assert (engine.sid, engine.state) == ("sid", State.OPEN)


def test_the_times_of_the_handshake_are_whole_milliseconds() -> None:
    packet = session(ping_interval=0.3, ping_timeout=1.0015, max_payload=7).handshake_packet()
    settings = json.loads(packet.data)
    assert (settings["pingInterval"], settings["maxPayload"]) == (300, 7)
    assert isinstance(settings["pingTimeout"], int)


@pytest.mark.parametrize(
    "option",
    [
        {name: value}
        for name in ("ping_interval", "ping_timeout")
        for value in (0.0, float("inf"), float("nan"))
    ]
    + [
        {"upgrade_timeout": 0.0},
        {"close_timeout": -1.0},
        {"max_payload": 0},
        {"max_packets": 0},
    ],
    ids=str,
)
def test_invalid_times_and_limits_raise(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        session(**option)


# Messages over each transport.


def test_messages_over_a_websocket() -> None:
    engine = session("websocket")
    engine.receive_message("4hello", 1.0)
    engine.receive_message(b"\x00", 1.0)
    engine.receive_message("bAA==", 1.0)
    assert events(engine) == [Message("hello"), Message(b"\x00"), Message(b"\x00")]
    assert engine.sends_directly
    engine.send("a", b"b")
    engine.send("c")
    assert not engine.sends_directly
    assert engine.packets_to_send("polling") == []
    assert written(engine) == ["4a", b"b", "4c"]
    assert written(engine) == []
    assert engine.sends_directly
    assert engine.next_event() is None


def test_messages_over_polling() -> None:
    engine = session()
    engine.receive_payload("4héllo\x1ebAA==\x1e4".encode(), 0.0)
    assert events(engine) == [Message("héllo"), Message(b"\x00"), Message("")]
    assert poll(engine) is None
    assert payload(engine) is None
    engine.send("a", b"\x00")
    assert not engine.sends_directly
    assert written(engine) == []
    assert payload(engine) == "4a\x1ebAA=="
    # That GET is answered; later messages wait for the next GET.
    engine.send("b")
    assert payload(engine) is None
    assert poll(engine) == "4b"


def test_a_poll_response_exceeds_the_limit_only_for_a_single_packet() -> None:
    engine = session(max_payload=8)
    # 4aa U+001E bAA== are 3 + 1 + 5 bytes; 4€ U+001E 4aa are 4 + 1 + 3.
    engine.send("aa", b"\x00", "€", "aa", "x" * 20, "b")
    assert [poll(engine) for _ in range(6)] == ["4aa", "bAA==", "4€\x1e4aa", "4" + "x" * 20, "4b", None]
    assert engine.buffered == 0


def test_what_is_queued_counts_with_what_holds_it() -> None:
    engine = session()
    engine.send("aaa", b"1234")
    # Each with its digit and a separator, bytes as base64.
    assert engine.buffered == (5 + PACKET_COST) + (10 + PACKET_COST)
    assert poll(engine) == "4aaa\x1ebMTIzNA=="
    assert engine.buffered == 0


def test_a_text_with_a_separator_is_not_sent() -> None:
    engine = session("websocket")
    with pytest.raises(ValueError, match=r"U\+001E"):
        engine.send("a", "b\x1e4c")
    with pytest.raises(UnicodeEncodeError):
        engine.send("\ud800")
    assert written(engine) == []


# The heartbeat.


def test_a_ping_is_due_one_interval_after_the_opening_and_after_each_pong() -> None:
    engine = session("websocket", 100.0)
    assert engine.next_deadline == 125.0
    engine.check_deadlines(124.9)
    assert written(engine) == []
    engine.check_deadlines(125.0)
    assert written(engine) == ["2"]
    assert engine.next_deadline == 145.0
    engine.check_deadlines(144.9)
    engine.receive_message("3", 144.9)
    assert engine.next_deadline == 144.9 + 25.0
    engine.check_deadlines(170.0)
    assert written(engine) == ["2"]
    assert events(engine) == []


def test_the_pong_timeout_starts_when_a_late_ping_is_sent() -> None:
    engine = session("websocket")
    engine.check_deadlines(40.0)
    assert engine.next_deadline == 60.0


@pytest.mark.parametrize("message", ["3", "4hello", None])
def test_a_pong_at_its_deadline_is_too_late_and_other_messages_do_not_replace_it(message: str | None) -> None:
    engine = session("websocket")
    engine.check_deadlines(25.0)
    engine.receive_message("4a", 44.9)
    assert events(engine) == [Message("a")]
    if message is None:
        engine.check_deadlines(45.0)
    else:
        engine.receive_message(message, 45.0)
    assert events(engine) == [SessionClosed("ping timeout")]
    assert engine.state is State.CLOSED
    assert engine.next_deadline is None
    engine.check_deadlines(100.0)
    assert events(engine) == []


def test_pings_over_polling() -> None:
    engine = session()
    assert poll(engine) is None
    engine.receive_payload(b"4a", 25.0)  # any call notices that the ping is due
    assert payload(engine) == "2"
    engine.receive_payload(b"3", 30.0)
    assert engine.next_deadline == 55.0
    # A client that does not fetch its ping times out.
    engine.check_deadlines(55.0)
    engine.check_deadlines(75.0)
    assert events(engine) == [Message("a"), SessionClosed("ping timeout")]


def test_a_late_poll_is_answered_with_a_close() -> None:
    engine = session()
    engine.check_deadlines(25.0)
    assert poll(engine, 45.0) == "1"
    assert events(engine) == [SessionClosed("ping timeout")]


# Violations.


@pytest.mark.parametrize("engine_of", [lambda: session("websocket"), session, upgraded])
@pytest.mark.parametrize("packet", ["0", "2", "2probe", "3", "3probe", "5", "6", "7", "", "bA"])
def test_an_unexpected_packet_ends_the_session(engine_of: Any, packet: str) -> None:
    engine = engine_of()
    if engine.transport == "websocket":
        engine.receive_message(packet, 0.0)
    else:
        engine.receive_payload(packet.encode(), 0.0)
    assert events(engine) == [SessionClosed("parse error")]
    assert engine.state is State.CLOSED
    assert written(engine) == []
    assert engine.packets_to_send("polling") == []


@pytest.mark.parametrize("body", [b"\xff", b"4\xed\xa0\x80", b"4a\x1e" * 3 + b"4a"])
def test_a_bad_body_ends_the_session_and_the_waiting_get(body: bytes) -> None:
    engine = session(max_packets=3)
    assert poll(engine) is None
    engine.receive_payload(body, 0.0)
    assert payload(engine) == "1"
    assert payload(engine) is None
    assert events(engine) == [SessionClosed("parse error")]


def test_a_second_pong_ends_the_session() -> None:
    engine = session()
    engine.check_deadlines(25.0)
    engine.receive_payload(b"3\x1e3", 26.0)
    assert events(engine) == [SessionClosed("parse error")]


def test_a_pong_that_may_be_unread_is_not_overdue_and_the_client_still_gets_pings() -> None:
    engine = session("websocket")
    engine.check_deadlines(25.0)
    engine.held_back = True
    assert written(engine) == ["2"]
    engine.check_deadlines(45.0)
    assert written(engine) == ["2"]
    assert events(engine) == []
    engine.read_on(80.0)
    assert engine.next_deadline == 100.0
    engine.receive_message("3", 81.0)
    engine.receive_message("3", 81.0)
    assert engine.next_deadline == 106.0
    engine.receive_message("3", 82.0)
    assert events(engine) == [SessionClosed("parse error")]


def test_a_ping_passes_what_waits_and_its_pong_may_be_given_more_time() -> None:
    engine = session(ping_interval=25.0, ping_timeout=20.0)
    engine.send("a" * 100, "b")
    engine.check_deadlines(25.0)
    assert poll(engine, 25.0) == "2\x1e4" + "a" * 100 + "\x1e4b"
    assert not engine.is_pong_overdue(44.9)
    assert engine.is_pong_overdue(45.0)
    engine.extend_pong(45.0)
    assert not engine.is_pong_overdue(45.0)
    engine.check_deadlines(64.9)
    assert events(engine) == []
    engine.check_deadlines(65.0)
    assert events(engine) == [SessionClosed("ping timeout")]
    assert not engine.is_pong_overdue(100.0)


def test_a_pong_that_is_not_due_has_no_time_to_extend() -> None:
    engine = session()
    engine.extend_pong(10.0)
    assert engine.next_deadline == 25.0
    assert not engine.is_pong_overdue(25.0)


def test_a_client_that_polls_and_does_not_fetch_its_ping_is_gone_though_it_is_not_read() -> None:
    engine = session()
    engine.held_back = True
    engine.check_deadlines(25.0)
    engine.check_deadlines(45.0)
    assert events(engine) == [SessionClosed("ping timeout")]


def test_a_session_that_is_read_again_has_no_pong_due_without_a_ping() -> None:
    engine = session()
    engine.held_back = True
    engine.read_on(10.0)
    assert engine.next_deadline == 25.0


def test_the_packets_of_a_payload_are_decoded_in_their_turns() -> None:
    engine = session()
    packets = engine.start_payload(b"4a\x1e4b\x1e9\x1e4c", 0.0)
    engine.receive_packet(next(packets), 0.0)
    assert events(engine) == [Message("a")]
    for packet in packets:
        engine.receive_packet(packet, 0.0)
    assert events(engine) == [Message("b"), SessionClosed("parse error")]


def test_messages_before_a_violation_are_delivered() -> None:
    engine = session()
    engine.receive_payload(b"4a\x1e6\x1e4b", 0.0)
    assert events(engine) == [Message("a"), SessionClosed("parse error")]


def test_a_second_get_ends_the_session_and_the_first_get() -> None:
    engine = session()
    assert poll(engine) is None
    with pytest.raises(EngineError) as caught:
        engine.start_poll(0.0)
    assert caught.value.slug == "poll-overlap"
    assert payload(engine) == "1"
    assert events(engine) == [SessionClosed("transport error")]


# The end.


def test_the_client_closes_over_polling() -> None:
    engine = session()
    assert poll(engine) is None
    engine.receive_payload(b"4a\x1e1\x1e4b", 0.0)
    assert events(engine) == [Message("a"), SessionClosed("transport close")]
    assert payload(engine) == "6"


def test_the_client_closes_over_a_websocket() -> None:
    engine = session("websocket")
    engine.receive_message("1", 0.0)
    engine.receive_message("4a", 0.0)
    engine.lose_websocket()
    assert events(engine) == [SessionClosed("transport close")]


def test_the_websocket_is_lost() -> None:
    engine = session("websocket")
    engine.lose_websocket()
    assert events(engine) == [SessionClosed("transport close")]
    engine = session("websocket")
    engine.lose_websocket("too slow")
    assert events(engine) == [SessionClosed("too slow")]


def test_a_waiting_get_is_lost() -> None:
    engine = session()
    engine.lose_poll()
    assert events(engine) == []
    assert poll(engine) is None
    engine.lose_poll()
    assert events(engine) == [SessionClosed("transport error")]
    assert payload(engine) is None


def test_a_closed_session_accepts_nothing() -> None:
    engine = session("websocket")
    engine.send("a")
    engine.fail()
    engine.fail("again")
    engine.close(0.0)
    engine.receive_message("4a", 0.0)
    assert events(engine) == [SessionClosed("transport error")]
    assert (written(engine), engine.buffered, engine.sends_directly) == ([], 0, False)
    calls: list[Callable[[], object]] = [
        lambda: engine.send("a"),
        lambda: engine.start_poll(0.0),
        lambda: engine.receive_payload(b"4a", 0.0),
    ]
    for call in calls:
        with pytest.raises(EngineError) as caught:
            call()
        assert caught.value.slug == "closed"


def test_the_server_closes_over_a_websocket_after_the_queue_is_sent() -> None:
    engine = session("websocket")
    engine.send("a")
    engine.close(0.0)
    engine.close(5.0)
    assert (engine.state, engine.next_deadline) == (State.CLOSING, 30.0)
    assert events(engine) == []
    with pytest.raises(EngineError) as caught:
        engine.send("b")
    assert caught.value.slug == "closed"
    engine.receive_message("4ignored", 1.0)
    assert written(engine) == ["4a"]
    assert events(engine) == [SessionClosed("forced close")]
    assert engine.state is State.CLOSED


def test_the_server_closes_over_polling_after_the_last_packet_of_the_queue() -> None:
    engine = session(max_payload=5)
    engine.send("aaaa", "b", "c")
    engine.close(0.0)
    assert poll(engine) == "4aaaa"
    engine.receive_payload(b"4ignored\x1e3", 0.0)
    # In one payload with them, the CLOSE would make the official client drop the messages before it.
    assert [poll(engine) for _ in range(2)] == ["4b\x1e4c", "1"]
    assert events(engine) == [SessionClosed("forced close")]
    with pytest.raises(EngineError):
        engine.start_poll(0.0)


def test_the_server_closes_while_a_get_waits() -> None:
    engine = session()
    assert poll(engine) is None
    engine.close(0.0)
    assert payload(engine) == "1"


def test_a_closing_session_ends_after_the_close_timeout() -> None:
    engine = session(close_timeout=3.0)
    engine.send("a")
    engine.close(10.0)
    engine.check_deadlines(12.9)
    assert events(engine) == []
    engine.check_deadlines(13.0)
    assert events(engine) == [SessionClosed("forced close")]


@pytest.mark.parametrize("body", [b"1", b"\xff"])
def test_the_client_closes_while_the_server_closes(body: bytes) -> None:
    engine = session()
    engine.send("a")
    engine.close(0.0)
    engine.receive_payload(body, 0.0)
    assert events(engine) == [SessionClosed("forced close")]


# The upgrade.


def test_an_upgrade_in_the_order_of_the_official_client() -> None:
    engine = session()
    assert poll(engine) is None
    engine.start_probe(1.0)
    assert engine.upgrading
    assert payload(engine) is None
    engine.receive_message("2probe", 1.1)
    assert written(engine) == ["3probe"]
    assert written(engine) == []
    # The waiting GET is answered, so that the client can switch.
    assert payload(engine) == "6"
    # A POST that is still in flight is received.
    engine.receive_payload(b"4last", 1.2)
    engine.send("buffered")
    assert written(engine) == []
    engine.receive_message("5", 1.3)
    assert events(engine) == [Message("last"), TransportUpgraded()]
    assert (engine.transport, engine.upgrading, engine.next_deadline) == ("websocket", False, 25.0)
    assert written(engine) == ["4buffered"]
    engine.receive_message("4a", 1.4)
    assert events(engine) == [Message("a")]


def test_messages_are_sent_by_polling_until_the_upgrade_is_complete() -> None:
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.send("a")
    assert poll(engine) == "4a"
    assert poll(engine) == "6"


def test_gets_during_an_upgrade_do_not_follow_each_other_without_end() -> None:
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 1.0)
    assert poll(engine, 1.0) == "6"  # the client can stop polling
    assert poll(engine, 1.05) is None
    assert not engine.answers_poll
    assert engine.next_deadline == 1.0 + NOOP_INTERVAL
    engine.check_deadlines(1.0 + NOOP_INTERVAL)
    assert engine.answers_poll
    assert payload(engine) == "6"
    assert poll(engine, 1.15) is None
    engine.send("a")
    assert payload(engine) == "4a"  # what there is to send does not wait
    assert engine.next_deadline == 10.0  # the upgrade's: no GET waits


def test_whether_the_get_that_waits_can_be_answered() -> None:
    engine = session()
    assert not engine.answers_poll
    engine.send("a")
    assert not engine.answers_poll  # there is no GET
    assert poll(engine) == "4a"
    assert poll(engine) is None
    assert not engine.answers_poll
    engine.close(0.0)
    assert engine.answers_poll
    assert payload(engine) == "1"
    engine = session()
    assert poll(engine) is None
    engine.fail()
    assert engine.answers_poll
    engine = upgraded_while_a_get_waits()
    assert engine.answers_poll
    assert payload(engine) == "6"


def upgraded_while_a_get_waits() -> EngineSession:
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    assert poll(engine) == "6"
    assert poll(engine) is None
    engine.receive_message("5", 0.0)
    return engine


def test_a_waiting_get_is_answered_when_the_upgrade_is_complete() -> None:
    engine = session()
    assert poll(engine) is None
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.receive_message("5", 0.0)
    engine.send("a")
    assert payload(engine) == "6"
    assert written(engine) == ["3probe", "4a"]


def test_a_waiting_get_may_be_lost_when_the_upgrade_is_complete() -> None:
    engine = session()
    assert poll(engine) is None
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.receive_message("5", 0.0)
    engine.lose_poll()
    assert events(engine) == [TransportUpgraded()]
    assert payload(engine) is None


def test_the_pong_may_arrive_on_the_other_transport() -> None:
    engine = session()
    engine.start_probe(24.0)
    engine.receive_message("2probe", 24.0)
    assert poll(engine, 25.0) == "2"
    engine.receive_message("5", 26.0)
    assert engine.next_deadline == 45.0
    engine.receive_message("3", 27.0)
    assert engine.next_deadline == 52.0


@pytest.mark.parametrize("probed", [False, True])
@pytest.mark.parametrize("message", ["2", "2probe2", "4a", "3probe", "1", "6", "5x", "", b"2probe", "7"])
def test_any_other_message_on_the_probing_websocket_ends_only_the_upgrade(
    probed: bool, message: str | bytes
) -> None:
    engine = session()
    engine.start_probe(0.0)
    if probed:
        engine.receive_message("2probe", 0.0)
    engine.receive_message(message, 0.0)
    assert events(engine) == [UpgradeFailed()]
    assert not engine.upgrading
    assert written(engine) == []
    assert poll(engine) is None
    engine.send("a")
    assert payload(engine) == "4a"
    # Another upgrade may be tried.
    engine.start_probe(1.0)
    engine.receive_message("2probe", 1.0)
    assert written(engine) == ["3probe"]


@pytest.mark.parametrize("messages", [["5"], ["2probe", "2probe"]])
def test_upgrade_steps_in_the_wrong_order_end_the_upgrade(messages: list[str]) -> None:
    engine = session()
    engine.start_probe(0.0)
    for message in messages:
        engine.receive_message(message, 0.0)
    assert events(engine) == [UpgradeFailed()]


def test_the_upgrade_has_its_own_deadline() -> None:
    engine = session(upgrade_timeout=5.0)
    engine.start_probe(2.0)
    assert engine.next_deadline == 7.0
    engine.check_deadlines(6.9)
    engine.receive_message("2probe", 6.9)
    engine.receive_message("5", 7.0)
    assert events(engine) == [UpgradeFailed()]
    assert (engine.state, engine.next_deadline, engine.transport) == (State.OPEN, 25.0, "polling")
    assert written(engine) == []


def test_the_probing_websocket_is_lost() -> None:
    engine = session()
    engine.start_probe(0.0)
    engine.lose_websocket()
    engine.lose_websocket()
    assert events(engine) == [UpgradeFailed()]


def test_the_session_ends_during_the_upgrade() -> None:
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.receive_payload(b"1", 0.0)
    assert events(engine) == [SessionClosed("transport close")]
    assert not engine.upgrading
    assert written(engine) == []
    engine.lose_websocket()
    engine.receive_message("5", 0.0)
    assert events(engine) == []


def test_the_session_times_out_when_the_probing_websocket_sends() -> None:
    engine = session(upgrade_timeout=100.0)
    engine.start_probe(0.0)
    engine.check_deadlines(25.0)
    engine.receive_message("2probe", 45.0)
    assert events(engine) == [SessionClosed("ping timeout")]


def test_the_server_closes_during_the_upgrade() -> None:
    engine = session()
    engine.start_probe(0.0)
    engine.receive_message("2probe", 0.0)
    engine.send("a")
    engine.close(0.0)
    assert engine.next_deadline == 10.0
    engine.receive_message("5", 1.0)
    assert written(engine) == ["3probe", "4a"]
    assert events(engine) == [TransportUpgraded(), SessionClosed("forced close")]


def test_a_probe_is_refused_when_no_upgrade_is_possible() -> None:
    closing = session()
    closing.close(0.0)
    late = session()
    late.check_deadlines(25.0)
    probing = session()
    probing.start_probe(0.0)
    for engine, now, slug in [
        (session("websocket"), 0.0, "no-upgrade"),
        (session(upgrades=False), 0.0, "no-upgrade"),
        (closing, 0.0, "no-upgrade"),
        (late, 45.0, "no-upgrade"),
        (probing, 0.0, "already-upgraded"),
        (upgraded(), 0.0, "already-upgraded"),
    ]:
        with pytest.raises(EngineError) as caught:
            engine.start_probe(now)
        assert caught.value.slug == slug
    # The first probe is not disturbed.
    probing.receive_message("2probe", 0.0)
    assert written(probing) == ["3probe"]


def test_the_wrong_transport_is_refused_and_changes_nothing() -> None:
    over = upgraded()
    calls: list[Callable[[], object]] = [
        lambda: over.start_poll(0.0),
        lambda: over.receive_payload(b"4a", 0.0),
        lambda: session().receive_message("4a", 0.0),
    ]
    for call in calls:
        with pytest.raises(EngineError) as caught:
            call()
        assert caught.value.slug == "wrong-transport"
    assert events(over) == []
    assert over.state is State.OPEN


# Properties that hold for any input.

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1e"), max_size=6)
any_packets = st.builds(EnginePacket, st.sampled_from(EnginePacketType), texts) | st.builds(
    EnginePacket, st.just(MESSAGE), st.binary(max_size=6)
)


@given(st.lists(any_packets, min_size=1, max_size=6))
def test_any_payload_round_trips(packets: list[EnginePacket]) -> None:
    assert list(decode_payload(encode_payload(packets))) == packets
    assert [decode_packet(encode_packet(packet)) for packet in packets] == packets


@given(st.text(max_size=10) | st.text("0123456b\x1e=A\n", max_size=10))
def test_any_text_is_decoded_or_raises_engine_error(text: str) -> None:
    try:
        packets = list(decode_payload(text, max_packets=8))
    except EngineError:
        return
    assert len(packets) == text.count("\x1e") + 1 <= 8


messages = st.sampled_from(["2probe", "5", "3", "4a", "1", "2", "bAA==", "", b"b"]) | st.text(max_size=3)
bodies = st.sampled_from([b"4a", b"3", b"4a\x1e4b", b"1", b"6", b"\xff"]) | st.binary(max_size=4)
any_call = st.one_of(
    st.tuples(st.just("receive_message"), messages),
    st.tuples(st.just("receive_payload"), bodies),
    st.tuples(st.just("start_poll")),
    st.tuples(st.just("start_probe")),
    st.tuples(st.just("check_deadlines")),
    st.tuples(st.just("close")),
    st.tuples(st.just("send"), texts | st.binary(max_size=6)),
    st.tuples(st.just("lose_poll")),
    st.tuples(st.just("lose_websocket")),
)
# These keep the session alive, so that it does not end after a few steps.
likely = st.tuples(st.just("send"), texts) | st.just(("start_poll",)) | st.just(("receive_payload", b"4a"))
upgrade = st.sampled_from([("start_probe",), ("receive_message", "2probe"), ("receive_message", "5")])
steps = st.lists(
    st.tuples(any_call | likely | upgrade, st.floats(0, 9), st.booleans()), min_size=1, max_size=30
)


@given(st.sampled_from(["polling", "websocket"]), steps)
@settings(max_examples=500)
def test_invariants_hold_for_any_calls(
    transport: Transport, script: list[tuple[tuple[Any, ...], float, bool]]
) -> None:
    engine = session(transport, max_payload=10)
    now = 0.0
    seen: list[EngineEvent] = []
    sent: list[str | bytes] = []
    taken: list[EnginePacket] = []
    for (name, *arguments), pause, flush in script:
        now += pause
        if name not in ("send", "lose_poll", "lose_websocket"):
            arguments.append(now)
        try:
            getattr(engine, name)(*arguments)
            if name == "send":
                sent.append(arguments[0])
        except EngineError:
            pass
        if flush:
            taken += engine.packets_to_send("websocket")
            packets = engine.packets_to_send("polling")
            assert len(packets) < 2 or len(encode_payload(packets).encode()) <= 10
            taken += packets
        seen += engine.events()
        assert (engine.buffered == 0) is (engine.state is State.CLOSED or not engine._queue)
        assert (engine.next_deadline is None) is (engine.state is State.CLOSED)
        # SessionClosed is the last event, reported once, and exactly when the session is closed.
        ends = [isinstance(event, SessionClosed) for event in seen]
        assert ends.count(True) == (engine.state is State.CLOSED)
        assert True not in ends[:-1]
    assert seen.count(TransportUpgraded()) <= 1
    # Messages are sent in order, on either transport, and none twice.
    delivered = [packet.data for packet in taken if packet.type is MESSAGE]
    assert delivered == sent[: len(delivered)]
