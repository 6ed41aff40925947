import itertools

import pytest

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    CloseReceived,
    ConnectionClosed,
    ConnectionFailed,
    Ping,
    Pong,
    RemoteProtocolError,
    TextFragment,
    TextMessage,
)
from rfc6455.events import NO_EVENTS


def test_events_compare_by_class_and_value() -> None:
    assert TextMessage("a") == TextMessage("a")
    assert TextMessage("a") != TextMessage("b")
    of_same_shape: list[object] = [Ping(b"a"), Pong(b"a"), BinaryMessage(b"a")]
    assert all(a != b for a, b in itertools.combinations(of_same_shape, 2))
    assert TextFragment("a", False) != TextFragment("a", True)


def test_events_can_be_matched_by_name_and_by_position() -> None:
    match ConnectionClosed(1000, "bye", True):
        case ConnectionClosed(code, reason=reason, clean=True):
            assert (code, reason) == (1000, "bye")
        case _:
            pytest.fail("no match")


def test_an_event_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        CloseReceived(1000, "").other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "event",
    [
        TextMessage("a"),
        BinaryMessage(b"a"),
        TextFragment("a", True),
        BinaryFragment(b"a", True),
        Ping(b""),
        Pong(b""),
        CloseReceived(1000, ""),
        ConnectionFailed(1002, "why", RemoteProtocolError("why", slug="s")),
        ConnectionClosed(1000, "", True),
    ],
    ids=lambda event: type(event).__name__,
)
def test_events_have_no_dictionary(event: object) -> None:
    """It would double the memory of a message."""
    assert not hasattr(event, "__dict__")


def test_the_shared_empty_batch_stays_empty() -> None:
    NO_EVENTS.append(Ping(b""))
    NO_EVENTS.appendleft(Ping(b""))
    NO_EVENTS.extend([Ping(b"")])
    assert not NO_EVENTS
