import itertools

import pytest

from rfc6455 import BinaryMessage, CloseReceived, ConnectionClosed, Ping, Pong, TextFragment, TextMessage


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
