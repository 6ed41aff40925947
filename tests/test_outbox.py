"""The outgoing queue of one connection, with a transport whose capacity the test sets."""

import asyncio
import sys

import pytest

from rfc6455 import Connection, Event, PreparedMessage, Role
from rfc6455_server import coalesce
from rfc6455_server.limits import Limits
from rfc6455_server.policies import Coalesce, Policy, check_policy
from rfc6455_server.stats import Stats
from rfc6455_server.testing import ManualClock, settle
from rfc6455_server.websocket.backlog import CALL_COST, ENTRY_COST, KEY_COST
from rfc6455_server.websocket.hub import Hub, Slowness
from rfc6455_server.websocket.outbox import FRAME_COST, MIN_PROGRESS, Outbox
from tests.helpers import sent_frames


class Transport(asyncio.WriteTransport):
    """Takes ``room`` bytes, keeps further ones, and pauses the outbox as asyncio's transports do."""

    def __init__(self, room: int = 1 << 40) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.room = room
        self.kept = 0
        self.outbox: Outbox | None = None
        self.tls = False
        self.aborted = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes | memoryview)
        self.writes.append(bytes(data))
        taken = min(self.room, len(data))
        self.room -= taken
        before, self.kept = self.kept, self.kept + len(data) - taken
        if not before and self.kept and self.outbox is not None:
            self.outbox.pause()

    def take(self, size: int = 1 << 40) -> None:
        """Lets the peer read ``size`` bytes."""
        taken = min(size, self.kept)
        self.kept -= taken
        self.room += size - taken
        if not self.kept and self.outbox is not None:
            self.outbox.resume()

    def get_write_buffer_size(self) -> int:
        return self.kept

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if self.tls and name == "ssl_object" else default

    def abort(self) -> None:
        self.aborted = True
        self.kept = 0


class Owner:
    def __init__(self) -> None:
        self.disconnected: list[str] = []
        self.caught_up_count = 0

    def handle_event(self, event: Event) -> None: ...

    def disconnect_fast(self) -> None: ...

    def disconnect_slow(self, slowness: Slowness) -> None:
        self.disconnected.append(slowness)

    def caught_up(self) -> None:
        self.caught_up_count += 1

    def end_after(self, error: BaseException) -> None:
        raise NotImplementedError


class Rig:
    """An outbox with the objects that it uses."""

    def __init__(self, room: int = 1 << 40, *, hub: Hub | None = None, **limits: float) -> None:
        self.clock = ManualClock()
        self.stats = Stats()
        self.hub = hub or Hub(Limits(**limits), clock=self.clock, stats=self.stats)  # type: ignore[arg-type]
        self.connection = Connection(Role.SERVER)
        self.transport = Transport(room)
        self.owner = Owner()
        self.outbox = self.transport.outbox = Outbox(self.connection, self.transport, self.owner, self.hub)

    def post(self, text: str, policy: Policy = "disconnect") -> None:
        prepared = PreparedMessage(text)
        if self.outbox.behind:
            self.outbox.post(prepared, policy)
        else:
            self.connection.send_prepared(prepared)
            self.outbox.schedule(prepared.size)

    def fall_behind(self) -> None:
        """Fills the transport, because the peer no longer reads."""
        self.transport.room = 0
        self.connection.send_text("first")
        self.outbox.flush()
        assert self.outbox.behind

    def texts(self) -> list[str]:
        """Returns the texts that were written to the transport."""
        return [payload.decode() for _, payload in sent_frames(Role.SERVER, b"".join(self.transport.writes))]


async def test_frames_of_one_tick_are_sent_in_one_write() -> None:
    first = Rig()
    rigs = [first, Rig(hub=first.hub), Rig(hub=first.hub)]
    for text in ("a", "b"):
        for rig in rigs[:2]:
            rig.post(text)
    assert [rig.transport.writes for rig in rigs] == [[], [], []]
    await asyncio.sleep(0)
    assert [rig.transport.writes for rig in rigs] == [[b"\x81\x01a\x81\x01b"]] * 2 + [[]]
    first.post("c")
    await asyncio.sleep(0)
    assert first.transport.writes[1:] == [b"\x81\x01c"]
    assert first.stats.bytes_out == 15


