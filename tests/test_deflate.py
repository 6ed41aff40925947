"""permessage-deflate, by itself and through connections."""

import os
import random
import zlib
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    DeflateParameters,
    Event,
    HandshakeError,
    PerMessageDeflate,
    Ping,
    PreparedMessage,
    RemoteProtocolError,
    Role,
    TextFragment,
    TextMessage,
)
from rfc6455 import deflate as deflate_module
from rfc6455.deflate import Deflater, Inflater
from rfc6455.headers import parse_extensions
from tests.helpers import (
    ABNORMAL,
    both_roles,
    bytes_held,
    feed,
    make_connection,
    measured,
    plain,
    raw_frame,
    sent_frames,
    split_at,
)

EVERYTHING = DeflateParameters(threshold=0)
RSV1 = 4

# RFC 7692 §7.2.3: (section, payloads of the frames, text)
EXAMPLES = [
    ("7.2.3.1, one block", ["f248cdc9c90700"], "Hello"),
    ("7.2.3.1, two fragments", ["f248cd", "c9c90700"], "Hello"),
    ("7.2.3.3, a stored block", ["000500faff48656c6c6f00"], "Hello"),
    ("7.2.3.4, a final block", ["f348cdc9c9070000"], "Hello"),
    ("7.2.3.5, two blocks", ["f24805000000ffffcac9c90700"], "Hello"),
    ("7.2.3.6, an empty message", ["00"], ""),
]


