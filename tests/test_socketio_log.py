"""What recovery keeps: the events of a namespace by room, and the sessions whose connection was lost."""

import asyncio
import weakref
from sys import getsizeof
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455_server.socketio.catchup import Turns
from rfc6455_server.socketio.encoded import EncodedPacket
from rfc6455_server.socketio.history import RoomHistory
from rfc6455_server.socketio.recovery import (
    EVENT_COST,
    NAMES_COST,
    ROOM_COST,
    ROOM_LOG_COST,
    LostSocket,
    LostTotals,
    MissedEventsDroppedError,
    Recovery,
)
from rfc6455_server.testing import settle

EVERYBODY: frozenset[str] = frozenset()


def packet(text: str = "x") -> EncodedPacket:
    return EncodedPacket([f'2["{text}"]'])


def lost(
    private_id: str = "pid", rooms: tuple[str, ...] = (), position: int = 0, address: str = ""
) -> LostSocket:
    own = address or private_id  # each from an address of its own
    return LostSocket("sid", private_id, dict.fromkeys(rooms), history(*rooms), {}, own, position)


def history(*rooms: str) -> RoomHistory:
    """Returns that of a socket which has always been in these rooms."""
    made = RoomHistory("sid")
    for name in rooms:
        made.join(name, 0)
    return made


def texts(packets: list[EncodedPacket]) -> list[Any]:
    return [message for packet in packets for message in packet.messages]


names = st.sampled_from("abcde")
targets = st.tuples(st.frozensets(names, max_size=3), st.frozensets(names, max_size=2))


@given(st.lists(targets, max_size=30), st.frozensets(names), st.data())
def test_a_client_missed_exactly_what_was_sent_to_its_rooms_and_does_not_exclude_it(
    sent: list[tuple[frozenset[str], frozenset[str]]], inside: frozenset[str], data: st.DataObject
) -> None:
    recovery = Recovery(seconds=60)
    for number, (rooms, excluded) in enumerate(sent, 1):
        recovery.log(packet(str(number)), rooms, excluded, 0.0)
    seen = data.draw(st.integers(0, len(sent)))
    count = data.draw(st.integers(1, 5))
    missed = recovery.missed(seen, history(*inside))
    recovery.log(packet("later"), EVERYBODY, EVERYBODY, 0.0)
    found = []
    while taken := missed.take(count, 1 << 20):
        assert len(taken) <= count
        found += texts(taken)
    assert missed.is_empty
    expected = [
        f'2["{number}"]'
        for number, (rooms, excluded) in enumerate(sent, 1)
        if number > seen and (not rooms or rooms & inside) and not excluded & inside
    ]
    assert found == expected


@given(st.lists(targets, min_size=1, max_size=40), st.integers(1, 6))
def test_the_size_is_that_of_what_is_kept_and_never_above_the_limit(
    sent: list[tuple[frozenset[str], frozenset[str]]], kept: int
) -> None:
    one = packet().size + EVENT_COST
    room = ROOM_COST + getsizeof("a")
    largest = one + 2 * NAMES_COST + 5 * room + 3 * ROOM_LOG_COST
    recovery = Recovery(seconds=60, max_bytes=kept * largest)
    sizes = []
    for rooms, excluded in sent:
        recovery.log(packet(), rooms, excluded, 0.0)
        sizes.append(one + sum(NAMES_COST + room * len(names) for names in (rooms, excluded) if names))
        assert recovery.size <= recovery.max_bytes
    in_log = len(recovery._log)
    assert recovery.size == sum(sizes[len(sizes) - in_log :]) + ROOM_LOG_COST * len(recovery._by_room)
    assert in_log >= min(kept, len(sent))
    listed = {entry.offset for room in recovery._by_room.values() for entry in room.after(0)}
    assert listed == {entry.offset for entry in recovery._log}


def test_an_event_is_freed_as_soon_as_it_is_dropped() -> None:
    recovery = Recovery(seconds=60)

    class Event(EncodedPacket):
        __slots__ = ("__weakref__",)

    event = Event(["x"])
    freed = weakref.ref(event)
    recovery.log(event, EVERYBODY, EVERYBODY, 0.0)
    del event
    recovery.log(packet(), EVERYBODY, EVERYBODY, 30.0)
    assert freed() is not None
    recovery.log(packet(), EVERYBODY, EVERYBODY, 61.0)
    assert freed() is None