async def test_flush_writes_at_once_and_nothing_is_written_twice() -> None:
    rig = Rig()
    rig.post("a")
    rig.outbox.flush()
    assert rig.transport.writes == [b"\x81\x01a"]
    await asyncio.sleep(0)
    rig.outbox.flush()
    assert rig.transport.writes == [b"\x81\x01a"]


async def test_many_posts_in_one_tick_count_for_the_limit() -> None:
    """Large queues are written before the tick ends, so that the transport pauses and the limit applies."""
    rig = Rig(room=100_000, max_queue=200_000)
    while not rig.owner.disconnected:
        rig.post("x" * 10_000)
    assert sum(map(len, rig.transport.writes)) < 200_000


async def test_the_backlog_is_sent_in_order_when_the_peer_reads() -> None:
    rig = Rig()
    rig.fall_behind()
    rig.post("a")
    sending = asyncio.create_task(rig.outbox.send(PreparedMessage("b"), 3))
    await asyncio.sleep(0)
    rig.post("c")
    assert rig.outbox.size == 7 + 3 * (3 + ENTRY_COST)
    assert rig.hub.budget.queued == rig.outbox.held == rig.outbox.size + CALL_COST
    rig.transport.take()
    assert await sending is True
    rig.post("d")
    await asyncio.sleep(0)
    assert rig.texts() == ["first", "a", "b", "c", "d"]
    assert not rig.outbox.behind
    assert rig.hub.budget.queued == 0


async def test_the_backlog_is_sent_in_writes_of_limited_size() -> None:
    rig = Rig(max_queue=10 << 20)
    rig.fall_behind()
    for _ in range(100):
        rig.post("x" * 10_000)
    rig.transport.take(7 + 100_000)
    assert rig.outbox.behind
    assert max(map(len, rig.transport.writes)) < 80_000
    rig.transport.take()
    assert len(rig.texts()) == 101
    assert not rig.outbox.behind


async def test_the_policy_disconnect_drops_no_message_and_ends_a_peer_that_does_not_read() -> None:
    rig = Rig(max_queue=7 + 9 * (10 + ENTRY_COST), send_timeout=20)
    rig.fall_behind()
    for _ in range(9):
        rig.post("12345678")  # 10 bytes each, and 7 in the transport
    await rig.clock.advance(60)
    assert rig.owner.disconnected == []
    rig.post("12345678")
    await rig.clock.advance(19)
    assert rig.owner.disconnected == []
    await rig.clock.advance(2)
    assert rig.owner.disconnected == ["backlog full"]
    assert rig.outbox.dropped == 0
    assert rig.hub.budget.queued == 0


async def test_a_peer_that_reads_is_sent_a_burst_of_any_size() -> None:
    rig = Rig(max_queue=1 << 20, send_timeout=20)
    rig.fall_behind()
    for number in range(60):
        rig.post(f"{number:050000}")
    for _ in range(60):
        await rig.clock.advance(10)
        rig.transport.take(MIN_PROGRESS)
    assert rig.owner.disconnected == []
    rig.transport.take()
    assert rig.texts() == ["first", *(f"{number:050000}" for number in range(60))]
    await rig.clock.advance(60)
    assert rig.owner.disconnected == []
    assert rig.hub.budget.queued == 0


async def test_pings_and_pongs_for_a_peer_that_is_behind_are_counted() -> None:
    rig = Rig()
    rig.fall_behind()
    for _ in range(10):
        rig.connection.send_pong(b"x" * 20)
        rig.outbox.schedule(20)
    assert rig.outbox.size == rig.hub.budget.queued == 7 + 10 * (20 + FRAME_COST)
    rig.transport.take()
    assert rig.outbox.size == rig.hub.budget.queued == 0


