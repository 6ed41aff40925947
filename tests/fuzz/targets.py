"""The targets: each takes bytes, and raises if the sentence in its docstring does not hold."""

from collections.abc import Callable
from typing import Final

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    ClientHandshake,
    CloseReceived,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    DeflateParameters,
    Event,
    Extension,
    HandshakeAccepted,
    HandshakeFailed,
    HandshakeRejected,
    PerMessageDeflate,
    Ping,
    Pong,
    Request,
    Role,
    ServerHandshake,
    State,
    TextFragment,
    TextMessage,
)
from rfc6455_server.socketio.engine import EngineSession, Message, SessionClosed
from rfc6455_server.socketio.engine_packets import EnginePacket, EnginePacketType, encode_payload
from rfc6455_server.socketio.packets import Decoder, Packet, PacketError, PacketOptions, encode
from tests.fuzz import models
from tests.fuzz.source import Source
from tests.helpers import feed, make_connection, pump, raw_frame, sent_frames, split_at

LIMIT: Final = 1000
"""Bytes of a message."""

MANY: Final = 1 << 20
"""More frames than an input has."""

WINDOWS: Final = [str(bits) for bits in range(8, 16)]

HOST: Final = b"GET /a?b HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
KEY_FIELDS: Final = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"


def each_byte(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


# Opening handshakes.


def requests(data: bytes) -> None:
    """A request has the same outcome in any split, and one that is returned reads the same once written."""
    source = Source(data)
    cuts, sent = source.cuts(), source.rest()
    outcomes = [_request(chunks) for chunks in ([sent], each_byte(sent), split_at(sent, cuts))]
    assert outcomes[0] == outcomes[1] == outcomes[2]
    request = outcomes[0][0]
    if isinstance(request, Request):
        again = _request([request.encode()])[0]
        assert again == request, (request, again)


def _request(chunks: list[bytes]) -> tuple[object, bytes]:
    """Returns the outcome of a request, and the answer; checks that the answer is one head of HTTP."""
    handshake = ServerHandshake(
        deflate=PerMessageDeflate(), max_line_size=300, max_fields=12, max_head_size=1000
    )
    for chunk in chunks:
        if handshake.should_close:
            break
        handshake.receive_data(chunk)
        event = handshake.next_event()
        if event is not None:
            break
    else:
        handshake.receive_eof()
        event = handshake.next_event()
    assert event is not None
    assert handshake.next_event() is None
    if isinstance(event, HandshakeFailed):
        assert handshake.should_close
        answer = handshake.data_to_send()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % event.error.status)
        assert body == f"{event.error}\n".encode()
        return (event.error.slug, event.error.status), answer
    connection = handshake.accept(next(iter(event.subprotocols), None))
    answer = handshake.data_to_send()
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == answer.count(b"\n\r\n") == 1
    assert connection.state is State.OPEN
    return event, answer


def responses(data: bytes) -> None:
    """A response has the same outcome in any split; what a client agrees to, it has asked for."""
    source = Source(data)
    cuts, sent = source.cuts(), source.rest()
    outcomes = [_response(chunks) for chunks in ([sent], each_byte(sent), split_at(sent, cuts))]
    assert outcomes[0] == outcomes[1] == outcomes[2]


def _response(chunks: list[bytes]) -> object:
    deflate = PerMessageDeflate(server_max_window_bits=12, client_max_window_bits=11)
    handshake = ClientHandshake(
        "h", subprotocols=["a", "b"], deflate=deflate, key_source=lambda: bytes(16), limits={"max_fields": 12}
    )
    for chunk in chunks:
        handshake.receive_data(chunk)
        event = handshake.next_event()
        if event is not None:
            break
    else:
        handshake.receive_eof()
        event = handshake.next_event()
    match event:
        case HandshakeAccepted(response=response, connection=connection):
            assert connection.subprotocol in (None, "a", "b")
            agreed = connection.deflate
            assert agreed is None or agreed.server_max_window_bits <= 12
            assert agreed is None or agreed.client_max_window_bits <= 11
            return response, agreed, connection.subprotocol
        case HandshakeRejected(response=response):
            return response
        case HandshakeFailed(error=error):
            return error.slug
    raise AssertionError(event)


