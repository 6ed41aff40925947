import pytest

from rfc6455_server.websocket import lingering
from rfc6455_server.websocket.lingering import Lingering


def test_the_oldest_is_closed_for_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "MAX_LINGERING", 2)
    lingered = Lingering()
    closed: list[str] = []
    for name in ("a", "b", "c"):
        lingered.add(name, lambda name=name: closed.append(name))  # type: ignore[misc]
    assert (closed, len(lingered)) == (["a"], 2)
    lingered.discard("b")
    lingered.discard("b")
    lingered.discard("a")
    assert len(lingered) == 1
    assert lingered.close_all()
    assert (closed, len(lingered)) == (["a", "c"], 0)
    assert not lingered.close_all()


def test_closing_one_may_remove_it_again() -> None:
    lingered = Lingering()
    for name in ("a", "b"):
        lingered.add(name, lambda name=name: lingered.discard(name))  # type: ignore[misc]
    assert lingered.close_all()
    assert len(lingered) == 0
