import gc
import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfc6455_server.socketio.packets import (
    MAX_ID,
    RESERVED_EVENTS,
    Decoder,
    Packet,
    PacketError,
    PacketOptions,
    PacketType,
    encode,
)
from tests.helpers import measured

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = PacketType


def decode(*messages: str | bytes, **options: Any) -> Packet:
    """Returns the packet of these messages; asserts that only the last one completes it."""
    decoder = Decoder(PacketOptions(**options))
    for message in messages[:-1]:
        assert decoder.receive(message) is None
        assert decoder.pending
    packet = decoder.receive(messages[-1])
    assert packet is not None
    assert not decoder.pending
    return packet


# Most are the examples of the protocol's specification.
EXAMPLES: list[tuple[Packet, list[str | bytes]]] = [
    (Packet(CONNECT), ["0"]),
    (Packet(CONNECT, data={"sid": "oSO0OpakMV_3jnilAAAA"}), ['0{"sid":"oSO0OpakMV_3jnilAAAA"}']),
    (Packet(CONNECT, "/admin"), ["0/admin,"]),
    (Packet(CONNECT, "/admin", {"token": "123"}), ['0/admin,{"token":"123"}']),
    (Packet(CONNECT, "/a?b=1"), ["0/a?b=1,"]),
    (
        Packet(CONNECT_ERROR, data={"message": "Not authorized", "data": {"code": 1}}),
        ['4{"message":"Not authorized","data":{"code":1}}'],
    ),
    (Packet(DISCONNECT), ["1"]),
    (Packet(DISCONNECT, "/admin"), ["1/admin,"]),
    (Packet(EVENT, data=["foo"]), ['2["foo"]']),
    (Packet(EVENT, "/admin", ["bar"]), ['2/admin,["bar"]']),
    (Packet(EVENT, data=["foo"], id=12), ['212["foo"]']),
    (Packet(EVENT, data=["foo"], id=0), ['20["foo"]']),
    (Packet(EVENT, "/a", ["foo"], MAX_ID), ['2/a,9007199254740991["foo"]']),
    (Packet(EVENT, data=[""]), ['2[""]']),
    (Packet(EVENT, data=["é", None, True, 1.5, "\n\x1e\x7f☺"]), ['2["é",null,true,1.5,"\\n\\u001e\x7f☺"]']),
    (Packet(EVENT, data=["a", {"_placeholder": True, "num": 0}]), ['2["a",{"_placeholder":true,"num":0}]']),
    (Packet(ACK, "/admin", [], 13), ["3/admin,13[]"]),
    (Packet(ACK, data=["ok", {"a": 1}], id=7), ['37["ok",{"a":1}]']),
    (Packet(ACK, data=["connect"], id=7), ['37["connect"]']),
    (
        Packet(EVENT, data=["baz", b"\x01\x02\x03"]),
        ['51-["baz",{"_placeholder":true,"num":0}]', b"\x01\x02\x03"],
    ),
    (
        Packet(EVENT, "/admin", ["baz", b"", {"b": [b"\xff"]}], 1),
        [
            '52-/admin,1["baz",{"_placeholder":true,"num":0},{"b":[{"_placeholder":true,"num":1}]}]',
            b"",
            b"\xff",
        ],
    ),
    (Packet(ACK, "/admin", [b"\x01"], 456), ['61-/admin,456[{"_placeholder":true,"num":0}]', b"\x01"]),
]