def extensions(data: bytes) -> None:
    """What a server agrees to is within the client's offer, and both ends compress by it alike."""
    source = Source(data)
    options = source.byte(), source.byte()
    field = source.rest().translate(None, b"\r\n\0")
    handshake = ServerHandshake(deflate=_wanted(*options))
    handshake.receive_data(HOST + KEY_FIELDS + b"Sec-WebSocket-Extensions: " + field + b"\r\n\r\n")
    event = handshake.next_event()
    if not isinstance(event, Request):
        assert isinstance(event, HandshakeFailed)
        assert event.error.slug in (
            "bad-extensions",
            "too-many-extensions",
            "bad-field-line",
            "start-line-too-long",
        )
        return
    server = handshake.accept()
    if server.deflate is None:
        return
    assert any(_allows(offer, server.deflate) for offer in event.extensions)
    client = Connection(Role.CLIENT, deflate=server.deflate)
    text = "what both ends compress alike " * 20
    for _ in range(2):
        client.send_text(text)
        server.send_text(text)
        received = pump(client, server)
        assert received == ([TextMessage(text)], [TextMessage(text)])


def _wanted(flags: int, bits: int) -> PerMessageDeflate:
    return PerMessageDeflate(
        server_no_context_takeover=bool(flags & 1),
        client_no_context_takeover=bool(flags & 2),
        server_max_window_bits=8 + bits % 8,
        client_max_window_bits=8 + bits // 8 % 8,
        memory_level=1,
        threshold=0,
    )


def _allows(offer: Extension, agreed: DeflateParameters) -> bool:
    """Whether an offer is well-formed and allows what was agreed (RFC 7692 §7.1)."""
    bits = {"server_max_window_bits": 15, "client_max_window_bits": 15}
    flags = set()
    for name, value in offer.parameters:
        if name == "client_max_window_bits" and value is None:
            continue  # allows any
        if name in bits and value in WINDOWS:
            bits[name] = int(value)
        elif name in ("server_no_context_takeover", "client_no_context_takeover") and value is None:
            flags.add(name)
        else:
            return False
    names = [name for name, _ in offer.parameters]
    return (
        offer.name == "permessage-deflate"
        and len(names) == len(set(names))
        and agreed.server_max_window_bits <= bits["server_max_window_bits"]
        and agreed.client_max_window_bits <= bits["client_max_window_bits"]
        and (agreed.client_max_window_bits == 15 or "client_max_window_bits" in names)
        and (agreed.server_no_context_takeover or "server_no_context_takeover" not in flags)
    )


# Frames and messages.


def frames(data: bytes) -> None:
    """Frames mean what a plain reading of RFC 6455 §5 says, in any split, and the connection ends once."""
    source = Source(data)
    role = Role.SERVER if source.byte() % 2 else Role.CLIENT
    cuts, repeated = source.cuts(), source.byte() % 8
    sent = (source.rest() * (1 + repeated))[:6000]
    expected = models.read_frames(role, sent, LIMIT)
    for chunks in ([sent], split_at(sent, cuts), [*each_byte(sent[:200]), sent[200:]]):
        connection = make_connection(
            role, max_message_size=LIMIT, max_control_frames=MANY, max_empty_fragments=MANY
        )
        events = feed(connection, chunks, eof=True)
        assert [_as_in_model(event) for event in events[:-1]] == expected
        _check_end(connection, events)
    _check_pieces(role, sent, cuts, expected)


