"""wsproto and websockets as oracles: the same bytes, and a table of what may differ (`differences.toml`)."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import Role
from tests import differences
from tests.differences import Kind
from tests.helpers import raw_frame
from tests.oracles import Answer, difference, ours, websockets, wsproto
from tests.rules import RULES


def test_the_same_but_for_what_is_listed() -> None:
    unlisted, unseen = differences.unlisted_and_unseen()
    assert unlisted == {}
    assert unseen == []


def test_the_page_is_current() -> None:
    """``python -m tests.differences --write`` writes it."""
    assert differences.PAGE.read_text() == differences.page()


def test_each_row_names_a_section() -> None:
    for row in differences.rows():
        assert row.why.startswith("RFC "), row
        assert "§" in row.why, row


def test_no_kind_is_listed_twice() -> None:
    kinds = [kind for row in differences.rows() for kind in row.kinds()]
    assert len(kinds) == len(set(kinds))


def test_an_unlisted_difference_and_a_row_that_does_not_show_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = Kind("frames", "wsproto", "bad-opcode", "accepts")
    monkeypatch.setattr(differences, "found", lambda: {seen: b"x"})
    unlisted, unseen = differences.unlisted_and_unseen()
    assert unlisted == {seen: b"x"}
    assert set(unseen) == set(differences.listed())


@pytest.mark.parametrize(
    ("our", "their", "word"),
    [
        (Answer(["a"], None), Answer(["a"], None), ""),
        (Answer(["a"], 1002, "bad-rsv"), Answer(["a"], 1002), ""),
        (Answer(["a"], 1007, "bad-utf8"), Answer(["a"], 1002), "1002"),
        (Answer(["a"], 1002, "bad-rsv"), Answer(["a", "b"], 1002), "accepts"),
        (Answer(["a"], 1002, "bad-rsv"), Answer(["a"], None), "later"),
        (Answer(["a"], 1002, "bad-rsv"), Answer(["b"], 1002), "messages"),
        (Answer(["a", "b"], 1002, "bad-rsv"), Answer(["a"], 1002), "messages"),
        (Answer(["a"], None), Answer(["a"], 1002), "earlier"),
        (Answer(["a", "b"], None), Answer(["a"], 1002), "fails"),
        (Answer(["a", "b"], None), Answer(["a"], None), "messages"),
        (Answer(["a"], 1000), Answer(["a"], 1001), "earlier"),
    ],
)
def test_a_difference_in_one_word(our: Answer, their: Answer, word: str) -> None:
    assert difference(our, their) == word


@pytest.mark.parametrize(("role", "code", "slug", "data"), RULES)
def test_violations(role: Role, code: int, slug: str, data: bytes) -> None:
    answer = ours(role, data)
    assert (answer.code, answer.slug) == (code, slug)


@st.composite
def conversation(draw: st.DrawFn, role: Role) -> bytes:
    """Draws valid messages in fragments, with control frames between them, and perhaps a Close."""
    data = b""
    for _ in range(draw(st.integers(0, 5))):
        whole = draw(st.text(max_size=100).map(str.encode) | st.binary(max_size=300))
        try:
            whole.decode()
            first = draw(st.sampled_from([1, 2]))
        except UnicodeDecodeError:
            first = 2
        bounds = sorted({0, len(whole), *draw(st.lists(st.integers(0, len(whole)), max_size=4))})
        pieces = [whole[a:b] for a, b in itertools.pairwise(bounds)] or [b""]
        for index, piece in enumerate(pieces):
            fin = index == len(pieces) - 1
            data += raw_frame(role, 0 if index else first, piece, fin=fin)
            if draw(st.booleans()):
                data += raw_frame(role, draw(st.sampled_from([9, 10])), draw(st.binary(max_size=125)))
    if draw(st.booleans()):
        code = draw(st.sampled_from([1000, 1001, 1011, 3000, 4999]))
        data += raw_frame(role, 8, code.to_bytes(2, "big") + draw(st.text(max_size=30)).encode())
    return data


@given(st.data(), st.sampled_from(Role))
def test_valid_conversations(data: st.DataObject, role: Role) -> None:
    sent = data.draw(conversation(role))
    assert ours(role, sent) == wsproto(role, sent) == websockets(role, sent)
