"""wsproto and websockets beside the code under test: what each makes of the same bytes."""

from typing import NamedTuple

from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame
from websockets.http11 import Request as WebsocketsRequest
from websockets.protocol import CLIENT, SERVER, Protocol
from websockets.protocol import State as WebsocketsState
from websockets.server import ServerProtocol
from wsproto import ConnectionType, WSConnection
from wsproto import events as wsproto_events
from wsproto.connection import Connection as WsprotoConnection
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.utilities import RemoteProtocolError as WsprotoError

from rfc6455 import (
    BinaryMessage,
    CloseReceived,
    Connection,
    ConnectionFailed,
    DeflateParameters,
    HandshakeFailed,
    Opcode,
    Role,
    ServerHandshake,
    TextMessage,
)
from tests.helpers import feed

LIMIT = 1 << 20


class Answer(NamedTuple):
    """What an implementation makes of frames, or of a request."""

    messages: list[str | bytes]
    code: int | None
    """The code of the Close that it received or sent after a violation, the status that refuses a request;
    None while it is open, and for a request that is accepted or incomplete."""
    slug: str = ""
    """Ours, of a violation."""


def ours(role: Role, data: bytes, *, deflate: bool = False) -> Answer:
    parameters = DeflateParameters() if deflate else None
    messages: list[str | bytes] = []
    for event in feed(Connection(role, max_message_size=LIMIT, deflate=parameters), [data]):
        if isinstance(event, TextMessage | BinaryMessage):
            messages.append(event.data)
        elif isinstance(event, ConnectionFailed):
            return Answer(messages, event.code, event.error.slug)
        elif isinstance(event, CloseReceived):
            return Answer(messages, event.code)
    return Answer(messages, None)


def wsproto(role: Role, data: bytes, *, deflate: bool = False) -> Answer:
    extension = WsprotoDeflate()
    if role is Role.SERVER:
        extension.accept("permessage-deflate")
    else:
        extension.finalize("permessage-deflate")
    kind = ConnectionType.SERVER if role is Role.SERVER else ConnectionType.CLIENT
    connection = WsprotoConnection(kind, extensions=[extension] if deflate else [])
    connection.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[str | bytes] = []
    code = None
    for event in connection.events():
        if isinstance(event, wsproto_events.TextMessage | wsproto_events.BytesMessage):
            piece = event.data if isinstance(event.data, str) else bytes(event.data)
            parts.append(piece)
            if event.message_finished:
                messages.append(type(piece)().join(parts))  # type: ignore[arg-type]
                parts.clear()
        elif isinstance(event, wsproto_events.CloseConnection):
            code = int(event.code)
    return Answer(messages, code)


def websockets(role: Role, data: bytes, *, deflate: bool = False) -> Answer:
    protocol = Protocol(SERVER if role is Role.SERVER else CLIENT, state=WebsocketsState.OPEN, max_size=LIMIT)
    if deflate:
        protocol.extensions = [WebsocketsDeflate(False, False, 15, 15)]
    protocol.receive_data(data)
    messages: list[str | bytes] = []
    parts: list[bytes] = []
    opcode = 0
    for event in protocol.events_received():
        assert isinstance(event, Frame)
        if event.opcode >= Opcode.CLOSE:
            continue
        opcode = event.opcode or opcode
        parts.append(bytes(event.data))
        if event.fin:
            whole = b"".join(parts)
            parts.clear()
            messages.append(whole.decode("utf-8", "replace") if opcode == Opcode.TEXT else whole)
    if protocol.parser_exc is not None:
        close = protocol.close_sent
        return Answer(messages, close.code if close else None)
    return Answer(messages, protocol.close_rcvd.code if protocol.close_rcvd else None)


def our_server(head: bytes) -> Answer:
    handshake = ServerHandshake()
    handshake.receive_data(head)
    event = handshake.next_event()
    if isinstance(event, HandshakeFailed):
        return Answer([], event.error.status, event.error.slug)
    return Answer(["accepted"] if event else [], None)


def wsproto_server(head: bytes) -> Answer:
    connection = WSConnection(ConnectionType.SERVER)
    try:
        connection.receive_data(head)
        events = list(connection.events())
    except WsprotoError as error:
        return Answer([], getattr(error.event_hint, "status_code", 400))
    except UnicodeDecodeError:
        return Answer([], 500)  # what a server that catches everything would answer
    accepted = any(isinstance(event, wsproto_events.Request) for event in events)
    return Answer(["accepted"] if accepted else [], None)


def websockets_server(head: bytes) -> Answer:
    protocol = ServerProtocol()
    protocol.receive_data(head)
    if protocol.handshake_exc is not None:
        return Answer([], 400)
    for request in protocol.events_received():
        assert isinstance(request, WebsocketsRequest)
        status = protocol.accept(request).status_code
        return Answer(["accepted"], None) if status == 101 else Answer([], int(status))
    return Answer([], None)


def difference(our: Answer, their: Answer) -> str:
    """Returns in one word how another implementation's answer differs from ours; "" if it does not.

    "accepts", "later" (it has not failed yet), "earlier" (it fails where we need more bytes), "fails" (we
    accept), "messages" (others than ours), or the code of its Close or the status of its refusal.
    """
    shared = min(len(our.messages), len(their.messages))
    if our.messages[:shared] != their.messages[:shared]:
        return "messages"
    if our.slug:
        if len(their.messages) > len(our.messages):
            return "accepts"
        if their.code is None:
            return "later"
    elif their.code != our.code:
        return "earlier" if their.messages == our.messages else "fails"
    if our.messages != their.messages:
        return "messages"
    return "" if our.code == their.code else str(int(their.code or 0))
