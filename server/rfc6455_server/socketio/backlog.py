"""What waits for a client that polls, or that still receives what it missed: bounded as on a WebSocket.

Left to others: when messages leave (`session`), the queue itself and its policies
(`rfc6455_server.websocket.backlog`).
"""

from collections.abc import Callable

from rfc6455 import PreparedMessage
from rfc6455_server.clock import Timer
from rfc6455_server.policies import Coalesce, Policy
from rfc6455_server.websocket.backlog import Backlog, Waiting
from rfc6455_server.websocket.hub import Hub
from rfc6455_server.websocket.outbox import MIN_PROGRESS


class SessionBacklog:
    """The waiting messages of one session.

    Nothing is dropped for a client that keeps taking messages, unless a policy says so. One that takes less
    than `MIN_PROGRESS` within the send timeout while more than ``Limits.max_queue`` waits is given to
    ``too_slow``.
    """

    __slots__ = ("_backlog", "_hub", "_timer", "_too_slow", "dropped", "taken")

    def __init__(self, hub: Hub, too_slow: Callable[[], None]) -> None:
        self._hub = hub
        self._too_slow = too_slow
        self._backlog: Backlog | None = None  # most sessions never need one
        self._timer: Timer | None = None
        self.taken = 0
        """Bytes that the client has taken so far."""
        self.dropped = 0
        """Messages that a policy dropped."""

    def __len__(self) -> int:
        return 0 if self._backlog is None else len(self._backlog)

    @property
    def size(self) -> int:
        """Bytes that the waiting messages count for."""
        return 0 if self._backlog is None else self._backlog.size

    def post(self, message: PreparedMessage, policy: Policy | None) -> None:
        """Queues a message if the policy finds room. ``None`` stands for the server's policy."""
        policy = policy or self._hub.policy
        if isinstance(policy, Coalesce):
            policy = policy.resolve(message.message)
        if self._backlog is None:
            self._backlog = Backlog(0, self._hub.budget)
        if self._backlog.post(message, policy, self._hub.limits.max_queue, self.count_drop):
            self._start_timer()

    def popleft(self) -> Waiting:
        assert self._backlog is not None  # noqa: S101 - it is not empty
        return self._backlog.popleft()

    def close(self) -> None:
        """Drops everything, and the reference to the session, which would keep both alive."""
        self._too_slow = _do_nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._backlog is not None:
            self._backlog.clear()
            self._backlog = None

    def count_drop(self, policy: str) -> None:
        """Counts a message that was dropped."""
        self.dropped += 1
        self._hub.stats.dropped[policy] += 1

    def _start_timer(self) -> None:
        if self._timer is None:
            timeout = self._hub.limits.send_timeout
            self._timer = self._hub.clock.call_later(timeout, self._check_progress, self.taken)

    def _check_progress(self, taken: int) -> None:
        self._timer = None
        if self.size <= self._hub.limits.max_queue:
            return
        if self.taken - taken < MIN_PROGRESS:
            self._too_slow()
        else:
            self._start_timer()


def _do_nothing() -> None:
    """Replaces the function for a client that is too slow, once its session has ended."""