def compressed(data: bytes, *, window_bits: int = 15, level: int = 6) -> bytes:
    """Returns `data` compressed as one message, without the code under test."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -window_bits)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def failure(events: list[Event]) -> tuple[int, str]:
    failed, closed = events[-2:]
    assert isinstance(failed, ConnectionFailed)
    assert closed == ConnectionClosed(1006, "", False)
    return failed.code, failed.error.slug


# The examples of the RFC, byte for byte.


@both_roles
@pytest.mark.parametrize(("name", "payloads", "text"), EXAMPLES)
def test_the_examples_are_received(role: Role, name: str, payloads: list[str], text: str) -> None:
    frames = b""
    for index, payload in enumerate(payloads):
        first = index == 0
        last = index == len(payloads) - 1
        frames += raw_frame(
            role, 1 if first else 0, bytes.fromhex(payload), fin=last, rsv=RSV1 if first else 0
        )
    for chunks in ([frames], [frames[i : i + 1] for i in range(len(frames))]):
        connection = make_connection(role, deflate=EVERYTHING)
        # Twice: the state that a message leaves behind must not affect the next one.
        assert feed(connection, chunks) + feed(connection, chunks) == [TextMessage(text)] * 2


def test_the_shared_window_of_the_rfc() -> None:
    """RFC 7692 §7.2.3.2: the second Hello refers to the first."""
    connection = Connection(Role.SERVER, deflate=EVERYTHING)
    connection.send_text("Hello")
    connection.send_text("Hello")
    assert connection.data_to_send() == bytes.fromhex("c107f248cdc9c90700 c105f200110000")
    receiver = Connection(Role.CLIENT, deflate=EVERYTHING)
    assert feed(receiver, [bytes.fromhex("c107f248cdc9c90700 c105f200110000")]) == [TextMessage("Hello")] * 2


def test_without_context_takeover_messages_are_compressed_independently() -> None:
    parameters = DeflateParameters(server_no_context_takeover=True, threshold=0)
    connection = Connection(Role.SERVER, deflate=parameters)
    connection.send_text("Hello")
    connection.send_text("Hello")
    assert connection.data_to_send() == bytes.fromhex("c107f248cdc9c90700" * 2)


def test_empty_messages_are_sent_as_in_the_rfc() -> None:
    """RFC 7692 §7.2.3.6."""
    connection = Connection(Role.SERVER, deflate=EVERYTHING)
    for _ in range(3):
        connection.send_text("")
    data = connection.data_to_send()
    assert data == bytes.fromhex("c10100" * 3)
    assert feed(Connection(Role.CLIENT, deflate=EVERYTHING), [data]) == [TextMessage("")] * 3


# Negotiation: (offer, parameters of the server, answer). An answer of None declines.

NEGOTIATIONS: list[tuple[str, dict[str, object], str | None]] = [
    ("permessage-deflate", {}, "permessage-deflate"),
    ("permessage-deflate; client_max_window_bits", {}, "permessage-deflate"),
    ("permessage-deflate; server_no_context_takeover", {}, "permessage-deflate; server_no_context_takeover"),
    ("permessage-deflate; client_no_context_takeover", {}, "permessage-deflate; client_no_context_takeover"),
    ("permessage-deflate", {"server_no_context_takeover": True}, "permessage-deflate; server_no_context_takeover"),
    ("permessage-deflate", {"client_no_context_takeover": True}, "permessage-deflate; client_no_context_takeover"),
    ("permessage-deflate; server_max_window_bits=10", {}, "permessage-deflate; server_max_window_bits=10"),
    ("permessage-deflate; server_max_window_bits=15", {}, "permessage-deflate; server_max_window_bits=15"),
    ("permessage-deflate; server_max_window_bits=8", {}, "permessage-deflate; server_max_window_bits=8"),
    (
        "permessage-deflate; server_max_window_bits=12",
        {"server_max_window_bits": 10},
        "permessage-deflate; server_max_window_bits=10",
    ),
    (
        "permessage-deflate; server_max_window_bits=9",
        {"server_max_window_bits": 10},
        "permessage-deflate; server_max_window_bits=9",
    ),
    ("permessage-deflate", {"server_max_window_bits": 10}, "permessage-deflate; server_max_window_bits=10"),
    ("permessage-deflate", {"client_max_window_bits": 10}, "permessage-deflate"),
    (
        "permessage-deflate; client_max_window_bits",
        {"client_max_window_bits": 10},
        "permessage-deflate; client_max_window_bits=10",
    ),
    (
        "permessage-deflate; client_max_window_bits=9",
        {"client_max_window_bits": 10},
        "permessage-deflate; client_max_window_bits=9",
    ),
    ("permessage-deflate; client_max_window_bits=9", {}, "permessage-deflate; client_max_window_bits=9"),
    ('permessage-deflate; server_max_window_bits="10"', {}, "permessage-deflate; server_max_window_bits=10"),
    (
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11; "
        "client_max_window_bits=12",
        {},
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11; "
        "client_max_window_bits=12",
    ),
    # Fallbacks: the first offer that can be met.
    ("other, permessage-deflate", {}, "permessage-deflate"),
    ("permessage-deflate; unknown, permessage-deflate", {}, "permessage-deflate"),
    (
        "permessage-deflate; server_max_window_bits=7, permessage-deflate; server_max_window_bits=9",
        {},
        "permessage-deflate; server_max_window_bits=9",
    ),
    ("permessage-deflate; client_no_context_takeover, permessage-deflate", {},
     "permessage-deflate; client_no_context_takeover"),
    # Declined.
    ("", {}, None),
    ("x-webkit-deflate-frame", {}, None),
    ("Permessage-Deflate", {}, None),
    ("permessage-deflate; unknown", {}, None),
    ("permessage-deflate; server_no_context_takeover=1", {}, None),
    ("permessage-deflate; client_no_context_takeover=true", {}, None),
    ("permessage-deflate; server_max_window_bits", {}, None),
    ("permessage-deflate; server_max_window_bits=7", {}, None),
    ("permessage-deflate; server_max_window_bits=16", {}, None),
    ("permessage-deflate; server_max_window_bits=08", {}, None),
    ("permessage-deflate; server_max_window_bits=1e1", {}, None),
    ("permessage-deflate; client_max_window_bits=0", {}, None),
    ("permessage-deflate; client_max_window_bits=115", {}, None),
    ("permessage-deflate; client_max_window_bits; client_max_window_bits=10", {}, None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", {}, None),
]  # fmt: skip


@pytest.mark.parametrize(("offer", "options", "answer"), NEGOTIATIONS)
def test_the_server_negotiates(offer: str, options: dict[str, object], answer: str | None) -> None:
    agreed = PerMessageDeflate(**options).accept(parse_extensions([offer]))  # type: ignore[arg-type]
    assert (agreed and str(agreed[1])) == answer
    if agreed is not None:
        # The parameters match the answer.
        said = dict(agreed[1].parameters)
        parameters = agreed[0]
        assert parameters.server_no_context_takeover is ("server_no_context_takeover" in said)
        assert parameters.client_no_context_takeover is ("client_no_context_takeover" in said)
        assert parameters.server_max_window_bits == int(said.get("server_max_window_bits") or 15)
        assert parameters.client_max_window_bits == int(said.get("client_max_window_bits") or 15)


OFFERS: list[tuple[dict[str, object], str]] = [
    ({}, "permessage-deflate; client_max_window_bits"),
    ({"client_max_window_bits": 10}, "permessage-deflate; client_max_window_bits=10"),
    (
        {
            "server_max_window_bits": 9,
            "server_no_context_takeover": True,
            "client_no_context_takeover": True,
        },
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; "
        "client_max_window_bits",
    ),
]


@pytest.mark.parametrize(("options", "offer"), OFFERS)
def test_the_client_offers(options: dict[str, object], offer: str) -> None:
    assert str(PerMessageDeflate(**options).offer()) == offer  # type: ignore[arg-type]


AGREEMENTS: list[tuple[dict[str, object], str, tuple[bool, bool, int, int] | None]] = [
    ({}, "permessage-deflate", (False, False, 15, 15)),
    ({}, "permessage-deflate; server_no_context_takeover", (True, False, 15, 15)),
    ({}, "permessage-deflate; client_no_context_takeover", (False, True, 15, 15)),
    ({}, "permessage-deflate; server_max_window_bits=8; client_max_window_bits=8", (False, False, 8, 8)),
    ({"client_no_context_takeover": True}, "permessage-deflate", (False, True, 15, 15)),
    ({"client_max_window_bits": 10}, "permessage-deflate", (False, False, 15, 10)),
    ({"client_max_window_bits": 10}, "permessage-deflate; client_max_window_bits=9", (False, False, 15, 9)),
    ({"server_max_window_bits": 10}, "permessage-deflate; server_max_window_bits=9", (False, False, 9, 15)),
    (
        {"server_no_context_takeover": True},
        "permessage-deflate; server_no_context_takeover",
        (True, False, 15, 15),
    ),
    # These fail the handshake.
    ({"server_no_context_takeover": True}, "permessage-deflate", None),
    ({"server_max_window_bits": 10}, "permessage-deflate", None),
    ({"server_max_window_bits": 10}, "permessage-deflate; server_max_window_bits=11", None),
    ({"client_max_window_bits": 10}, "permessage-deflate; client_max_window_bits=11", None),
    ({}, "permessage-deflate; client_max_window_bits", None),
    ({}, "permessage-deflate; server_max_window_bits", None),
    ({}, "permessage-deflate; server_max_window_bits=16", None),
    ({}, "permessage-deflate; server_no_context_takeover=0", None),
    ({}, "permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ({}, "permessage-deflate; unknown", None),
    ({}, "permessage-deflate, permessage-deflate", None),
    ({}, "other", None),
    ({}, "permessage-deflate, other", None),
]


@pytest.mark.parametrize(("options", "answer", "expected"), AGREEMENTS)
def test_the_client_agrees(
    options: dict[str, object], answer: str, expected: tuple[bool, bool, int, int] | None
) -> None:
    deflate = PerMessageDeflate(**options, level=1, memory_level=2, threshold=3)  # type: ignore[arg-type]
    if expected is None:
        with pytest.raises(HandshakeError) as caught:
            deflate.agree(parse_extensions([answer]))
        # A client sends no answer.
        assert (caught.value.slug, caught.value.status) == ("bad-extension", 0)
    else:
        assert deflate.agree(parse_extensions([answer])) == DeflateParameters(*expected, 1, 2, 3)


def test_the_error_names_the_parameter() -> None:
    for name in ("server_max_window_bits", "client_max_window_bits"):
        with pytest.raises(HandshakeError, match=name):
            PerMessageDeflate(**{name: 9}).agree(parse_extensions([f"permessage-deflate; {name}=10"]))  # type: ignore[arg-type]


def test_each_sender_has_its_own_window() -> None:
    agreed = DeflateParameters(server_max_window_bits=9, client_max_window_bits=12)
    assert [agreed.window_bits(sender) for sender in (Role.SERVER, Role.CLIENT)] == [9, 12]
    PerMessageDeflate(level=0, memory_level=1)
    PerMessageDeflate(level=9, memory_level=9)


def test_a_threshold_of_0_compresses_everything() -> None:
    agreed = PerMessageDeflate(threshold=0).agree(parse_extensions(["permessage-deflate"]))
    assert agreed is not None
    assert agreed.threshold == 0


def test_the_server_may_decline() -> None:
    assert PerMessageDeflate().agree([]) is None


@pytest.mark.parametrize(
    "options",
    [
        {"server_max_window_bits": 7},
        {"client_max_window_bits": 16},
        {"level": 10},
        {"level": -1},
        {"memory_level": 0},
        {"memory_level": 10},
        {"threshold": -1},
    ],
)
def test_invalid_parameters_raise(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"window.bits|level|threshold"):
        PerMessageDeflate(**options)  # type: ignore[arg-type]


options = st.builds(
    PerMessageDeflate,
    st.booleans(),
    st.booleans(),
    st.integers(8, 15),
    st.integers(8, 15),
    st.integers(0, 9),
)


@given(options, options)
def test_client_and_server_agree_on_the_same(client: PerMessageDeflate, server: PerMessageDeflate) -> None:
    agreed = server.accept([client.offer()])
    assert agreed is not None
    ours, answer = agreed
    theirs = client.agree(parse_extensions([str(answer)]))
    assert theirs is not None
    for sender in Role:
        # A client may use a smaller window than the server requested, never a larger one.
        assert theirs.window_bits(sender) <= ours.window_bits(sender)
    assert theirs.server_max_window_bits == ours.server_max_window_bits
    assert theirs.server_no_context_takeover == ours.server_no_context_takeover
    assert theirs.client_no_context_takeover >= ours.client_no_context_takeover


# RSV1.


@both_roles
@pytest.mark.parametrize(
    ("opcodes", "deflate"),
    [
        ([1], None),
        ([2], None),
        ([9], EVERYTHING),
        ([10], EVERYTHING),
        ([8], EVERYTHING),
        ([2, 0], EVERYTHING),
    ],
)
def test_rsv1_on_a_frame_that_must_not_have_it(
    role: Role, opcodes: list[int], deflate: DeflateParameters | None
) -> None:
    frames = [raw_frame(role, opcode, fin=False) for opcode in opcodes[:-1]]
    frames.append(raw_frame(role, opcodes[-1], rsv=RSV1))
    assert failure(feed(make_connection(role, deflate=deflate), frames)) == (1002, "bad-rsv")


@both_roles
@pytest.mark.parametrize("rsv", [1, 2, 3, 5, 6, 7])
def test_rsv2_and_rsv3_have_no_meaning(role: Role, rsv: int) -> None:
    frame = raw_frame(role, 1, compressed(b"x"), rsv=rsv)
    assert failure(feed(make_connection(role, deflate=EVERYTHING), [frame])) == (1002, "bad-rsv")


@both_roles
def test_compressed_and_plain_messages_mix(role: Role) -> None:
    frames = raw_frame(role, 1, b"plain") + raw_frame(role, 2, compressed(b"tight"), rsv=RSV1)
    frames += (
        raw_frame(role, 1, compressed(b"ag"), fin=False, rsv=RSV1)
        + raw_frame(role, 9)
        + raw_frame(role, 0, b"")
    )
    frames += raw_frame(role, 2, b"plain", fin=False) + raw_frame(role, 0, b"!")
    connection = make_connection(role, deflate=DeflateParameters(True, True))
    assert feed(connection, [frames]) == [
        TextMessage("plain"),
        BinaryMessage(b"tight"),
        Ping(b""),
        TextMessage("ag"),
        BinaryMessage(b"plain!"),
    ]


# Limits.


@both_roles
@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_the_size_limit_is_exact(role: Role, takeover: bool, kind: str) -> None:
    limit = 100_000
    parameters = DeflateParameters(not takeover, not takeover, threshold=0)
    data = bytes(limit) if kind == "zeros" else random.Random(1).randbytes(limit)
    sender = Connection(Role.CLIENT if role is Role.SERVER else Role.SERVER, deflate=parameters)
    receiver = make_connection(role, deflate=parameters, max_message_size=limit)
    for _ in range(3):
        sender.send_binary(data)
        assert feed(receiver, [sender.data_to_send()]) == [BinaryMessage(data)]
    sender.send_binary(data + b"\0")
    assert failure(feed(receiver, [sender.data_to_send()])) == (1009, "message-too-big")


@both_roles
@pytest.mark.parametrize("assemble", [True, False])
def test_a_bomb_is_not_inflated_beyond_the_limit(role: Role, assemble: bool) -> None:
    bomb = compressed(bytes(200 << 20), level=9)
    assert len(bomb) < 1 << 20
    frame = raw_frame(role, 2, bomb, rsv=RSV1)
    connection = make_connection(role, deflate=EVERYTHING, assemble=assemble)
    del bomb
    with measured() as memory:
        events = feed(connection, [frame])
        peak = memory.peak()
    assert failure(events) == (1009, "message-too-big")
    assert peak < (4 << 20)


@both_roles
def test_data_is_inflated_only_as_it_is_pulled(role: Role) -> None:
    """With assemble=False, a caller that stops pulling holds one piece, at any compression ratio."""
    size = 64 << 20
    frame = raw_frame(role, 2, compressed(bytes(size), level=9), rsv=RSV1)
    connection = make_connection(role, deflate=EVERYTHING, assemble=False, max_message_size=size)
    with measured() as memory:
        connection.receive_data(frame)
        total = pieces = 0
        while (event := connection.next_event()) is not None:
            assert isinstance(event, BinaryFragment)
            total += len(event.data)
            pieces += 1
            assert connection.unread is not event.final
        peak = memory.peak()
    assert (total, pieces >= 1000) == (size, True)
    assert peak < 1 << 20
    assert feed(connection, [raw_frame(role, 1, b"next")]) == [TextFragment("next", True)]


@both_roles
def test_an_oversized_frame_fails_before_its_payload(role: Role) -> None:
    connection = make_connection(role, deflate=EVERYTHING)
    header = raw_frame(role, 2, length=1 << 40, rsv=RSV1)
    assert failure(feed(connection, [header])) == (1009, "message-too-big")


@both_roles
@pytest.mark.parametrize(
    ("make_payload", "expected"),
    [
        (lambda count: b"\x00\x00\x00\xff\xff" * count + b"\x00", b""),
        (lambda count: (compressed(b"a") + b"\x00\x00\xff\xff") * count + b"\x00", b"a"),
    ],
    ids=["empty stored blocks", "a flush after each byte"],
)
def test_many_tiny_blocks_cost_linear_time(
    role: Role, make_payload: Callable[[int], bytes], expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the bytes passed to zlib, which copies the part that it does not consume."""
    decompressobj = zlib.decompressobj
    fed = 0

    class Counted:
        def __init__(self, window_bits: int) -> None:
            self._decompressor = decompressobj(window_bits)

        def decompress(self, data: bytes, size: int) -> bytes:
            nonlocal fed
            fed += len(data)
            return self._decompressor.decompress(data, size)

        def __getattr__(self, name: str) -> object:
            return getattr(self._decompressor, name)

    monkeypatch.setattr(zlib, "decompressobj", Counted)
    work = []
    for count in (10_000, 80_000):
        fed = 0
        connection = make_connection(role, deflate=EVERYTHING)
        frame = raw_frame(role, 2, make_payload(count), rsv=RSV1)
        assert feed(connection, [frame]) == [BinaryMessage(expected * count)]
        work.append(fed)
    assert 0 < work[1] < 9 * work[0]