@pytest.mark.parametrize(("packet", "messages"), EXAMPLES, ids=lambda value: str(value)[:60])
def test_the_examples_are_encoded_and_decoded(packet: Packet, messages: list[str | bytes]) -> None:
    assert encode(packet) == messages
    assert decode(*messages) == packet


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0/admin", Packet(CONNECT, "/admin")),
        ("1/admin", Packet(DISCONNECT, "/admin")),
        ("0/,", Packet(CONNECT)),
        ('2[ "a" ,\n1 ] ', Packet(EVENT, data=["a", 1])),
        (r'2["\u00e9\ud83d\ude00"]', Packet(EVENT, data=["é😀"])),
        (r'2["\\ud800"]', Packet(EVENT, data=[r"\ud800"])),
        ('2["a",{"b":1,"b":2}]', Packet(EVENT, data=["a", {"b": 2}])),
        # A lone surrogate becomes U+FFFD wherever it stands; a pair, and an escaped backslash, stay.
        (r'2["a","\ud83d"]', Packet(EVENT, data=["a", "\ufffd"])),
        (r'2["\udc00\ud800",{"\uDFFF":[1]}]', Packet(EVENT, data=["\ufffd\ufffd", {"\ufffd": [1]}])),
        (r'2["a","\ud83d\ude00\ude00\\ud83d"]', Packet(EVENT, data=["a", "😀\ufffd\\ud83d"])),
        (
            r'2["a","\ud83d",0.1,1e22,12345678901234567890]',
            Packet(EVENT, data=["a", "\ufffd", 0.1, 1e22, 12345678901234567890]),
        ),
        ('2["a","é\ud800"]', Packet(EVENT, data=["a", "é\ufffd"])),
        (r'0{"token":"\ud83d"}', Packet(CONNECT, data={"token": "\ufffd"})),
        # The names of events may be numbers.
        ("2[1]", Packet(EVENT, data=["1"])),
        ("2[-1.0,1]", Packet(EVENT, data=["-1", 1])),
        ("2[1e20]", Packet(EVENT, data=["100000000000000000000"])),
        ("2[0.5]", Packet(EVENT, data=["0.5"])),
        # A namespace may hold what its client likes, except U+001E, which ends a message of polling.
        ("0/\n\x7f\x85,", Packet(CONNECT, "/\n\x7f\x85")),
        (
            '2["a",12345678901234567890,1e2]',
            Packet(EVENT, data=["a", 12345678901234567890, 100.0]),
        ),
        ("4{}", Packet(CONNECT_ERROR, data={})),
    ],
)
def test_other_accepted_forms(text: str, packet: Packet) -> None:
    assert decode(text) == packet


def test_placeholders_are_replaced_by_number() -> None:
    text = '52-["a",{"b":{"num":1,"_placeholder":true}},{"_placeholder":true,"num":0},{"_placeholder":false}]'
    packet = Packet(EVENT, data=["a", {"b": b"second"}, b"first", {"_placeholder": False}])
    assert decode(text, b"first", b"second") == packet


def test_attachments_are_numbered_in_order_and_tuples_become_arrays() -> None:
    same = b"same"
    data = ["a", (memoryview(b"xyz")[1:], bytearray(b"b")), {"c": same}, same]
    messages = encode(Packet(EVENT, data=data))
    assert messages[1:] == [b"yz", b"b", same, same]
    assert [type(message) for message in messages] == [str] + [bytes] * 4
    assert decode(*messages) == Packet(EVENT, data=["a", [b"yz", b"b"], {"c": same}, same])


def test_encoding_does_not_change_the_data() -> None:
    data = ["a", {"b": b"c"}]
    encode(Packet(EVENT, data=data))
    assert data == ["a", {"b": b"c"}]


def test_a_decoder_reads_one_packet_after_another() -> None:
    decoder = Decoder()
    for _ in range(2):
        for packet, messages in EXAMPLES:
            *first, last = map(decoder.receive, messages)
            assert first == [None] * len(first)
            assert last == packet


