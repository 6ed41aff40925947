"""The backlog: messages that wait for a peer that is behind."""

import asyncio

from rfc6455_server.websocket.backlog import NO_KEY, Backlog, Waiting


def waiting(message: str, *, droppable: bool = True, key: object = NO_KEY) -> Waiting:
    return Waiting(message, len(message), droppable=droppable, key=key)


def contents(backlog: Backlog) -> list[object]:
    found: list[object] = []
    while backlog:
        found.append(backlog.popleft().message)
    return found


def test_messages_leave_in_order() -> None:
    backlog = Backlog(0)
    for message in ("a", "bb", "ccc"):
        backlog.append(waiting(message))
    assert (len(backlog), backlog.size) == (3, 6)
    assert contents(backlog) == ["a", "bb", "ccc"]
    assert (len(backlog), backlog.size) == (0, 0)


def test_the_oldest_droppable_message_is_dropped_first() -> None:
    backlog = Backlog(0)
    backlog.append(waiting("kept", droppable=False))
    backlog.append(waiting("old"))
    backlog.append(waiting("new"))
    assert backlog.drop_oldest()
    assert backlog.size == len("kept" + "new")
    assert backlog.drop_oldest()
    assert not backlog.drop_oldest()
    assert contents(backlog) == ["kept"]


def test_a_key_selects_one_message_and_none_is_a_valid_key() -> None:
    backlog = Backlog(0)
    backlog.append(waiting("a", key=None))
    backlog.append(waiting("b", key="b"))
    backlog.append(waiting("c"))
    assert backlog.drop_key(None)
    assert not backlog.drop_key(None)
    assert not backlog.drop_key("c")
    assert backlog.popleft().message == "b"
    assert not backlog.drop_key("b")
    assert contents(backlog) == ["c"]


async def test_clear_ends_every_waiting_send() -> None:
    backlog = Backlog(0)
    queued, admitted = (asyncio.get_running_loop().create_future() for _ in range(2))
    backlog.append(Waiting("a", 1, droppable=False, sent=queued))
    backlog.senders.append(Waiting("b", 1, droppable=False, sent=admitted))
    backlog.clear()
    assert (queued.result(), admitted.result()) == (False, False)
    assert len(backlog) == 0
    Waiting("c", 1, droppable=False, sent=queued).resolve(sent=True)  # has no effect on a future that is done
    assert queued.result() is False