@both_roles
@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00" * 2 + b"\x00", "HelloHello"),
        (b"\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello"),  # lacks the empty block that should follow
        (b"\x03\x00" * 64 + b"\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello"),
    ],
)
def test_several_streams_in_a_message(role: Role, payload: bytes, text: str) -> None:
    connection = make_connection(role, deflate=EVERYTHING)
    frame = raw_frame(role, 1, payload, rsv=RSV1)
    for chunks in ([frame], [frame[i : i + 1] for i in range(len(frame))]):
        assert feed(connection, chunks) == [TextMessage(text)]


def finished(data: bytes) -> bytes:
    """Returns `data` compressed as one deflate stream that ends with a final block."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@both_roles
def test_streams_of_a_kibibyte_are_not_limited(role: Role) -> None:
    """RFC 7692 §7.2.3.4: a sender may end a stream in each fragment, for example."""
    data = random.Random(3).randbytes(1024)
    frame = raw_frame(role, 2, finished(data) * 1000 + b"\x00", rsv=RSV1)
    assert feed(make_connection(role, deflate=EVERYTHING), [frame]) == [BinaryMessage(data * 1000)]


@both_roles
def test_the_streams_of_each_message_are_counted_by_themselves(role: Role) -> None:
    frames = [raw_frame(role, 2, b"\x03\x00" * 64 + b"\x00", rsv=RSV1)] * 3
    events = feed(make_connection(role, deflate=EVERYTHING), [b"".join(frames)])
    assert events == [BinaryMessage(b"")] * 3
    one_more = raw_frame(role, 2, b"\x03\x00" * 65 + b"\x00", rsv=RSV1)
    events = feed(make_connection(role, deflate=EVERYTHING), [*frames, one_more])
    assert failure(events) == (1008, "deflate-streams")


@both_roles
@pytest.mark.parametrize("eof", [True, False], ids=["EOF", "no EOF"])
@pytest.mark.parametrize("parts", [1, 2], ids=["one frame", "two fragments"])
def test_a_batch_ends_after_inflating_a_mebibyte(role: Role, parts: int, *, eof: bool) -> None:
    """A server gives other connections a turn; `next_event` returns the message all the same."""
    data = bytes(5 << 20)
    payload = compressed(data)
    middle = len(payload) // 2 if parts == 2 else len(payload)
    frames = raw_frame(role, 2, payload[:middle], rsv=RSV1, fin=parts == 1)
    if parts == 2:
        frames += raw_frame(role, 0, payload[middle:])
    frames += raw_frame(role, 9, b"after")
    connections = [make_connection(role, deflate=EVERYTHING, max_message_size=8 << 20) for _ in range(2)]
    for connection in connections:
        connection.receive_data(frames)
        if eof:
            connection.receive_eof()
    last = [ABNORMAL] if eof else []
    assert list(connections[0].events()) == [BinaryMessage(data), Ping(b"after"), *last]
    batches = [list(connections[1].next_batch())]
    while not batches[-1]:
        assert connections[1].yielded
        assert connections[1].unread
        batches.append(list(connections[1].next_batch()))
    assert 5 <= len(batches) <= 7
    assert batches[-1] == [BinaryMessage(data)]
    assert not connections[1].yielded
    assert list(connections[1].next_batch()) == [Ping(b"after")]


@both_roles
@pytest.mark.parametrize("payload", [b"\xff", b"\x06", b"\x07\x00", compressed(b"Hello" * 50)[1:]])
def test_invalid_compressed_data(role: Role, payload: bytes) -> None:
    frame = raw_frame(role, 2, payload, rsv=RSV1)
    assert failure(feed(make_connection(role, deflate=EVERYTHING), [frame])) == (1007, "bad-deflate")


@both_roles
def test_a_reference_beyond_the_window(role: Role) -> None:
    """The peer agreed to no context takeover, but refers to an earlier message."""
    compressor = zlib.compressobj(wbits=-15)
    data = random.Random(2).randbytes(200)
    first = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    second = (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    connection = make_connection(role, deflate=DeflateParameters(True, True))
    assert feed(connection, [raw_frame(role, 2, first, rsv=RSV1)]) == [BinaryMessage(data)]
    assert failure(feed(connection, [raw_frame(role, 2, second, rsv=RSV1)])) == (1007, "bad-deflate")


@both_roles
def test_bad_utf8_in_compressed_text_fails_at_once(role: Role) -> None:
    payload = b"\x00\x0a\x00\xf5\xff" + b"good \xff bad"  # a stored block of 10 bytes
    connection = make_connection(role, deflate=EVERYTHING)
    frame = raw_frame(role, 1, payload, rsv=RSV1, fin=False)
    # The read ends at the bad byte, inside the frame: the stored block continues with " bad".
    assert failure(feed(connection, [frame[: -len(payload) + payload.rindex(0xFF) + 1]])) == (
        1007,
        "bad-utf8",
    )


@both_roles
def test_a_piece_that_ends_where_the_frame_ends(role: Role) -> None:
    connection = make_connection(role, deflate=EVERYTHING, assemble=False)
    frames = raw_frame(role, 2, compressed(bytes(65536)) + b"\x00\x00\xff\xff", rsv=RSV1, fin=False)
    frames += raw_frame(role, 0, b"\x00")
    assert feed(connection, [frames]) == [BinaryFragment(bytes(65536), False), BinaryFragment(b"", True)]


@both_roles
@given(st.data())
@settings(max_examples=150)
def test_any_split_of_any_input_has_the_same_result(role: Role, data: st.DataObject) -> None:
    frames = b""
    for _ in range(data.draw(st.integers(1, 4))):
        payload = compressed(data.draw(st.text(max_size=200)).encode() or b"x")
        flaw = data.draw(st.sampled_from(["none", "none", "none", "cut", "garbage", "utf8", "big"]))
        if flaw == "cut":
            payload = payload[:-1]
        elif flaw == "garbage":
            payload += data.draw(st.binary(max_size=20))
        elif flaw == "utf8":
            payload = compressed(b"ab\xffcd")
        elif flaw == "big":
            payload = compressed(b"ab" * 400)
        where = data.draw(st.integers(0, len(payload)))
        frames += raw_frame(role, 1, payload[:where], rsv=RSV1, fin=False) + raw_frame(
            role, 0, payload[where:]
        )
    parameters = DeflateParameters(True, True)
    cuts = data.draw(st.lists(st.integers(0, 2000), max_size=8))
    results = []
    for chunks in ([frames], split_at(frames, cuts), [frames[i : i + 1] for i in range(len(frames))]):
        connection = make_connection(role, deflate=parameters, max_message_size=700)
        # If text is neither UTF-8 nor decompressible, the split decides which error is found first: zlib
        # withholds the output before an error. The close code is the same.
        results.append(
            [e.code if isinstance(e, ConnectionFailed) else plain(e) for e in feed(connection, chunks)]
        )
    assert results[0] == results[1] == results[2]


@both_roles
def test_a_close_in_the_middle_of_a_compressed_message(role: Role) -> None:
    frames = raw_frame(role, 1, compressed(b"abc")[:3], fin=False, rsv=RSV1) + raw_frame(role, 8)
    events = feed(make_connection(role, deflate=EVERYTHING), [frames], eof=True)
    assert [type(event).__name__ for event in events] == ["CloseReceived", "ConnectionClosed"]


# Memory of idle connections.


def zlib_objects(connection: Connection) -> list[bool]:
    assert connection._deflater is not None
    inflater = connection._reader._message._inflater
    assert inflater is not None
    return [connection._deflater._compressor is not None, inflater._decompressor is not None]


def test_zlib_objects_are_created_by_the_first_compressed_message() -> None:
    parameters = DeflateParameters()
    client, server = (Connection(role, deflate=parameters) for role in Role)
    client.send_text("short")
    feed(server, [client.data_to_send()])
    assert zlib_objects(client) == zlib_objects(server) == [False, False]
    client.send_text("long " * 100)
    feed(server, [client.data_to_send()])
    assert zlib_objects(client) == [True, False]
    assert zlib_objects(server) == [False, True]


def test_no_context_takeover_frees_zlib_objects_after_each_message() -> None:
    parameters = DeflateParameters(True, True, threshold=0)
    client, server = (Connection(role, deflate=parameters) for role in Role)
    for _ in range(2):
        client.send_text("part ", fin=False)
        assert zlib_objects(client) == [True, False]
        client.send_text("two")
        assert zlib_objects(client) == [False, False]
        assert feed(server, [client.data_to_send()]) == [TextMessage("part two")]
        assert zlib_objects(server) == [False, False]


# Sending.


@both_roles
def test_small_messages_are_sent_uncompressed(role: Role) -> None:
    connection = make_connection(role, deflate=DeflateParameters())
    connection.send_text("x" * 127)
    connection.send_text("x" * 128)
    connection.send_ping(b"x" * 125)
    assert [first for first, _ in sent_frames(role, connection.data_to_send())] == [0x81, 0xC1, 0x89]


@both_roles
def test_fragments_are_compressed_as_one_stream(role: Role) -> None:
    connection = make_connection(role, deflate=DeflateParameters())
    connection.send_text("Hello ", fin=False)
    connection.send_ping()
    connection.send_text("Hello ", fin=False)
    connection.send_text("Hello")
    sent = sent_frames(role, connection.data_to_send())
    assert [first for first, _ in sent] == [0x41, 0x89, 0x00, 0x80]
    data = sent[0][1] + sent[2][1] + sent[3][1] + b"\x00\x00\xff\xff"
    assert zlib.decompressobj(-15).decompress(data) == b"Hello Hello Hello"
    connection.send_binary(b"", fin=False)
    connection.send_binary(b"")
    assert [first for first, _ in sent_frames(role, connection.data_to_send())] == [0x42, 0x80]


def test_a_prepared_message_is_compressed_once_for_equal_parameters() -> None:
    message = PreparedMessage("hello " * 100)
    forgets = DeflateParameters(server_no_context_takeover=True)
    smaller = DeflateParameters(server_no_context_takeover=True, server_max_window_bits=9)
    assert message.frame(forgets) is message.frame(DeflateParameters(server_no_context_takeover=True))
    assert message.frame(None) is message.frame(None)
    assert message.frame(DeflateParameters()) is None
    assert message.frame(smaller) is not message.frame(forgets)
    small = PreparedMessage(b"x")
    assert small.frame(forgets) is small.frame(None)
    for parameters in (None, forgets, smaller, DeflateParameters()):
        server, client = (
            Connection(Role.SERVER, deflate=parameters),
            Connection(Role.CLIENT, deflate=parameters),
        )
        server.send_prepared(message)
        data = server.data_to_send()
        assert (data[0] == 0xC1) is (parameters is not None)
        assert feed(client, [data]) == [TextMessage("hello " * 100)]


# Round trips.

blobs = st.one_of(
    st.binary(max_size=300),
    st.integers(0, 20_000).map(lambda size: b"abc" * size),
    st.integers(0, 1 << 32).map(lambda seed: random.Random(seed).randbytes(3000)),
)


@given(
    st.builds(
        DeflateParameters,
        st.booleans(),
        st.booleans(),
        st.integers(8, 15),
        st.integers(8, 15),
        st.integers(0, 9),
        st.integers(1, 9),
        st.sampled_from([0, 128, 5000]),
    ),
    st.sampled_from(Role),
    st.lists(st.tuples(blobs, st.lists(st.integers(0, 5000), max_size=3)), max_size=5),
    st.lists(st.integers(0, 100_000), max_size=6),
)
@settings(max_examples=200)
def test_any_messages_round_trip(
    parameters: DeflateParameters,
    sender: Role,
    messages: list[tuple[bytes, list[int]]],
    cuts: list[int],
) -> None:
    source = Connection(sender, deflate=parameters)
    target = Connection(Role.CLIENT if sender is Role.SERVER else Role.SERVER, deflate=parameters)
    for message, places in messages:
        pieces = split_at(message, places) or [b""]
        for index, piece in enumerate(pieces):
            source.send_binary(piece, fin=index == len(pieces) - 1)
    received = feed(target, split_at(source.data_to_send(), cuts))
    assert received == [BinaryMessage(message) for message, _ in messages]


def test_with_eight_window_bits_references_reach_at_most_256_bytes() -> None:
    """zlib compresses with 9 bits if 8 were agreed on. A window of 256 bytes must suffice to inflate it."""

    def texts() -> Iterable[bytes]:
        source = random.Random(3)
        unit = source.randbytes(16)
        for gap in range(230, 520):
            yield unit + source.randbytes(gap - 16) + unit * 2 + source.randbytes(5) + unit
        for size in (100, 1000, 10_000):
            yield bytes(source.choice(b"ab") for _ in range(size))
            yield os.urandom(200) * (size // 100)

    for level in range(1, 10):
        parameters = DeflateParameters(server_max_window_bits=8, level=level)
        deflater = Deflater(parameters, Role.SERVER)
        reader = zlib.decompressobj(-8)
        for text in texts():
            payload = deflater.compress(text, fin=True)
            assert reader.decompress(payload + b"\x00\x00\xff\xff") == text


@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
def test_any_bytes_are_inflated_or_raise(data: bytes, size: int, final: bool) -> None:
    inflater = Inflater(EVERYTHING, Role.CLIENT)
    inflater.feed(data, final=final)
    total = 0
    try:
        while not inflater.exhausted:
            piece = inflater.read(size)
            assert len(piece) <= size
            total += len(piece)
    except RemoteProtocolError as error:
        assert error.slug == "bad-deflate"
    assert total <= 1100 * (len(data) + 4)


def test_messages_that_were_prepared_together_are_sent_together() -> None:
    together = PreparedMessage("hello " * 100, b"x", b"y" * 1000)
    assert together.message == "hello " * 100
    assert PreparedMessage(b"x", "y").message == b"x"
    expected = [TextMessage("hello " * 100), BinaryMessage(b"x"), BinaryMessage(b"y" * 1000)]
    forgets = DeflateParameters(server_no_context_takeover=True)
    for parameters in (None, forgets, DeflateParameters()):
        server, client = (
            Connection(Role.SERVER, deflate=parameters),
            Connection(Role.CLIENT, deflate=parameters),
        )
        server.send_prepared(together)
        data = server.data_to_send()
        assert len(data) < together.size if parameters else data == together.plain_frame
        assert feed(client, [data]) == expected
    assert together.frame(forgets) is together.frame(DeflateParameters(server_no_context_takeover=True))
    with pytest.raises(TypeError):
        PreparedMessage()


# What the compressor and the decompressor hold and pass to zlib.


class RecordingDecompressor:
    """zlib's decompressor. `sizes` records the sizes of the input of all instances."""

    sizes: ClassVar[list[int]] = []

    def __init__(self, wbits: int) -> None:
        self._decompressor = zlib.decompressobj(wbits)

    def decompress(self, data: memoryview, size: int) -> bytes:
        self.sizes.append(len(data))
        return self._decompressor.decompress(data, size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._decompressor, name)


