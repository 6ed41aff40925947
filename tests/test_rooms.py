import gc
import logging
from typing import Unpack

import pytest

from rfc6455 import ConnectionClosed, LocalProtocolError, PreparedMessage
from rfc6455_server import LimitExceededError, Room, Rooms, coalesce
from rfc6455_server.limits import FEW_ROOMS, LimitOptions, Limits
from rfc6455_server.policies import Policy
from rfc6455_server.rooms import Member as AnyMember
from rfc6455_server.rooms import RoomMember


class Member:
    def __init__(self, name: str = "") -> None:
        self.id = name
        self.memberships: list[Room] = []
        self.closed: ConnectionClosed | None = None
        self.frames: list[bytes] = []
        self.policies: list[Policy | None] = []
        self.welcome = True

    def may_join(self, name: str) -> bool:
        return self.welcome

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        self.frames.append(message.plain_frame)
        self.policies.append(policy)

    def end(self) -> None:
        self.closed = ConnectionClosed(1006, "", False)
        for room in list(self.memberships):
            room.leave(self)


def test_a_broadcast_is_encoded_once_and_reaches_only_the_members() -> None:
    rooms = Rooms()
    a, b, c, d = (Member() for _ in range(4))
    for member in (a, b, c):
        rooms["lobby"].join(member)
    rooms["other"].join(d)
    rooms["lobby"].broadcast("hé")
    rooms["lobby"].broadcast(b"\xff", exclude=[b])
    assert a.frames == c.frames == [b"\x81\x03h\xc3\xa9", b"\x82\x01\xff"]
    assert b.frames == [b"\x81\x03h\xc3\xa9"]
    assert d.frames == []
    assert a.frames[0] is b.frames[0] is c.frames[0]


def test_joining_and_leaving() -> None:
    rooms = Rooms()
    a, b = Member(), Member()
    lobby = rooms["lobby"]
    lobby.join(a)
    lobby.join(a)
    lobby.join(b)
    assert lobby.members == [a, b]
    assert (len(lobby), a in lobby, lobby.name) == (2, True, "lobby")
    lobby.leave(a)
    lobby.leave(a)
    assert lobby.members == [b]
    assert a.memberships == []
    lobby.broadcast("x")
    assert a.frames == []


def test_a_member_leaves_its_rooms_when_its_connection_ends() -> None:
    rooms = Rooms()
    a, b = Member(), Member()
    for name in ("one", "two"):
        rooms[name].join(a)
        rooms[name].join(b)
    a.end()
    assert [rooms[name].members for name in ("one", "two")] == [[b], [b]]
    rooms["one"].join(a)
    assert a not in rooms["one"]


def test_an_empty_room_is_freed() -> None:
    rooms = Rooms()
    a = Member()
    rooms["lobby"].join(a)
    assert "lobby" in rooms
    assert list(rooms) == ["lobby"]
    assert len(rooms) == 1
    a.end()
    gc.collect()
    assert "lobby" not in rooms
    assert list(rooms) == []
    assert rooms["never"].members == []
    assert len(rooms) == 0
    assert 1 not in rooms
    assert len(rooms._rooms) == 0


def test_a_name_always_refers_to_the_same_room() -> None:
    rooms = Rooms()
    first, second = rooms["lobby"], rooms["lobby"]
    a, b = Member(), Member()
    first.join(a)
    second.join(b)
    assert first.members == second.members == [a, b]


def test_members_may_leave_during_a_broadcast() -> None:
    rooms = Rooms()
    lobby = rooms["lobby"]

    class Leaving(Member):
        def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
            super().post_prepared(message, policy)
            lobby.leave(self)

    members = [Leaving() for _ in range(3)]
    for member in members:
        lobby.join(member)
    lobby.broadcast("bye")
    assert all(len(member.frames) == 1 for member in members)
    assert len(lobby) == 0


@pytest.mark.parametrize("message", [5, None])
def test_a_message_is_str_or_bytes(message: object) -> None:
    with pytest.raises(TypeError):
        Rooms()["lobby"].broadcast(message)  # type: ignore[arg-type]


