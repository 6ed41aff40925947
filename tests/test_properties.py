"""Properties that hold for any input: splits, garbage, conversations."""

import itertools
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rfc6455 import (
    BinaryFragment,
    BinaryMessage,
    CloseReceived,
    Connection,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    LocalProtocolError,
    Opcode,
    Ping,
    Pong,
    Role,
    State,
    TextFragment,
    TextMessage,
)
from tests.helpers import feed, make_connection, plain, pump, raw_frame, sent_frames, split_at

roles = st.sampled_from(Role)
cuts = st.lists(st.integers(min_value=0, max_value=5000), max_size=12)
text = st.text(max_size=200)


@st.composite
def wire(draw: st.DrawFn, role: Role) -> bytes:
    """Draws frames as the peer of ``role`` sends them: mostly valid, some with a violation, some garbage."""
    data = b""
    for _ in range(draw(st.integers(0, 8))):
        opcode = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10, draw(st.integers(0, 15))]))
        payload = draw(st.binary(max_size=140) | text.map(str.encode))
        payload *= draw(st.sampled_from([1, 1, 1, 10]))
        if opcode >= 8:
            payload = payload[: draw(st.sampled_from([125, 126]))]
            if opcode == 8 and draw(st.booleans()):
                payload = draw(st.integers(999, 1020)).to_bytes(2, "big") + payload[:123]
        data += raw_frame(
            role,
            opcode,
            payload,
            fin=opcode >= 8 or draw(st.booleans()),
            rsv=draw(st.sampled_from([0] * 15 + [1, 2, 4])),
            masked=(role is Role.SERVER) ^ draw(st.sampled_from([False] * 15 + [True])),
            key=draw(st.binary(min_size=4, max_size=4)),
        )
    if draw(st.booleans()):
        data += draw(st.binary(max_size=20))
    return data


def joined(events: list[Event]) -> list[object]:
    """Joins the fragments of each message, because their boundaries depend on the reads."""
    result: list[object] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextFragment) and isinstance(last, TextFragment) and not last.final:
            result[-1] = TextFragment(last.data + event.data, event.final)
        elif isinstance(event, BinaryFragment) and isinstance(last, BinaryFragment) and not last.final:
            result[-1] = BinaryFragment(last.data + event.data, event.final)
        else:
            result.append(plain(event))
    return result


@given(st.data(), roles, cuts, st.booleans(), st.booleans())
@settings(max_examples=300)
def test_any_split_of_any_input_has_the_same_result(
    data: st.DataObject, role: Role, where: list[int], assemble: bool, eof: bool
) -> None:
    sent = data.draw(wire(role))
    whole, pieces, bytewise = (
        make_connection(role, assemble=assemble, max_message_size=1000) for _ in range(3)
    )
    events = [
        feed(whole, [sent], eof=eof),
        feed(pieces, split_at(sent, where), eof=eof),
        feed(bytewise, [sent[i : i + 1] for i in range(len(sent))], eof=eof),
    ]
    first, second, third = (joined(some) for some in events)
    if assemble:
        assert first == second == third
    else:
        # The fragment before a violation may have been returned in part or not at all.
        assert [e for e in first if not _is_piece(e)] == [e for e in second if not _is_piece(e)]
        assert [e for e in first if not _is_piece(e)] == [e for e in third if not _is_piece(e)]
    assert whole.state is pieces.state is bytewise.state
    assert whole.data_to_send() == pieces.data_to_send() == bytewise.data_to_send()


def _is_piece(event: object) -> bool:
    return isinstance(event, TextFragment | BinaryFragment) and not event.final


@given(st.binary(max_size=400), roles, cuts, st.booleans())
@settings(max_examples=300)
def test_any_bytes_yield_events_and_one_end(
    data: bytes, role: Role, where: list[int], assemble: bool
) -> None:
    connection = Connection(role, assemble=assemble)
    events = feed(connection, split_at(data, where), eof=True)
    assert isinstance(events[-1], ConnectionClosed)
    assert sum(isinstance(event, ConnectionClosed) for event in events) == 1
    assert sum(isinstance(event, ConnectionFailed | CloseReceived) for event in events) <= 1
    assert connection.state is State.CLOSED
    assert connection.should_close
    sent = sent_frames(role, connection.data_to_send())
    assert sum(first == 0x88 for first, _ in sent) <= 1


messages = st.one_of(text, st.binary(max_size=400))


@given(
    roles,
    st.lists(st.tuples(messages, st.lists(st.integers(0, 400), max_size=4), st.booleans()), max_size=6),
    st.lists(st.binary(max_size=125), max_size=3),
    cuts,
)
def test_sent_messages_arrive(
    sender: Role,
    sent: list[tuple[str | bytes, list[int], bool]],
    pings: list[bytes],
    where: list[int],
) -> None:
    source = Connection(sender)
    target = Connection(Role.CLIENT if sender is Role.SERVER else Role.SERVER)
    waiting = list(pings)
    for message, places, ping_between in sent:
        bounds = sorted({0, len(message), *(place % (len(message) + 1) for place in places)})
        pieces = [message[a:b] for a, b in itertools.pairwise(bounds)] or [message]
        for index, piece in enumerate(pieces):
            fin = index == len(pieces) - 1
            if isinstance(piece, str):
                source.send_text(piece, fin=fin)
            else:
                source.send_binary(piece, fin=fin)
            if ping_between and waiting:
                source.send_ping(waiting.pop(0))
    for ping in waiting:
        source.send_ping(ping)
    events = feed(target, split_at(source.data_to_send(), where))
    expected = [TextMessage(m) if isinstance(m, str) else BinaryMessage(m) for m, _, _ in sent]
    assert [e for e in events if not isinstance(e, Ping)] == expected
    assert [e.data for e in events if isinstance(e, Ping)] == pings
    assert feed(source, [target.data_to_send()]) == [Pong(ping) for ping in pings]