def inflate(inflater: Inflater, payload: bytes) -> int:
    """Returns the inflated size of a whole message; asserts that the inflater then holds no input."""
    inflater.feed(payload, final=True)
    size = 0
    while not inflater.exhausted:
        size += len(inflater.read(65536))
    assert inflater._input == b""
    return size


def test_input_is_sliced_and_more_finely_after_the_end_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """zlib copies the input that it has not consumed: after the end of a stream, all of it."""
    fake = SimpleNamespace(decompressobj=RecordingDecompressor, error=zlib.error)
    monkeypatch.setattr(deflate_module, "zlib", fake)
    inflater = Inflater(EVERYTHING, Role.CLIENT)
    noise = random.Random(4).randbytes(200_000)
    sizes = RecordingDecompressor.sizes
    for _ in range(2):
        sizes.clear()
        assert inflate(inflater, compressed(noise)) == len(noise)
        assert max(sizes) == 65536
    sizes.clear()
    assert inflate(inflater, b"\x03\x00" + compressed(noise)) == len(noise)
    assert sizes[0] == 65536
    assert max(sizes[1:]) == 2048
    # The next message starts with large slices again.
    sizes.clear()
    assert inflate(inflater, compressed(noise)) == len(noise)
    assert max(sizes) == 65536