async def test_one_message_may_be_larger_than_the_queue() -> None:
    rig = Rig(max_queue=10)
    rig.fall_behind()
    rig.post("x" * 1000)
    assert rig.owner.disconnected == []
    rig.transport.take()
    assert rig.texts() == ["first", "x" * 1000]


async def test_drop_newest() -> None:
    rig = Rig(max_queue=7 + 2 * (6 + ENTRY_COST))
    rig.fall_behind()
    for text in ("aaaa", "bbbb", "cccc"):
        rig.post(text, "drop_newest")
    rig.transport.take()
    assert rig.texts() == ["first", "aaaa", "bbbb"]
    assert rig.outbox.dropped == 1
    assert rig.stats.dropped == {"drop_newest": 1}


async def test_drop_oldest_keeps_messages_that_must_not_be_dropped() -> None:
    rig = Rig(max_queue=7 + 3 * (6 + ENTRY_COST))
    rig.fall_behind()
    rig.post("keep")
    for text in ("aaaa", "bbbb", "cccc"):
        rig.post(text, "drop_oldest")
    rig.transport.take()
    assert rig.texts() == ["first", "keep", "bbbb", "cccc"]
    assert rig.stats.dropped == {"drop_oldest": 1}
    rig.fall_behind()
    rig.post("keep")
    rig.post("this")
    rig.post("also")
    rig.post("late", "drop_oldest")  # only this one may be dropped
    rig.transport.take()
    assert rig.texts()[-3:] == ["keep", "this", "also"]
    assert rig.outbox.dropped == 2


async def test_coalesce_keeps_the_newest_of_each_key_in_order() -> None:
    rig = Rig()
    rig.fall_behind()
    rig.post("a1", Coalesce("a"))
    rig.post("b1", Coalesce("b"))
    rig.post("chat")
    rig.post("a2", Coalesce("a"))
    rig.post("a3", Coalesce("a"))
    rig.transport.take()
    assert rig.texts() == ["first", "b1", "chat", "a3"]
    assert rig.stats.dropped == {"coalesce": 2}
    rig.post("a4", Coalesce("a"))
    rig.post("a5", Coalesce("a"))
    await asyncio.sleep(0)
    assert rig.texts()[-2:] == ["a4", "a5"]  # a peer that is not behind gets all messages


async def test_coalesce_with_too_many_keys_drops_the_oldest() -> None:
    rig = Rig(max_queue=7 + 2 * (4 + ENTRY_COST + KEY_COST + sys.getsizeof(2)))
    rig.fall_behind()
    for key in range(3):
        rig.post(f"k{key}", Coalesce(key))
    rig.transport.take()
    assert rig.texts() == ["first", "k1", "k2"]


async def test_senders_wait_for_space_in_order() -> None:
    rig = Rig(max_queue=7 + ENTRY_COST + 5)
    rig.fall_behind()
    tasks = []
    for text in ("a", "b", "c"):
        tasks.append(asyncio.create_task(rig.outbox.send(PreparedMessage(text), 3)))
        await asyncio.sleep(0)
    assert [task.done() for task in tasks] == [False] * 3
    assert rig.outbox.size == 7 + 3 + ENTRY_COST  # the other senders still hold their messages
    rig.transport.take()
    assert await asyncio.gather(*tasks) == [True] * 3
    assert rig.texts() == ["first", "a", "b", "c"]


async def test_the_message_of_a_cancelled_sender_is_not_sent() -> None:
    rig = Rig(max_queue=8)
    rig.fall_behind()
    first = asyncio.create_task(rig.outbox.send("a", 3))
    await asyncio.sleep(0)
    second = asyncio.create_task(rig.outbox.send(b"b", 3))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    rig.transport.take()
    assert await first
    assert rig.texts() == ["first", "a"]