def _as_in_model(event: Event) -> models.Event:
    match event:
        case TextMessage(data=text):
            return "text", text
        case BinaryMessage(data=data):
            return "binary", data
        case Ping(data=data):
            return "ping", data
        case Pong(data=data):
            return "pong", data
        case CloseReceived(code=code, reason=reason):
            return "close", code, reason
        case ConnectionFailed(code=code):
            return "failed", code
    raise AssertionError(event)


def _check_end(connection: Connection, events: list[Event]) -> None:
    """Checks that a connection ended once, answered each Ping, and sent at most one Close, as its last."""
    assert isinstance(events[-1], ConnectionClosed)
    assert connection.state is State.CLOSED
    assert not connection.unread
    sent = sent_frames(connection.role, connection.data_to_send())
    pongs = [(0x8A, event.data) for event in events if isinstance(event, Ping)]
    ends = [event for event in events if isinstance(event, CloseReceived | ConnectionFailed)]
    assert len(ends) <= 1
    assert sent[: len(pongs)] == pongs
    assert [first for first, _ in sent[len(pongs) :]] == [0x88] * len(ends)


def _check_pieces(role: Role, sent: bytes, cuts: list[int], expected: list[models.Event]) -> None:
    """Checks that the pieces that ``assemble=False`` returns make up the messages."""
    connection = make_connection(
        role, assemble=False, max_message_size=LIMIT, max_control_frames=MANY, max_empty_fragments=MANY
    )
    events: list[models.Event] = []
    kind, pieces = "", []
    for event in feed(connection, split_at(sent, cuts), eof=True)[:-1]:
        if not isinstance(event, TextFragment | BinaryFragment):
            events.append(_as_in_model(event))
            continue
        kind = "text" if isinstance(event, TextFragment) else "binary"
        pieces.append(event.data)
        if event.final:
            events.append((kind, pieces[0][:0].join(pieces)))  # type: ignore[arg-type]
            pieces = []
    # Control frames between two fragments keep their place among the messages that are complete.
    assert events == expected


def deflate(data: bytes) -> None:
    """A compressed message inflates to what zlib says, in any fragments, and never above the limit."""
    source = Source(data)
    flags, bits = source.byte(), 8 + source.byte() % 8
    cuts = source.cuts()
    payloads = [source.piece() for _ in range(source.byte() % 3)]
    payloads.append(source.rest())
    forgets = bool(flags & 1)
    expected = models.inflate(payloads, max(bits, 9), LIMIT, forgets=forgets)
    parameters = DeflateParameters(client_no_context_takeover=forgets, client_max_window_bits=bits)
    for fragments in ([[payload] for payload in payloads], [split_at(p, cuts) or [p] for p in payloads]):
        sent = b"".join(map(_compressed_message, fragments))
        for chunks in ([sent], split_at(sent, cuts)):
            connection = Connection(Role.SERVER, deflate=parameters, max_message_size=LIMIT)
            events = [_as_in_model(event) for event in feed(connection, chunks)[: len(expected)]]
            assert events == expected


def _compressed_message(fragments: list[bytes]) -> bytes:
    """Returns the frames of one binary message."""
    last = len(fragments) - 1
    return b"".join(
        raw_frame(Role.SERVER, 0 if i else 2, fragment, fin=i == last, rsv=0 if i else 4)
        for i, fragment in enumerate(fragments)
    )