def test_events_and_sessions_expire() -> None:
    recovery = Recovery(seconds=60)
    recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    recovery.keep(lost("old"), 0.0)
    recovery.keep(lost("new"), 50.0)
    recovery.log(packet(), frozenset("a"), EVERYBODY, 61.0)
    assert recovery.restore("old", None, 61.0) is None
    assert recovery.restore("new", recovery._tag + "1", 61.0) is not None
    recovery.keep(lost("new"), 61.0)
    assert recovery.restore("new", recovery._tag + "0", 61.0) is None  # the event after it has expired
    room = ROOM_COST + getsizeof("a")
    assert recovery.size == packet().size + EVENT_COST + NAMES_COST + room + ROOM_LOG_COST
    recovery.keep(lost("x"), 200.0)
    assert recovery.size == 0
    assert not recovery._by_room


@pytest.mark.parametrize(
    "offset", ["zz", "", 5, True, ["1"], {}, "1", "@zz", "@", "@9", "@-1", "@" + "1" * 17]
)
def test_an_offset_that_was_never_sent_recovers_nothing(offset: object) -> None:
    recovery = Recovery(seconds=60)
    first = recovery.next_offset()
    recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    recovery.keep(lost(), 0.0)
    if isinstance(offset, str):
        offset = offset.replace("@", first[:-1])
    assert recovery.restore("pid", offset, 0.0) is None
    recovery.keep(lost(), 0.0)
    assert recovery.restore("pid", first, 0.0) is not None


def test_an_offset_from_before_the_session_is_not_believed() -> None:
    recovery = Recovery(seconds=60)
    first = recovery.next_offset()
    for _ in range(3):
        recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    recovery.keep(lost(position=2), 0.0)
    recovered = recovery.restore("pid", first, 0.0)
    assert recovered is not None
    assert recovered.seen == 2


def test_without_an_offset_the_position_counts() -> None:
    recovery = Recovery(seconds=60)
    recovery.keep(lost(position=0), 0.0)
    recovered = recovery.restore("pid", None, 0.0)
    assert recovered is not None
    assert recovered.seen == 0
    assert recovery.restore("pid", None, 0.0) is None  # it was removed


def test_an_event_is_for_those_who_were_in_its_rooms_when_it_was_sent() -> None:
    recovery = Recovery(seconds=60)
    rooms = RoomHistory("sid")

    def send(text: str, to: str, without: str = "") -> None:
        recovery.log(packet(text), frozenset(to), frozenset(without), 0.0)

    send("before", "a")
    rooms.join("a", recovery.position)
    send("inside", "a")
    send("excluded", "b", "a")
    send("all but a", "", "a")
    rooms.leave("a", recovery.position, recovery.oldest)
    send("after", "a")
    send("no longer excluded", "", "a")
    rooms.join("a", recovery.position)
    rooms.join("a", recovery.position)
    send("again", "ab")
    recovery.log(packet("own"), frozenset(["sid"]), EVERYBODY, 0.0)
    taken = recovery.missed(0, rooms).take(10, 1 << 20)
    assert texts(taken) == [f'2["{text}"]' for text in ("inside", "no longer excluded", "again", "own")]


def test_what_was_dropped_for_others_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.BYTES_PER_DROPPED_ROOM", 1000)
    recovery = Recovery(seconds=60, max_bytes=3999)
    offset = recovery.next_offset()
    recovery.log(packet("seen"), frozenset("a"), EVERYBODY, 0.0)
    recovery.log(packet(), frozenset("b"), EVERYBODY, 1.0)
    recovery.log(packet("missed"), frozenset("a"), EVERYBODY, 65.0)
    recovery.keep(lost(rooms=("a",)), 65.0)  # the first two are dropped
    recovered = recovery.restore("pid", offset, 66.0)
    assert recovered is not None
    assert texts(recovery.missed(recovered.seen, history("a")).take(5, 1 << 20)) == ['2["missed"]']
    recovery.keep(lost(rooms=("a", "b")), 66.0)
    assert recovery.restore("pid", offset, 66.0) is None  # one of the dropped ones was for it
    for name in "xyz":
        recovery.log(packet(), frozenset(name), EVERYBODY, 67.0)
    recovery.keep(lost(rooms=("c",), position=2), 130.0)
    assert len(recovery._dropped) == 3
    assert recovery.restore("pid", offset, 130.0) is None  # "c" may have had one that is forgotten


def test_what_was_dropped_before_a_client_joined_does_not_matter() -> None:
    recovery = Recovery(seconds=60)
    session = lost()
    session.history.join("early", recovery.position)
    recovery.log(packet(), frozenset({"late"}), EVERYBODY, 0.0)
    session.history.join("late", recovery.position)
    recovery.keep(session, 61.0)  # the event is dropped
    recovered = recovery.restore("pid", None, 62.0)
    assert recovered is not None
    assert recovery.missed(recovered.seen, session.history).take(5, 1 << 20) == []
    recovery.log(packet(), frozenset({"early"}), EVERYBODY, 62.0)
    recovery.keep(session, 122.5)
    assert recovery.restore("pid", None, 122.5) is None


