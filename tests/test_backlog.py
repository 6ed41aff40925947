"""The backlog: messages that wait for a peer that is behind."""

import asyncio
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfc6455 import PreparedMessage
from rfc6455_server.policies import Coalesce, Policy
from rfc6455_server.websocket.backlog import ENTRY_COST, KEY_COST, NO_KEY, Backlog, Waiting
from rfc6455_server.websocket.hub import Budget, NoOwner


def waiting(message: str, *, droppable: bool = True, key: object = NO_KEY) -> Waiting:
    return Waiting(message, len(message), droppable=droppable, key=key)


def contents(backlog: Backlog) -> list[object]:
    found: list[object] = []
    while backlog:
        found.append(backlog.popleft().message)
    return found


def test_messages_leave_in_order() -> None:
    backlog = Backlog(0, Budget(1 << 30))
    for message in ("a", "bb", "ccc"):
        backlog.append(waiting(message))
    assert (len(backlog), backlog.size) == (3, 6 + 3 * ENTRY_COST)
    assert contents(backlog) == ["a", "bb", "ccc"]
    assert (len(backlog), backlog.size) == (0, 0)


def test_the_oldest_droppable_message_is_dropped_first() -> None:
    backlog = Backlog(0, Budget(1 << 30))
    backlog.append(waiting("kept", droppable=False))
    backlog.append(waiting("old"))
    backlog.append(waiting("new"))
    assert backlog.drop_oldest()
    assert backlog.size == len("kept" + "new") + 2 * ENTRY_COST
    assert backlog.drop_oldest()
    assert not backlog.drop_oldest()
    assert contents(backlog) == ["kept"]


def test_a_key_selects_one_message_and_none_is_a_valid_key() -> None:
    backlog = Backlog(0, Budget(1 << 30))
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
    backlog = Backlog(0, Budget(1 << 30))
    queued, admitted = (asyncio.get_running_loop().create_future() for _ in range(2))
    backlog.append(Waiting("a", 1, droppable=False, sent=queued))
    backlog.senders.append(Waiting("b", 1, droppable=False, sent=admitted))
    backlog.clear()
    assert (queued.result(), admitted.result()) == (False, False)
    assert len(backlog) == 0
    Waiting("c", 1, droppable=False, sent=queued).resolve(sent=True)  # has no effect on a future that is done
    assert queued.result() is False


def test_dropped_messages_leave_nothing_behind() -> None:
    backlog = Backlog(0, Budget(1 << 30))
    backlog.append(waiting("first", droppable=False))
    for number in range(10_000):
        backlog.drop_key("price")
        backlog.append(waiting(f"{number}", key="price"))
    assert len(backlog) == 2
    assert len(backlog._queue) + len(backlog._droppable) < 300
    assert contents(backlog) == ["first", "9999"]


def test_sent_messages_are_forgotten_among_the_droppable_ones() -> None:
    backlog = Backlog(0, Budget(1 << 30))
    for number in range(1000):
        backlog.append(waiting(f"{number}"))
        backlog.append(waiting("kept", droppable=False))
        backlog.popleft()
    assert len(backlog._droppable) <= len(backlog) == 1000
    assert backlog.drop_oldest()
    assert len(backlog) == 999


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "key", "popleft", "drop_oldest"]), st.integers(0, 3), st.booleans()
        )
    )
)
def test_it_behaves_as_a_list(steps: list[tuple[str, int, bool]]) -> None:
    """A list of (text, droppable, key) is the model."""
    backlog = Backlog(0, Budget(1 << 30))
    model: list[tuple[str, bool, object]] = []
    for number, (step, key, droppable) in enumerate(steps):
        if step == "append":
            backlog.append(waiting(str(number), droppable=droppable))
            model.append((str(number), droppable, NO_KEY))
        elif step == "key":
            found = [entry for entry in model if entry[2] == key]
            assert backlog.drop_key(key) is bool(found)
            model = [entry for entry in model if entry[2] != key]
            backlog.append(waiting(str(number), key=key))
            model.append((str(number), True, key))
        elif step == "popleft" and model:
            assert backlog.popleft().message == model.pop(0)[0]
        elif step == "drop_oldest":
            droppables = [entry for entry in model if entry[1]]
            assert backlog.drop_oldest() is bool(droppables)
            if droppables:
                model.remove(droppables[0])
        assert len(backlog) == len(model)
        key_sizes = [0 if entry[2] is NO_KEY else KEY_COST + sys.getsizeof(entry[2]) for entry in model]
        assert backlog.size == sum(len(text) + ENTRY_COST for text, _, _ in model) + sum(key_sizes)
    assert contents(backlog) == [text for text, _, _ in model]


def test_a_message_that_waits_for_many_peers_counts_once_in_the_budget() -> None:
    budget = Budget(1 << 30)
    message = PreparedMessage("x" * 10_000)
    holders = [NoOwner() for _ in range(3)]
    backlogs = [Backlog(0, budget) for _ in holders]
    for backlog, holder in zip(backlogs, holders, strict=True):
        backlog.post(message, "disconnect", 1 << 20, lambda _: None)
        budget.charge(holder, backlog.size)
    assert [backlog.size for backlog in backlogs] == [message.size + ENTRY_COST] * 3
    assert budget.queued == message.size + 3 * ENTRY_COST
    backlogs[0].popleft()
    budget.charge(holders[0], backlogs[0].size)
    assert budget.queued == message.size + 2 * ENTRY_COST
    for backlog, holder in zip(backlogs, holders, strict=True):
        backlog.clear()
        budget.release(holder)
    assert budget.queued == 0
    assert not budget._holders


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", Coalesce("key")])
def test_what_a_policy_drops_is_no_longer_held(policy: Policy) -> None:
    budget = Budget(1 << 30)
    backlog = Backlog(0, budget)
    for number in range(10):
        backlog.post(PreparedMessage(str(number) * 1000), policy, 4000, lambda _: None)
    assert len(budget._holders) == len(backlog) < 10
    backlog.clear()
    assert not budget._holders