async def test_a_peer_that_reads_nothing_is_disconnected_after_the_timeout() -> None:
    rig = Rig(send_timeout=20)
    rig.fall_behind()
    sending = asyncio.create_task(rig.outbox.send(b"x", 3))
    await rig.clock.advance(19.9)
    assert rig.owner.disconnected == []
    await rig.clock.advance(0.2)
    assert rig.owner.disconnected == ["send timeout"]
    assert await sending is False


async def test_a_peer_that_reads_too_little_is_disconnected() -> None:
    for size, expected in ((MIN_PROGRESS - 1, ["send timeout"]), (MIN_PROGRESS, [])):
        rig = Rig(send_timeout=20)
        rig.transport.room = 0
        rig.connection.send_binary(bytes(3 * MIN_PROGRESS))
        rig.outbox.flush()
        sending = asyncio.create_task(rig.outbox.send(b"x", 3))
        await asyncio.sleep(0)
        rig.transport.take(size)
        await rig.clock.advance(21)
        assert rig.owner.disconnected == expected
        rig.outbox.finish()
        assert await sending is False


async def test_without_a_waiting_sender_there_is_no_timeout() -> None:
    rig = Rig(send_timeout=20)
    rig.fall_behind()
    sending = asyncio.create_task(rig.outbox.send(b"x", 3))
    await asyncio.sleep(0)
    sending.cancel()
    await rig.clock.advance(60)
    assert rig.owner.disconnected == []


async def test_over_the_total_limit_the_largest_backlog_is_disconnected() -> None:
    first = Rig(max_total_queue=1800, max_queue=10_000)
    rigs = [first, Rig(hub=first.hub), Rig(hub=first.hub)]
    for rig, size in zip(rigs, (100, 600, 300), strict=True):
        rig.fall_behind()
        rig.post("x" * size)
    assert [rig.owner.disconnected for rig in rigs] == [[], [], []]
    rigs[0].post("y" * 150)
    assert [rig.owner.disconnected for rig in rigs] == [[], ["budget exceeded"], []]
    assert first.hub.budget.queued == rigs[0].outbox.size + rigs[2].outbox.size
    rigs[0].post("y" * 900)
    assert rigs[0].owner.disconnected == ["budget exceeded"]


async def test_the_end_drops_the_backlog_and_sends_the_close() -> None:
    rig = Rig()
    rig.fall_behind()
    rig.post("never")
    rig.connection.fail(1008)
    rig.outbox.finish()
    assert rig.transport.writes[-1][:1] == b"\x88"
    rig.transport.take()
    assert len(rig.transport.writes) == 2
    rig.outbox.pause()
    assert not rig.outbox.behind
    assert rig.hub.budget.queued == 0


async def test_the_backlog_can_be_sent_before_a_close() -> None:
    rig = Rig()
    rig.fall_behind()
    rig.post("a")
    rig.post("b")
    rig.outbox.encode_backlog()
    rig.connection.close()
    rig.outbox.finish()
    rig.transport.take()
    frames = sent_frames(Role.SERVER, b"".join(rig.transport.writes))
    assert [first for first, _ in frames] == [0x81, 0x81, 0x81, 0x88]


async def test_wait_sent_waits_for_frames_that_it_writes_itself() -> None:
    rig = Rig(room=0)
    rig.connection.send_text("not written yet")
    draining = asyncio.create_task(rig.outbox.wait_sent())
    await asyncio.sleep(0)
    assert rig.outbox.behind
    assert not draining.done()
    rig.transport.take()
    assert await draining
    assert await rig.outbox.wait_sent()
    rig.outbox.finish()
    assert not await rig.outbox.wait_sent()


async def test_pongs_wait_while_the_peer_is_behind() -> None:
    """Pongs for a peer that does not read stay in the codec, which limits their number."""
    rig = Rig()
    rig.fall_behind()
    writes = len(rig.transport.writes)
    rig.connection.send_pong(b"x")
    rig.outbox.schedule(3)
    await asyncio.sleep(0)
    assert len(rig.transport.writes) == writes
    rig.transport.take()
    assert rig.transport.writes[-1] == b"\x8a\x01x"