def test_callbacks_are_called_on_join_and_leave(caplog: pytest.LogCaptureFixture) -> None:
    rooms = Rooms()
    seen: list[tuple[str, str, str, int]] = []

    @rooms.on_join
    def joined(room: Room, member: AnyMember) -> None:
        seen.append(("join", room.name, member.id, len(room)))

    @rooms.on_leave
    def broken(room: Room, member: AnyMember) -> None:
        raise ZeroDivisionError

    @rooms.on_leave
    def left(room: Room, member: AnyMember) -> None:
        seen.append(("leave", room.name, member.id, len(room)))

    a, b = Member("a"), Member("b")
    lobby = rooms["lobby"]
    lobby.join(a)
    lobby.join(a)
    lobby.join(b)
    with caplog.at_level(logging.ERROR, logger="rfc6455_server"):
        lobby.leave(a)
        b.end()
    assert seen == [
        ("join", "lobby", "a", 1),
        ("join", "lobby", "b", 2),
        ("leave", "lobby", "a", 1),
        ("leave", "lobby", "b", 0),
    ]
    assert caplog.text.count("room callback failed room=lobby") == 2


def test_presence_contains_what_each_member_shows() -> None:
    lobby = Rooms()["lobby"]
    a, b = Member("a"), Member("b")
    lobby.join(a, show={"name": "Ann"})
    lobby.join(b)
    assert lobby.presence == {"a": {"name": "Ann"}, "b": None}
    lobby.join(a, show={"name": "Anna"})
    assert lobby.presence == {"a": {"name": "Anna"}, "b": None}
    a.end()
    assert lobby.presence == {"b": None}


def test_joining_over_a_limit_raises() -> None:
    lobby = Rooms()["lobby"]
    a = Member()
    a.welcome = False
    with pytest.raises(LimitExceededError):
        lobby.join(a)
    assert a not in lobby
    assert a.memberships == []


class Limited(RoomMember):
    """A member with the limits of a server."""

    def __init__(self, rooms: Rooms, **limits: Unpack[LimitOptions]) -> None:
        super().__init__()
        self.id = ""
        self.closed: ConnectionClosed | None = None
        self._rooms = rooms
        self._limits = Limits(**limits)

    def joining_limits(self) -> tuple[Limits, int, float]:
        return self._limits, self._rooms.stats.memberships, 0.0

    def post_prepared(self, message: PreparedMessage, policy: Policy | None) -> None:
        raise NotImplementedError


def test_a_name_of_a_room_that_is_joined_has_a_limit() -> None:
    rooms = Rooms()
    member = Limited(rooms, max_room_name=12)
    fits = ["twelve-bytes", "äöü", "äbc", "😀bc"]
    for name in fits:
        rooms[name].join(member)
    for name in ("thirteen-byte", "äbcd", "😀bcd", "\ud83dbcd"):
        with pytest.raises(LimitExceededError):
            rooms[name].join(member)
    assert list(rooms) == fits


def test_when_all_are_in_many_rooms_only_those_in_few_may_join_more() -> None:
    rooms = Rooms()
    greedy, modest = (Limited(rooms, max_total_rooms=100) for _ in range(2))
    for number in range(100):
        rooms[f"room-{number}"].join(greedy)
    with pytest.raises(LimitExceededError):
        rooms["one more"].join(greedy)
    for number in range(FEW_ROOMS):
        rooms[f"room-{number}"].join(modest)
    with pytest.raises(LimitExceededError):
        rooms["one more"].join(modest)
    assert rooms.stats.memberships == 100 + FEW_ROOMS
    for room in list(greedy.memberships):
        room.leave(greedy)
    assert rooms.stats.memberships == FEW_ROOMS
    rooms["one more"].join(modest)


