import gc
from collections.abc import Callable
from typing import Any

import pytest

from rfc6455 import ConnectionClosed, PreparedMessage
from rfc6455_server import Rooms


class Member:
    def __init__(self) -> None:
        self.on_closed: list[Callable[[Any], object]] = []
        self.closed: ConnectionClosed | None = None
        self.frames: list[bytes] = []

    def post(self, message: PreparedMessage) -> None:
        frame = message.frame(None)
        assert frame is not None
        self.frames.append(frame)

    def end(self) -> None:
        self.closed = ConnectionClosed(1006, "", False)
        for callback in self.on_closed:
            callback(self)
        self.on_closed.clear()


def test_a_broadcast_reaches_the_members_only_and_shares_its_bytes() -> None:
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
    assert a.on_closed == []
    lobby.broadcast("x")
    assert a.frames == []


def test_a_member_leaves_by_itself_when_its_connection_ends() -> None:
    rooms = Rooms()
    a, b = Member(), Member()
    for name in ("one", "two"):
        rooms[name].join(a)
        rooms[name].join(b)
    a.end()
    assert [rooms[name].members for name in ("one", "two")] == [[b], [b]]
    rooms["one"].join(a)
    assert a not in rooms["one"]


def test_a_room_vanishes_when_it_is_empty() -> None:
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


def test_two_handles_of_one_room_are_one_room() -> None:
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
        def post(self, message: PreparedMessage) -> None:
            super().post(message)
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