@pytest.mark.parametrize("policy", ["drop", "", None, 5])
def test_invalid_policies(policy: object) -> None:
    with pytest.raises(ValueError, match="not a policy"):
        check_policy(policy)  # type: ignore[arg-type]


def test_a_key_may_be_a_function_of_the_message() -> None:
    assert coalesce(lambda message: message[:1]).resolve("abc") == coalesce("a")
    assert coalesce("k").resolve("abc") == coalesce("k")


async def test_a_long_backlog_leaves_the_loop_to_others_and_nothing_overtakes_it() -> None:
    rig = Rig(max_queue=64 << 20)
    rig.fall_behind()
    for number in range(100):
        rig.post(f"{number:050000}")
    rig.transport.take()
    assert rig.outbox.behind  # 1 MiB is written, and the rest waits for the next turn
    assert 1 << 20 < sum(map(len, rig.transport.writes)) < 2 << 20
    rig.post("last")
    await settle()
    assert not rig.outbox.behind
    assert rig.texts() == ["first", *(f"{number:050000}" for number in range(100)), "last"]
    assert rig.hub.budget.queued == 0


async def test_what_a_close_leaves_in_the_transport_counts_until_it_is_written() -> None:
    rig = Rig()
    rig.fall_behind()
    rig.post("x" * 10_000)
    rig.outbox.encode_backlog()
    rig.connection.close()
    rig.outbox.finish()
    assert rig.hub.budget.queued == rig.outbox.size == rig.transport.kept > 10_000
    rig.transport.take()
    assert rig.hub.budget.queued == 0
    rig = Rig()
    rig.fall_behind()
    rig.outbox.finish()
    assert rig.hub.budget.queued > 0
    rig.outbox.release()
    assert rig.hub.budget.queued == 0


async def test_over_the_total_limit_a_connection_that_is_ending_is_aborted() -> None:
    first = Rig(max_total_queue=1000)
    second = Rig(hub=first.hub)
    first.transport.room = 0
    first.connection.send_binary(bytes(900))
    first.outbox.flush()
    first.outbox.finish()
    second.fall_behind()
    second.post("x" * 100)
    assert first.transport.aborted
    assert first.owner.disconnected == second.owner.disconnected == []
    assert first.hub.budget.queued == second.outbox.size


async def test_callbacks_of_a_disconnected_peer_may_post() -> None:
    rigs = [Rig(max_total_queue=200_000, max_queue=100_000)]
    rigs += [Rig(hub=rigs[0].hub) for _ in range(300)]
    depth = deepest = 0

    def post_to_all(slowness: Slowness) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        for rig in rigs:
            if rig.outbox.behind:
                rig.post("left")
        depth -= 1

    for rig in rigs:
        rig.owner.disconnect_slow = post_to_all  # type: ignore[method-assign]
        rig.fall_behind()
    while sum(rig.outbox.behind for rig in rigs) > 100:
        for rig in rigs:
            if rig.outbox.behind:
                rig.post("x" * 100)
    assert deepest == 1
    assert rigs[0].hub.budget.queued <= 200_000


async def test_over_tls_a_large_message_is_written_in_pieces() -> None:
    rig = Rig(room=100_000)
    rig.transport.tls = True
    rig.connection.send_binary(bytes(1_000_000))
    rig.outbox.flush()
    assert max(map(len, rig.transport.writes)) <= 65536
    assert sum(map(len, rig.transport.writes)) == 1_000_010
    assert rig.outbox.behind
    assert rig.hub.budget.queued == rig.outbox.size == 1_000_010 - 100_000


async def test_one_message_above_the_queue_has_to_be_read_too() -> None:
    rig = Rig(max_queue=1000, send_timeout=20)
    rig.transport.room = 0
    rig.connection.send_binary(bytes(100_000))
    rig.outbox.flush()
    await rig.clock.advance(21)
    assert rig.owner.disconnected == ["backlog full"]