def test_the_history_of_rooms_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.history.MAX_LEFT", 2)
    recovery = Recovery(seconds=60)
    session = lost()
    for _ in range(4):
        session.history.join("a", recovery.position)
        session.history.leave("a", recovery.position, recovery.oldest)  # without an event between: no stay
        session.history.join("a", recovery.position)
        offset = recovery.next_offset()
        recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
        session.history.leave("a", recovery.position, recovery.oldest)
    assert len(session.history) == 2
    assert session.history.names == {"sid", "a"}
    recovery.keep(session, 0.0)
    assert recovery.restore("pid", None, 0.0) is None  # some of the rooms at that time are forgotten
    recovery.keep(session, 0.0)
    assert recovery.restore("pid", offset, 0.0) is not None
    session.history.join("b", 10)
    session.history.leave("b", 11, 11)
    assert session.history.names == {"sid", "b"}  # stays before the first event that is kept are forgotten


def test_the_lost_sessions_and_their_rooms_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", 2)
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_ROOMS", 4)
    recovery = Recovery(seconds=60)
    for name in "abc":
        recovery.keep(lost(name, ("x",)), 0.0)
    assert recovery.restore("a", None, 0.0) is None
    assert recovery.restore("b", None, 0.0) is not None
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", 10)
    for name in "de":
        recovery.keep(lost(name, ("x", "y")), 0.0)
    assert recovery.restore("c", None, 0.0) is None  # five rooms were too many
    assert recovery.restore("d", None, 0.0) is not None
    assert recovery.restore("e", None, 0.0) is not None


@pytest.mark.parametrize(("sockets", "rooms"), [(6, 1000), (1000, 6)])
def test_one_address_cannot_push_out_the_lost_sessions_of_others(
    sockets: int, rooms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", sockets)
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_ROOMS", rooms)
    recovery = Recovery(seconds=60)
    recovery.keep(lost("victim", ("x",)), 0.0)
    for number in range(20):
        recovery.keep(lost(str(number), ("x",), address="attacker"), 0.0)
    assert recovery.restore("victim", None, 0.0) is not None
    kept = [number for number in range(20) if recovery.restore(str(number), None, 0.0)]
    assert kept == [17, 18, 19]  # half of the limit, the newest
    assert not recovery._by_address
    assert not recovery.totals.too_many_of("attacker")
    assert not recovery.totals._by_address


def test_a_long_name_counts_as_several_rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_ROOMS", 10)
    recovery = Recovery(seconds=60)
    for number in range(4):
        recovery.keep(lost(str(number), ("x" * 512,), address=str(number)), 0.0)
    assert [number for number in range(4) if recovery.restore(str(number), None, 0.0)] == [1, 2, 3]


def test_several_namespaces_share_what_they_keep_of_lost_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.socketio.recovery.MAX_LOST_SOCKETS", 6)
    totals = LostTotals()
    full, other = Recovery(seconds=60, totals=totals), Recovery(seconds=60, totals=totals)
    for number in range(6):
        full.keep(lost(str(number), address=f"attacker {number % 2}"), 0.0)
    other.keep(lost("late"), 0.0)
    assert not other.has_lost(0.0)
    full.forget_all()
    assert not full.has_lost(0.0)
    other.keep(lost("victim"), 0.0)
    assert other.restore("victim", None, 0.0) is not None
    assert not totals._by_address


def test_what_was_dropped_meanwhile_is_not_skipped_silently() -> None:
    recovery = Recovery(seconds=60, max_bytes=ROOM_LOG_COST + 3 * (packet().size + EVENT_COST))
    for _ in range(3):
        recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    missed = recovery.missed(0, history())
    assert len(missed.take(1, 1 << 20)) == 1
    recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    assert len(missed.take(1, 1 << 20)) == 1  # the second is still there
    recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    recovery.log(packet(), EVERYBODY, EVERYBODY, 0.0)
    with pytest.raises(MissedEventsDroppedError):
        missed.take(1, 1 << 20)


def test_a_turn_ends_after_so_many_bytes() -> None:
    recovery = Recovery(seconds=60)
    for _ in range(4):
        recovery.log(packet("x" * 100), EVERYBODY, EVERYBODY, 0.0)
    missed = recovery.missed(0, history())
    assert len(missed.take(10, 150)) == 2
    assert not missed.is_empty


async def test_turns_are_taken_in_order_a_few_at_a_time() -> None:
    turns = Turns()
    order: list[int] = []

    async def wait(number: int) -> None:
        await turns.take()
        order.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(20)]
    await asyncio.sleep(0)
    tasks[0].cancel()  # it does not hold up the others
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(order) < 10
    await settle()
    assert order == list(range(1, 20))
    await turns.take()  # the next one is not forgotten