def messages(data: bytes) -> None:
    """What one end sends, the other receives once and in order, whatever the reads, and both close."""
    source = Source(data)
    flags = source.byte()
    parameters = _wanted(flags, source.byte())
    agreement = parameters.accept([parameters.offer()]) if flags & 4 else None
    agreed = agreement[0] if agreement else None
    ends = {role: Connection(role, deflate=agreed) for role in Role}
    sent: dict[Role, list[object]] = {role: [] for role in Role}
    events: dict[Role, list[Event]] = {role: [] for role in Role}
    unfinished: dict[Role, list[bytes]] = {role: [] for role in Role}
    while source:
        command = source.byte()
        role = Role.CLIENT if command & 1 else Role.SERVER
        _command(ends[role], command >> 1, source, sent[role], unfinished[role])
        if command & 0x80:
            _carry(ends, events, source.cuts())
    for role, end in ends.items():
        if unfinished[role]:
            end.send_binary(b"")
            sent[role].append(BinaryMessage(b"".join(unfinished[role])))
    _carry(ends, events, [])
    ends[Role.CLIENT].close(1000, "done")
    pump(ends[Role.CLIENT], ends[Role.SERVER])
    assert ends[Role.SERVER].should_close
    for role, other in zip(Role, reversed(Role), strict=True):
        pings = [event for event in sent[other] if isinstance(event, Ping)]
        received = [event for event in events[role] if not isinstance(event, Pong)]
        assert received == sent[other]
        answered = [Ping(event.data) for event in events[other] if isinstance(event, Pong)]
        assert answered == pings


def _command(end: Connection, kind: int, source: Source, sent: list[object], unfinished: list[bytes]) -> None:
    """Sends a message, a fragment or a Ping."""
    payload = source.piece() * (1, 1, 40, 1000)[kind >> 2 & 3]
    match kind & 3:
        case 0 if not unfinished:
            text = payload.decode("utf-8", "ignore")
            end.send_text(text)
            sent.append(TextMessage(text))
        case 1:
            end.send_ping(payload[:125])
            sent.append(Ping(payload[:125]))
        case 2:
            end.send_binary(payload, fin=False)
            unfinished.append(payload)
        case _:
            end.send_binary(payload)
            sent.append(BinaryMessage(b"".join([*unfinished, payload])))
            unfinished.clear()


def _carry(ends: dict[Role, Connection], events: dict[Role, list[Event]], cuts: list[int]) -> None:
    """Moves what both ends have written to the other, split at ``cuts``, until nothing moves."""
    while data := {role: ends[role].data_to_send() for role in Role}:
        if not any(data.values()):
            break
        events[Role.CLIENT] += feed(ends[Role.CLIENT], split_at(data[Role.SERVER], cuts))
        events[Role.SERVER] += feed(ends[Role.SERVER], split_at(data[Role.CLIENT], cuts))


# Socket.IO.

OPTIONS: Final = PacketOptions(
    max_attachments=3, max_attachments_sent=3, max_nesting=8, max_event_name=40, max_packet_size=4000
)


def packets(data: bytes) -> None:
    """Messages are refused, or are packets that mean the same once written again, within their limits."""
    decoder = Decoder(OPTIONS)
    for message in data.split(b"\xff"):
        try:
            packet = decoder.receive(_text_or_bytes(message))
        except PacketError:
            return
        assert decoder.held <= OPTIONS.max_packet_size
        assert (packet is None) is decoder.pending
        if packet is not None:
            assert decoder.held == 0
            assert _again(packet) == packet


def _text_or_bytes(message: bytes) -> str | bytes:
    try:
        return message.decode()
    except UnicodeDecodeError:
        return message


def _again(packet: Packet) -> Packet | None:
    decoder = Decoder(OPTIONS)
    *first, last = encode(packet, OPTIONS)
    for message in first:
        assert decoder.receive(message) is None
    return decoder.receive(last)


def payloads(data: bytes) -> None:
    """A POST body means what a plain reading says: its messages in order, and at most one end, the last."""
    expected, reason = models.read_payload(data)
    session = EngineSession("sid", "polling", 0.0)
    session.receive_payload(data, 1.0)
    events = list(session.events())
    received = [event.data for event in events if isinstance(event, Message)]
    end = [] if reason is None else [SessionClosed(reason)]
    assert events == [*map(Message, expected), *end]
    # What came in one body goes back in one, and means the same.
    body = encode_payload(EnginePacket(EnginePacketType.MESSAGE, message) for message in received)
    assert not received or models.read_payload(body.encode()) == (received, None)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target
    for target in (requests, responses, extensions, frames, deflate, messages, packets, payloads)
}