class Conversation(RuleBasedStateMachine):
    """Two connections, the bytes on the way between them, and a model of what must arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = {role: Connection(role) for role in Role}
        self.wire: dict[Role, bytearray] = {role: bytearray() for role in Role}  # to that role
        self.expected: dict[Role, list[object]] = {role: [] for role in Role}
        self.events: dict[Role, list[Event]] = {role: [] for role in Role}
        self.partial: dict[Role, list[str | bytes]] = {role: [] for role in Role}
        self.eof: set[Role] = set()

    @staticmethod
    def other(role: Role) -> Role:
        return Role.CLIENT if role is Role.SERVER else Role.SERVER

    def call(self, role: Role, action: Callable[[Connection], None]) -> bool:
        """Calls ``action`` with an end; checks that it raises exactly if the end is not open."""
        end = self.ends[role]
        try:
            action(end)
        except LocalProtocolError as error:
            assert error.slug == "not-open"
            assert end.state is not State.OPEN
            return False
        return True

    @rule(role=roles, piece=messages, fin=st.booleans())
    def send(self, role: Role, piece: str | bytes, fin: bool) -> None:
        partial = self.partial[role]
        if partial and type(partial[0]) is not type(piece):
            piece = piece.encode() if isinstance(piece, str) else piece.decode("latin-1")
        if isinstance(piece, str):
            done = self.call(role, lambda end: end.send_text(piece, fin=fin))
        else:
            done = self.call(role, lambda end: end.send_binary(piece, fin=fin))
        if done:
            partial.append(piece)
            if fin:
                whole = type(piece)().join(partial)  # type: ignore[arg-type]
                event = TextMessage(whole) if isinstance(whole, str) else BinaryMessage(whole)
                self.expected[self.other(role)].append(event)
                partial.clear()

    @rule(role=roles, data=st.binary(max_size=125), ask=st.booleans())
    def control(self, role: Role, data: bytes, ask: bool) -> None:
        if self.call(role, lambda end: end.send_ping(data) if ask else end.send_pong(data)):
            self.expected[self.other(role)].append(Ping(data) if ask else Pong(data))

    @rule(role=roles, code=st.sampled_from([None, 1000, 1001, 4000]))
    def close(self, role: Role, code: int | None) -> None:
        self.ends[role].close(code)
        assert self.ends[role].state is not State.OPEN

    @rule(role=roles)
    def write(self, role: Role) -> None:
        self.wire[self.other(role)] += self.ends[role].data_to_send()

    @rule(role=roles, size=st.integers(0, 500))
    def read(self, role: Role, size: int) -> None:
        if role in self.eof:
            return
        chunk = bytes(self.wire[role][:size])
        del self.wire[role][:size]
        self.ends[role].receive_data(chunk)
        self.events[role] += self.ends[role].events()

    @rule(role=roles)
    @precondition(lambda self: any(end.should_close for end in self.ends.values()))
    def close_tcp(self, role: Role) -> None:
        other = self.other(role)
        if self.ends[role].should_close and role not in self.eof and other not in self.eof:
            self.write(role)
            self.read(other, len(self.wire[other]))
            self.ends[other].receive_eof()
            self.eof.add(other)
            self.events[other] += self.ends[other].events()
            assert self.ends[other].state is State.CLOSED

    @invariant()
    def nothing_is_lost_duplicated_or_reordered(self) -> None:
        for role in Role:
            events = self.events[role]
            assert not any(isinstance(event, ConnectionFailed) for event in events)
            seen = [e for e in events if not isinstance(e, CloseReceived | ConnectionClosed)]
            # The model does not contain the Pongs that answer Pings.
            pending = list(self.expected[role])
            for event in seen:
                if event in pending[:1]:
                    pending.pop(0)
                else:
                    assert isinstance(event, Pong)
            closed = [e for e in events if isinstance(e, ConnectionClosed)]
            assert len(closed) == (self.ends[role].state is State.CLOSED)
            assert not closed or events[-1] is closed[0]

    def teardown(self) -> None:
        """Checks that both ends can close, whatever happened before."""
        if self.eof:
            return
        for role in Role:
            self.write(role)
            self.read(role, len(self.wire[role]))
        for role in Role:
            self.write(role)
            self.read(role, len(self.wire[role]))
        client, server = self.ends[Role.CLIENT], self.ends[Role.SERVER]
        client.close()
        pump(client, server)
        client.receive_eof()
        server.receive_eof()
        list(client.events())
        list(server.events())
        assert client.state is server.state is State.CLOSED


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=40)


def test_the_pump_helper_stops_when_nothing_moves() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.send_ping(b"x")
    client.close(1001)
    ours, theirs = pump(client, server)
    assert theirs == [Ping(b"x"), CloseReceived(1001, ""), ConnectionClosed(1001, "", True)]
    assert ours == [Pong(b"x"), CloseReceived(1001, "")]
    assert Opcode.PING.is_control