def test_the_policy_of_a_broadcast_overrides_that_of_the_room() -> None:
    lobby = Rooms()["lobby"]
    a = Member()
    lobby.join(a)
    lobby.broadcast("x")
    lobby.policy = "drop_oldest"
    lobby.broadcast("x")
    lobby.broadcast("x", policy="drop_newest")
    lobby.broadcast("xy", policy=coalesce(lambda message: message[0]))
    assert a.policies == [None, "drop_oldest", "drop_newest", coalesce("x")]
    with pytest.raises(ValueError, match="not a policy"):
        lobby.broadcast("x", policy="whatever")  # type: ignore[arg-type]


def test_broadcasts_are_counted_for_each_member() -> None:
    rooms = Rooms()
    a, b = Member(), Member()
    rooms["lobby"].join(a)
    rooms["lobby"].join(b)
    rooms["lobby"].broadcast("x")
    rooms["lobby"].broadcast(PreparedMessage("x"), exclude=[a])
    assert rooms.stats.messages_out == 3
    assert repr(rooms["lobby"]) == "<Room 'lobby' 2>"


def test_a_policy_outlasts_an_empty_room() -> None:
    rooms = Rooms()
    rooms["news"].policy = "drop_oldest"  # nothing refers to the room afterwards
    gc.collect()
    assert len(rooms._rooms) == 0
    assert rooms["news"].policy == "drop_oldest"
    a = Member()
    rooms["news"].join(a)
    rooms["news"].broadcast("x")
    rooms["news"].broadcast("x", policy="volatile")
    assert a.policies == ["drop_oldest", "volatile"]
    rooms["news"].policy = None
    assert rooms["news"].policy is None
    assert dict(rooms.policies) == {}
    rooms["news"].policy = None  # has no effect without a policy


def test_policies_by_pattern() -> None:
    rooms = Rooms()
    game = rooms["game-1"]
    rooms.policies["game-*"] = coalesce("position")
    rooms.policies["*"] = "drop_newest"
    game_policy = coalesce("position")
    assert (game.policy, rooms["game-2"].policy, rooms["chat"].policy) == (
        game_policy,
        game_policy,
        "drop_newest",
    )
    game.policy = "disconnect"
    assert (game.policy, rooms["game-2"].policy) == ("disconnect", game_policy)
    assert list(rooms.policies) == ["game-1", "game-*", "*"]
    assert len(rooms.policies) == 3
    assert rooms.policies["*"] == "drop_newest"
    del rooms.policies["game-*"]
    assert (game.policy, rooms["game-2"].policy) == ("disconnect", "drop_newest")


def test_a_room_name_with_wildcards_is_not_a_pattern() -> None:
    rooms = Rooms()
    rooms["all*"].policy = "drop_oldest"
    assert rooms["all*"].policy == "drop_oldest"
    assert rooms["all of them"].policy is None
    assert list(rooms.policies) == ["all[*]"]


def test_an_invalid_policy_raises_and_changes_nothing() -> None:
    rooms = Rooms()
    room = rooms["news"]
    with pytest.raises(ValueError, match="not a policy"):
        room.policy = "drop"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="not a policy"):
        rooms.policies["*"] = "drop"  # type: ignore[assignment]
    assert room.policy is None
    assert len(rooms.policies) == 0


def test_a_broadcast_of_a_surrogate_raises_the_same_error_as_post() -> None:
    rooms = Rooms()
    rooms["lobby"].join(Member())
    with pytest.raises(LocalProtocolError) as caught:
        rooms["lobby"].broadcast("\ud800")
    assert caught.value.slug == "bad-text"


def test_a_policy_of_one_room_looks_up_no_other() -> None:
    rooms = Rooms()
    held = [rooms[f"room-{number}"] for number in range(100)]
    looked_up = []
    find = rooms.policies.find
    rooms.policies.find = lambda name: looked_up.append(name) or find(name)  # type: ignore[method-assign, func-returns-value]
    for room in held:
        room.policy = "drop_oldest"
    assert looked_up == [room.name for room in held]
    rooms.policies["room-*"] = "drop_newest"
    assert len(looked_up) == 200
    assert {room.policy for room in held} == {"drop_oldest"}