@pytest.mark.parametrize("forgets", [True, False])
def test_an_idle_inflater_holds_no_input_and_at_most_a_window(forgets: bool) -> None:
    payload = compressed(random.Random(5).randbytes(500_000))

    def used() -> Inflater:
        inflater = Inflater(DeflateParameters(client_no_context_takeover=forgets), Role.CLIENT)
        assert inflate(inflater, payload) == 500_000
        return inflater

    held = bytes_held(used)
    assert held < 2000 if forgets else 32_000 < held < 60_000


@pytest.mark.parametrize(("memory_level", "least", "most"), [(1, 0, 160_000), (8, 250_000, 300_000)])
def test_the_memory_level_is_passed_to_zlib(memory_level: int, least: int, most: int) -> None:
    def used() -> Deflater:
        deflater = Deflater(DeflateParameters(memory_level=memory_level), Role.SERVER)
        deflater.compress(b"x", fin=True)
        return deflater

    assert least < bytes_held(used) < most


@pytest.mark.parametrize("sender", list(Role))
def test_no_context_takeover_applies_to_the_direction_of_its_sender(sender: Role) -> None:
    for forgetful in Role:
        parameters = DeflateParameters(
            server_no_context_takeover=forgetful is Role.SERVER,
            client_no_context_takeover=forgetful is Role.CLIENT,
        )
        deflater, inflater = Deflater(parameters, sender), Inflater(parameters, sender)
        payload = deflater.compress(b"Hello", fin=True)
        assert inflate(inflater, payload) == 5
        assert (deflater._compressor is None) is (forgetful is sender)
        assert (inflater._decompressor is None) is (forgetful is sender)


def test_all_output_is_read_in_steps_of_any_size() -> None:
    """zlib may have taken all input and still have output: the rest of a long match."""
    payload = compressed(bytes(1000))

    def total(data: bytes, size: int) -> int:
        inflater = Inflater(EVERYTHING, Role.CLIENT)
        inflater.feed(data, final=False)
        total = 0
        while not inflater.exhausted:
            total += len(inflater.read(size))
        return total

    for end in range(1, len(payload) + 1):
        expected = zlib.decompressobj(-15).decompress(payload[:end])
        for size in range(1, 300):
            assert total(payload[:end], size) == len(expected)