@pytest.mark.parametrize(
    ("messages", "slug"),
    [
        ([""], "bad-packet-type"),
        (["7"], "bad-packet-type"),
        (["a"], "bad-packet-type"),
        (["٢"], "bad-packet-type"),
        ([" 2[]"], "bad-packet-type"),
        # The number of attachments.
        (["5"], "bad-attachments"),
        (['5["a"]'], "bad-attachments"),
        (['5-["a"]'], "bad-attachments"),
        (['51["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['50-["a"]'], "bad-attachments"),
        (['501-["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['5-1-["a"]'], "bad-attachments"),
        (['51.0-["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['50x1-["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['5 1-["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['21-["a"]'], "bad-attachments"),
        (["01-"], "bad-attachments"),
        (['5101-["a"]'], "too-many-attachments"),
        (["6" + "9" * 5000 + "-1[]"], "too-many-attachments"),
        # Placeholders.
        (['51-["a"]'], "bad-attachments"),
        (['52-["a",{"_placeholder":true,"num":0}]'], "bad-attachments"),
        (['51-["a",{"_placeholder":true,"num":1}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":-1}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":0.0}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":false}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":"0"}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":null}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"x":0}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":0,"x":1}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]'], "bad-placeholder"),
        (['51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]'], "bad-placeholder"),
        (['51-[{"_placeholder":true,"num":0}]', b""], "bad-data"),
        # The order of messages.
        ([b""], "unexpected-binary"),
        (['2["a"]', b"x"], "unexpected-binary"),
        (['51-["a",{"_placeholder":true,"num":0}]', b"", b""], "unexpected-binary"),
        (['51-["a",{"_placeholder":true,"num":0}]', '2["a"]'], "attachment-missing"),
        (
            ['52-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]', b"", "2"],
            "attachment-missing",
        ),
        # Namespaces.
        (["0/\x1e,"], "bad-namespace"),
        (["0/\ud800,"], "bad-namespace"),
        (["0/" + "a" * 4096], "bad-namespace"),
        (["0admin,"], "bad-data"),
        # Ids.
        (['2007["a"]'], "bad-id"),
        (['200["a"]'], "bad-id"),
        (['29007199254740992["a"]'], "bad-id"),
        (["2" + "1" * 5000 + '["a"]'], "bad-id"),
        (["01{}"], "bad-id"),
        (["11"], "bad-id"),
        (["41{}"], "bad-id"),
        (["3[]"], "bad-id"),
        (['61-[{"_placeholder":true,"num":0}]'], "bad-id"),
        (['2-1["a"]'], "bad-data"),
        (['2 1["a"]'], "bad-data"),
        (['2٣["a"]'], "bad-data"),
        # Data by type.
        (["2"], "bad-data"),
        (["2[]"], "bad-data"),
        (["2[true]"], "bad-data"),
        (["2[1e21]"], "bad-data"),
        (["2[-1000000000000000000000]"], "bad-data"),
        (["2[null]"], "bad-data"),
        (['2[["a"]]'], "bad-data"),
        (['2{"a":1}'], "bad-data"),
        (['2"a"'], "bad-data"),
        (['2 ["a"]'], "bad-data"),
        (["31{}"], "bad-data"),
        (["31"], "bad-data"),
        (["0[]"], "bad-data"),
        (["0null"], "bad-data"),
        (['0"a"'], "bad-data"),
        (["1{}"], "bad-data"),
        (["1[]"], "bad-data"),
        (["4"], "bad-data"),
        (['4"message"'], "bad-data"),
        (["4[]"], "bad-data"),
        (['2["' + "a" * 65537 + '"]'], "event-name-too-long"),
        # JSON.
        (["0{"], "bad-json"),
        (['2["a"'], "bad-json"),
        (['2["a"]x'], "bad-json"),
        (['2["a"][]'], "bad-json"),
        (["2['a']"], "bad-json"),
        (['2["a",]'], "bad-json"),
        (['2["a\n"]'], "bad-json"),
        (['2["a",NaN]'], "bad-json"),
        (['2["a",-Infinity]'], "bad-json"),
        (['2["a",1e999]'], "bad-json"),
        (['2["a",-1e999]'], "bad-json"),
        (['2["a",' + "1" * 5000 + "]"], "bad-json"),
        (['2["a",01]'], "bad-json"),
        (['2["a",' + "[" * 256 + "]" * 256 + "]"], "too-deep"),
        (['2["a",' + "[" * 100_000 + "]" * 100_000 + "]"], "too-deep"),
        (['2["a",' + '{"b":' * 256 + "1" + "}" * 256 + "]"], "too-deep"),
    ]
    + [([f'2["{name}"]'], "reserved-event") for name in sorted(RESERVED_EVENTS)]
    + [(['51-["connect",{"_placeholder":true,"num":0}]'], "reserved-event")],
    ids=lambda value: re.sub(r"[^ -~]", "?", str(value))[:70],
)
def test_invalid_packets_raise(messages: list[str | bytes], slug: str) -> None:
    decoder = Decoder()
    with pytest.raises(PacketError) as caught:
        for message in messages:
            decoder.receive(message)
    assert caught.value.slug == slug


def test_the_limits_are_exact() -> None:
    cases: list[tuple[dict[str, int], str, str, str]] = [
        ({"max_nesting": 2}, '2["a",["[[["],{}]', '2["a",[[]]]', "too-deep"),
        ({"max_nesting": 1}, '2["a",1]', '2["a",{}]', "too-deep"),
        ({}, '2["a",' + "[" * 255 + "]" * 255 + "]", '2["a",' + "[" * 256 + "]" * 256 + "]", "too-deep"),
        ({"max_namespace_length": 3}, "0/é☺,", "0/abc,", "bad-namespace"),
        ({"max_namespace_length": 1}, "0", "0/a", "bad-namespace"),
        ({"max_event_name": 1}, '2["é"]', '2["ab"]', "event-name-too-long"),
    ]
    for limits, good, bad, slug in cases:
        decode(good, **limits)
        with pytest.raises(PacketError) as caught:
            decode(bad, **limits)
        assert caught.value.slug == slug


def test_the_number_of_attachments_is_limited_in_both_directions() -> None:
    ten = Packet(EVENT, data=["a", *[b"x"] * 10])
    eleven = Packet(EVENT, data=["a", *[b"x"] * 11])
    assert decode(*encode(ten)) == ten
    with pytest.raises(ValueError, match="more than 10 attachments"):
        encode(eleven)
    # The official clients send more than they receive.
    messages = encode(eleven, PacketOptions(max_attachments_sent=11))
    assert decode(*messages) == eleven
    with pytest.raises(PacketError) as caught:
        decode(*messages, max_attachments=10)
    assert caught.value.slug == "too-many-attachments"


def test_the_size_of_a_packet_is_limited_with_all_that_it_holds() -> None:
    messages = encode(Packet(EVENT, data=["a", b"x" * 1000, b"y" * 1000]))
    decoder = Decoder()
    assert decoder.held == 0
    decoder.receive(messages[0])
    text_cost = decoder.held
    assert text_cost > len(messages[0])
    decoder.receive(messages[1])
    held = decoder.held
    assert held - text_cost >= 1000 + sys.getsizeof(b"")
    assert decoder.receive(messages[2]) is not None
    assert decoder.held == 0
    cost = held + (held - text_cost)
    assert decode(*messages, max_packet_size=cost)
    with pytest.raises(PacketError) as caught:
        decode(*messages, max_packet_size=cost - 1)
    assert caught.value.slug == "packet-too-large"


@pytest.mark.parametrize(
    "item", ["[],", "{},", '{"a":1},', '"ab",', '"é😀",', "1.5,", "12345678,", '{"a":[]},']
)
def test_the_cost_of_json_is_at_least_what_python_holds(item: str) -> None:
    text = f'51-["a",{item * 10_000}{{"_placeholder":true,"num":0}}]'
    decoder = Decoder()
    with measured() as memory:
        decoder.receive(text)
        taken = memory()
    assert taken <= decoder.held <= 6 * taken


@pytest.mark.parametrize(
    "limit",
    [
        "max_attachments",
        "max_attachments_sent",
        "max_nesting",
        "max_namespace_length",
        "max_event_name",
        "max_packet_size",
    ],
)
def test_a_limit_is_at_least_one(limit: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PacketOptions(**{limit: 0})  # type: ignore[arg-type]


def test_json_beyond_the_recursion_limit_is_too_deep_for_any_max_nesting() -> None:
    with pytest.raises(PacketError) as caught:
        decode('2["a",' + "[" * 200_000 + "]" * 200_000 + "]", max_nesting=1 << 20)
    assert caught.value.slug == "too-deep"


def test_nesting_up_to_the_limit_is_read_and_sent_on_in_the_depth_of_a_call_stack() -> None:
    text = '2["a",' + "[" * 255 + "]" * 255 + "]"

    def call(depth: int) -> None:
        if depth:
            call(depth - 1)
        else:
            assert encode(decode(text)) == [text]

    call(200)


def test_a_lone_surrogate_is_sent_as_the_official_server_sends_it() -> None:
    packet = Packet(EVENT, data=["a\udc00", {"é\ud83d": "😀"}, b"x"])
    text, attachment = encode(packet)
    assert text == '51-["a\\udc00",{"é\\ud83d":"😀"},{"_placeholder":true,"num":0}]'
    assert attachment == b"x"
    assert json.loads(str(text)[3:])[:2] == packet.data[:2]


def test_circular_and_very_deep_data_cannot_be_sent() -> None:
    circle: list[Any] = ["a"]
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        encode(Packet(EVENT, data=circle))
    deep: list[Any] = []
    for _ in range(200_000):
        deep = [deep]
    with pytest.raises(ValueError, match="too deep"):
        encode(Packet(EVENT, data=["a", deep]))


@pytest.mark.parametrize(
    ("packet", "error", "text"),
    [
        (Packet(EVENT), ValueError, "starts with the event's name"),
        (Packet(EVENT, data=[]), ValueError, "starts with the event's name"),
        (Packet(EVENT, data=[1]), ValueError, "starts with the event's name"),
        (Packet(EVENT, data=("a",)), ValueError, "starts with the event's name"),
        (Packet(EVENT, data=["connect"]), ValueError, "reserved event name: connect"),
        (Packet(ACK, data=[]), ValueError, "an ACK must have an id"),
        (Packet(ACK, data={}, id=1), ValueError, "an ACK must have an id"),
        (Packet(CONNECT, data=[]), ValueError, "a dict or None"),
        (Packet(CONNECT_ERROR), ValueError, "CONNECT_ERROR must be a dict"),
        (Packet(DISCONNECT, data={}), ValueError, "no data"),
        (Packet(BINARY_EVENT, data=["a"]), ValueError, "use EVENT or ACK"),
        (Packet(BINARY_ACK, data=["a"], id=1), ValueError, "use EVENT or ACK"),
        (Packet(CONNECT, "admin"), ValueError, "not a namespace: 'admin'"),
        (Packet(CONNECT, ""), ValueError, "not a namespace"),
        (Packet(CONNECT, "/a,b"), ValueError, "not a namespace"),
        (Packet(CONNECT, "/a\x1e"), ValueError, "not a namespace"),
        (Packet(CONNECT, "/\ud800"), ValueError, "not a namespace"),
        (Packet(CONNECT, id=1), ValueError, "CONNECT has no id"),
        (Packet(EVENT, data=["a"], id=-1), ValueError, "not an id"),
        (Packet(EVENT, data=["a"], id=MAX_ID + 1), ValueError, "not an id"),
        (Packet(EVENT, data=["a"], id=True), ValueError, "not an id"),
        (Packet(EVENT, data=["a", float("nan")]), ValueError, "Out of range float"),
        (Packet(EVENT, data=["a", float("inf"), b""]), ValueError, "Out of range float"),
        (Packet(EVENT, data=["a", {1: 2}]), TypeError, "a key must be a string, not int"),
        (Packet(EVENT, data=["a", ({"b": [{None: 2}]},)]), TypeError, "a key must be a string, not NoneType"),
        (Packet(EVENT, data=["a", {b"k": 2}]), TypeError, "keys must be str"),
        (Packet(EVENT, data=["a", {1, 2}]), TypeError, "JSON cannot represent set"),
        (Packet(EVENT, data=["a", b"", ...]), TypeError, "JSON cannot represent ellipsis"),
        (Packet(CONNECT, data={"a": b""}), TypeError, "CONNECT carries no bytes"),
        (Packet(CONNECT_ERROR, data={"a": b""}), TypeError, "CONNECT_ERROR carries no bytes"),
        (Packet(EVENT, data=["a", b"", {"_placeholder": True}]), ValueError, "looks like a placeholder"),
        (
            Packet(EVENT, data=["a", {"x": 1, "_placeholder": True}, b""]),
            ValueError,
            "looks like a placeholder",
        ),
    ],
    ids=str,
)
def test_packets_that_cannot_be_sent_raise(packet: Packet, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        encode(packet)


@pytest.mark.parametrize(
    "item", ['{"_placeholder":true', ',"_placeholder":true', {'{"_placeholder': True}, {"_placeholder": 1}]
)
def test_data_that_resembles_a_placeholder_is_sent(item: object) -> None:
    packet = Packet(EVENT, data=["a", b"x", item, {"b": item}])
    assert decode(*encode(packet, PacketOptions(max_attachments_sent=100))) == packet


# JSON by functions of the application.


def test_the_json_encoder_and_decoder_can_be_replaced() -> None:
    def dumps(value: Any) -> bytes:
        return json.dumps(value, default=date.isoformat).encode()

    def loads(text: str) -> Any:
        return json.loads(text, parse_float=str)

    options = PacketOptions(json_encoder=dumps, json_decoder=loads)
    data = ["a", (b"1", {"day": date(2026, 1, 2), "more": [bytearray(b"2")]})]
    messages = encode(Packet(EVENT, data=data, id=7), options)
    assert messages == [
        '52-7["a", [{"_placeholder": true, "num": 0}, {"day": "2026-01-02", "more": '
        '[{"_placeholder": true, "num": 1}]}]]',
        b"1",
        b"2",
    ]
    decoded = decode(*messages, json_decoder=loads)
    assert decoded.data == ["a", [b"1", {"day": "2026-01-02", "more": [b"2"]}]]
    assert decode('2["a",1.10]', json_decoder=loads).data == ["a", "1.10"]
    assert encode(Packet(EVENT, data=["a", {1: date(2026, 1, 2)}]), options) == [
        '2["a", {"1": "2026-01-02"}]'
    ]


def test_the_checks_apply_to_what_the_decoder_returns() -> None:
    def decoded_slug(text: str, loads: Callable[[str], Any], **options: Any) -> str:
        with pytest.raises(PacketError) as caught:
            decode(text, json_decoder=loads, **options)
        return caught.value.slug

    def fail(text: str) -> Any:
        raise LookupError(text)

    assert decoded_slug('2["a"]', fail) == "bad-json"
    assert decoded_slug('2["a"]', lambda text: text) == "bad-data"
    assert decoded_slug('2["a",[]]', json.loads, max_nesting=1) == "too-deep"
    assert decoded_slug("2[NaN]", json.loads) == "bad-data"
    assert decoded_slug("2[Infinity]", json.loads) == "bad-data"
    # This decoder accepts no lone surrogates, like orjson, and never sees one.
    seen: list[str] = []

    def strict(text: str) -> Any:
        seen.append(json.dumps(json.loads(text), ensure_ascii=False).encode().decode())
        return json.loads(text)

    assert decode(r'2["a","\ud83d"]', json_decoder=strict).data == ["a", "\ufffd"]
    assert seen == ['["a", "\ufffd"]']


@pytest.mark.parametrize(
    ("encoder", "data", "error", "text"),
    [
        (lambda _: 7, ["a"], ValueError, "did not return the JSON"),
        (lambda _: "", ["a"], ValueError, "did not return the JSON"),
        (lambda _: "{}", ["a"], ValueError, "did not return the JSON"),
        (lambda _: '["\x1e"]', ["a"], ValueError, "did not return the JSON"),
        (json.dumps, ["a", ...], TypeError, "not JSON serializable"),
        (json.dumps, ["a", b"", {"_placeholder": True, "num": 0}], ValueError, "looks like a placeholder"),
        (json.dumps, ["a", *[b""] * 11], ValueError, "more than 10 attachments"),
    ],
)
def test_what_an_encoder_returns_is_checked(
    encoder: Callable[[Any], str], data: list[Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        encode(Packet(EVENT, data=data), PacketOptions(json_encoder=encoder))


def test_circular_data_does_not_hang_an_encoder() -> None:
    circle: list[Any] = ["a"]
    circle.append(circle)
    with pytest.raises(ValueError, match="contains itself"):
        encode(Packet(EVENT, data=circle), PacketOptions(json_encoder=json.dumps))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4)

    return st.recursive(leaves, containers, max_leaves=8)


objects = st.dictionaries(texts, values(scalars), max_size=4)
lists = st.lists(values(scalars | st.binary(max_size=4)), max_size=4)
names = texts.filter(lambda name: name not in RESERVED_EVENTS)
ids = st.integers(0, MAX_ID)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    type_ = draw(st.sampled_from([CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR]))
    characters = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters=",")
    namespace = "/" + draw(st.text(characters, max_size=4))
    match type_:
        case PacketType.EVENT:
            return Packet(type_, namespace, [draw(names), *draw(lists)], draw(st.none() | ids))
        case PacketType.ACK:
            return Packet(type_, namespace, draw(lists), draw(ids))
        case PacketType.CONNECT:
            return Packet(type_, namespace, draw(st.none() | objects))
        case PacketType.CONNECT_ERROR:
            return Packet(type_, namespace, draw(objects))
        case _:
            return Packet(type_, namespace)


@given(packets())
@settings(max_examples=300)
def test_any_packet_round_trips(packet: Packet) -> None:
    assert decode(*encode(packet, PacketOptions(max_attachments_sent=100))) == packet


pieces = st.sampled_from(
    [*"01234567-/,[]{}: ", "/a,", '"a"', '["a"]', '["connect"]', "1-", "2-", "NaN", "null"]
)
pieces |= st.sampled_from(['{"_placeholder":true,"num":0}', '{"_placeholder":true,"num":1}', "1e999"])
pieces |= st.sampled_from(["[" * 70, "]" * 70, r"\ud800", r"\u00e9", "é", "\ud800", "\x00"])
wild = st.lists(pieces | st.text(max_size=3), max_size=10).map("".join)


@given(st.lists(wild | st.binary(max_size=3) | st.just('51-["a",{"_placeholder":true,"num":0}]'), max_size=6))
@settings(max_examples=500)
def test_any_input_is_decoded_or_raises_packet_error(messages: list[str | bytes]) -> None:
    decoder = Decoder()
    for message in messages:
        try:
            packet = decoder.receive(message)
        except PacketError:
            continue
        assert (packet is None) is decoder.pending
        if packet is not None:
            # A packet that was accepted can be sent, and decodes to the same packet.
            assert decode(*encode(packet, PacketOptions(max_attachments_sent=100))) == packet


@given(st.text(max_size=12), st.sampled_from(PacketType))
def test_any_tail_is_decoded_or_raises_packet_error(tail: str, type_: PacketType) -> None:
    decoder = Decoder()
    try:
        decoder.receive(f"{type_:d}{tail}")
    except PacketError as error:
        assert re.fullmatch("[a-z-]+", error.slug)


@given(packets())
def test_the_text_after_the_header_is_strict_json(packet: Packet) -> None:
    text = encode(packet)[0]
    assert isinstance(text, str)
    start = re.search(r"[\[{]", text.removeprefix(f"{text[0]}{packet.namespace},"))
    assert start is None or packet.data is not None
    if packet.data is not None and packet.namespace == "/":
        json.loads(text[re.search(r"[\[{]", text).start() :], parse_constant=pytest.fail)  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ['["x",' + "[]," * 10_000 + "[]]", '["x",' + "[" * 300 + "]" * 20_000])
def test_large_json_is_read_without_the_garbage_collector(text: str) -> None:
    collections = 0

    def count(phase: str, info: dict[str, int]) -> None:
        nonlocal collections
        collections += 1

    gc.collect()
    gc.callbacks.append(count)
    try:
        for enabled in (True, False):
            (gc.enable if enabled else gc.disable)()
            with suppress(PacketError):
                Decoder().receive("2" + text)
            assert gc.isenabled() is enabled
    finally:
        gc.enable()
        gc.callbacks.remove(count)
    assert collections <= 4  # not one for each 700 arrays
