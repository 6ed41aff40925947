import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfc6455 import Extension, HandshakeError, Headers, LocalProtocolError
from rfc6455.headers import ascii_lower, is_token, parse_extensions, parse_token_list

tokens = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("text", "lower"),
    [
        ("", ""),
        ("WebSocket", "websocket"),
        ("AZ[@`az", "az[@`az"),
        ("\u212aEY", "\u212aey"),  # the Kelvin sign, whose str.lower() is k
        ("WEB\u017fOCKET", "web\u017focket"),  # the long s, whose str.upper() is S
        ("\u0130É", "\u0130É"),
    ],
)
def test_only_ascii_letters_change_case(text: str, lower: str) -> None:
    assert ascii_lower(text) == lower


@pytest.mark.parametrize("text", ["a", "!#$%&'*+-.^_`|~", "chat.v2"])
def test_valid_tokens(text: str) -> None:
    assert is_token(text)


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a,b", 'a"', "a/b", "a\n", "a\n\n", "é", "\u212a", "a;", "a="]
)
def test_invalid_tokens(text: str) -> None:
    assert not is_token(text)


def test_names_ignore_ascii_case_and_keep_their_order() -> None:
    headers = Headers([("Host", "a"), ("X-One", "1"), ("x-one", " 2\t")])
    assert headers.get("HOST") == "a"
    assert headers["host"] == "a"
    assert headers.get_all("X-ONE") == ["1", "2"]
    assert list(headers) == [("Host", "a"), ("X-One", "1"), ("x-one", "2")]
    assert len(headers) == 3
    assert "hOsT" in headers
    assert "other" not in headers
    assert 1 not in headers
    assert repr(headers) == "Headers([('Host', 'a'), ('X-One', '1'), ('x-one', '2')])"


def test_white_space_around_a_value_is_space_and_tab_only() -> None:
    assert list(Headers([("X", " \t\xa0a\x85\t ")])) == [("X", "\xa0a\x85")]


def test_a_missing_field() -> None:
    headers = Headers()
    assert headers.get("Host") is None
    assert headers.get("Host", "default") == "default"
    assert headers.get_all("Host") == []
    with pytest.raises(KeyError):
        headers["Host"]


def test_a_repeated_field_has_no_single_value() -> None:
    headers = Headers([("Host", "a"), ("host", "a")])
    with pytest.raises(HandshakeError) as caught:
        headers.get("Host")
    assert (caught.value.slug, caught.value.status) == ("doubled-field", 400)
    with pytest.raises(HandshakeError):
        headers["Host"]


def test_get_all_returns_a_copy() -> None:
    headers = Headers([("Host", "a")])
    headers.get_all("Host").append("b")
    assert headers.get_all("Host") == ["a"]


def test_equality_ignores_the_case_of_names_only() -> None:
    assert Headers([("Host", "a")]) == Headers([("HOST", "a")])
    assert Headers([("Host", "a")]) != Headers([("Host", "A")])
    assert Headers() != []


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "naïve", "\u212aey"])
def test_invalid_field_names(name: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Headers([(name, "x")])
    assert caught.value.slug == "bad-field-name"


@pytest.mark.parametrize("value", ["a\r\nb", "a\n", "\r", "a\0", "\x7f", "\x1b[0m", "\u0100", "\u212a"])
def test_invalid_field_values(value: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Headers([("name", value)])
    assert caught.value.slug == "bad-field-value"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        (["chat"], ["chat"]),
        (["chat, superchat"], ["chat", "superchat"]),
        (["chat,superchat", "third"], ["chat", "superchat", "third"]),
        (["\t chat \t,\tsuperchat"], ["chat", "superchat"]),
        ([",, chat ,,", ""], ["chat"]),
    ],
)
def test_token_lists(values: list[str], expected: list[str]) -> None:
    assert parse_token_list(values) == expected


@pytest.mark.parametrize("value", ["a b", "a;b", '"a"', "é", "a,\x0b"])
def test_bad_token_lists(value: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        parse_token_list([value])
    assert (caught.value.slug, caught.value.status) == ("bad-token-list", 400)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([""], []),
        ([" , ,"], []),
        (["foo"], [Extension("foo")]),
        (["foo, bar; baz=2"], [Extension("foo"), Extension("bar", (("baz", "2"),))]),
        (["foo", "bar; baz=2"], [Extension("foo"), Extension("bar", (("baz", "2"),))]),
        (["a;x;y=1;x"], [Extension("a", (("x", None), ("y", "1"), ("x", None)))]),
        (["a ; x = 1 ;\ty"], [Extension("a", (("x", "1"), ("y", None)))]),
        (['a; x="1"; y="\\1\\0"'], [Extension("a", (("x", "1"), ("y", "10")))]),
        (["a,,b"], [Extension("a"), Extension("b")]),
    ],
)
def test_extension_lists(values: list[str], expected: list[Extension]) -> None:
    assert parse_extensions(values) == expected


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "a;",
        "a;;b",
        "a=1",
        "a; =1",
        "a; x=",
        'a; x="',
        'a; x="1',
        'a; x=""',
        'a; x="1 2"',
        'a; x="1"2',
        "a; x=1 2",
        ";",
        "é",
        "a; é",
        'a; x="é"',
        'a; x="\\',
        '"a"',
        "a; x==1",
        'a; x="a,b"',
    ],
)
def test_bad_extension_lists(value: str) -> None:
    with pytest.raises(HandshakeError) as caught:
        parse_extensions([value])
    assert caught.value.slug == "bad-extensions"


@given(
    st.lists(
        st.builds(Extension, tokens, st.lists(st.tuples(tokens, st.none() | tokens), max_size=3).map(tuple)),
        max_size=4,
    )
)
def test_formatted_extensions_are_parsed_again(extensions: list[Extension]) -> None:
    assert parse_extensions([", ".join(map(str, extensions))]) == extensions


@given(st.text(max_size=40))
def test_any_value_is_parsed_or_rejected(value: str) -> None:
    for parse in (parse_extensions, parse_token_list):
        try:
            parse([value])
        except HandshakeError:
            pass


@pytest.mark.parametrize("name", ["Host", "host", "Sec-WebSocket-Key", "x-forwarded-for"])
def test_common_names_are_stored_once_for_all_connections(name: str) -> None:
    first, second = (Headers([(name.encode().decode(), "a")]) for _ in range(2))
    assert next(iter(first))[0] is next(iter(second))[0]
    assert next(iter(first._index)) is next(iter(second._index))


def test_every_spelling_of_a_common_name_is_kept() -> None:
    for name in ("Host", "host", "HOST", "hOST"):
        headers = Headers([(name, "a")])
        assert list(headers) == [(name, "a")]
        assert (headers["Host"], "host" in headers) == ("a", True)
