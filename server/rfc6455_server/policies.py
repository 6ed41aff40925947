"""Slow-consumer policies: what happens to a message for a peer that does not read as fast as we send.

Left to others: the queue itself (`websocket.backlog`), and where a policy is set (`app`, `rooms`).
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, get_args


@dataclass(frozen=True, slots=True)
class Coalesce:
    """The policy that `coalesce` returns."""

    key: Hashable | Callable[[str | bytes], Hashable]

    def resolve(self, message: str | bytes) -> "Coalesce":
        """Returns the policy for this message, with its key. Raises `TypeError` for a key that has no hash.

        A key function is called once for each broadcast; that of the server's policy, for each member that is
        behind.
        """
        if not callable(self.key):
            return self
        key = self.key(message)
        hash(key)
        return Coalesce(key)


_Word = Literal["disconnect", "drop_oldest", "drop_newest", "volatile"]

Policy = _Word | Coalesce
"""What happens to a message for a peer that is behind.

When the peer's backlog is full (``Limits.max_queue``), ``"disconnect"`` drops nothing: the peer has to keep
reading, or the connection ends with 1008 after ``Limits.send_timeout``. ``"drop_oldest"`` drops the oldest
messages that may be dropped, to make room; ``"drop_newest"`` drops the message itself. Two policies apply
whether or not the backlog is full: a ``"volatile"`` message is dropped whenever the peer is behind, and
`coalesce` keeps only the newest message of each key.
"""


def coalesce(key: Hashable | Callable[[str | bytes], Hashable]) -> Coalesce:
    """Returns the policy that a new message replaces a waiting one with the same key.

    ``key`` is the key, or a function that returns the key of a message. ``None`` is a key like any other.
    When messages with different keys fill the backlog, the oldest ones that may be dropped are dropped.
    Raises `TypeError` for a key that has no hash.
    """
    hash(key)
    return Coalesce(key)


def check_policy(policy: Policy) -> Policy:
    """Returns ``policy``; raises `ValueError` if it is not a policy."""
    if not isinstance(policy, Coalesce) and policy not in get_args(_Word):
        raise ValueError(f"not a policy: {policy!r}")
    return policy
