"""Called handlers: plain functions, without a task."""

import asyncio
import gc
import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from rfc6455 import ClientHandshake, LocalProtocolError, Opcode, PerMessageDeflate, encode_frame
from rfc6455_server import (
    Cause,
    CloseReport,
    Endpoint,
    Handler,
    LimitExceededError,
    Server,
    WebSocket,
    connect,
)
from rfc6455_server.testing import ManualClock, MemoryTransport, TestClient, settle
from rfc6455_server.websocket.calls import Calls
from rfc6455_server.websocket.inbox import MAX_UNREAD
from tests.helpers import KEY, close_payload
from tests.server_helpers import PATIENCE, Certificate, RawPeer, Recorder, serving, until

REQUEST: Final = ClientHandshake("test", "/").data_to_send()


def frame(payload: bytes, opcode: Opcode = Opcode.TEXT) -> bytes:
    """Returns a frame of a client."""
    return encode_frame(opcode, payload, mask_key=KEY)


class Diary(Handler):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.entries: list[object] = []
        diaries.append(self)

    def on_open(self, ws: WebSocket) -> None:
        self.entries.append("open")

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        self.entries.append(message)

    def on_close(self, ws: WebSocket, report: CloseReport) -> None:
        self.entries.append((report.cause, report.code_sent, report.code_received))


diaries: list[Diary] = []


class Rig:
    """A server in memory with one called handler at ``/``, and raw clients."""

    def __init__(self, handler: type[Handler], **options: Any) -> None:
        diaries.clear()
        self.clock = ManualClock()
        self.server = Server(clock=self.clock, **options)
        self.server.websocket("/")(handler)
        self.client = TestClient(self.server, self.clock)

    async def open(self, early: bytes = b"") -> tuple[MemoryTransport, Recorder]:
        """Opens a WebSocket; ``early`` is sent together with the request."""
        recorder = Recorder(self.clock)
        transport = self.client.open(recorder)
        transport.write(REQUEST + early)
        await settle()
        assert recorder.received.startswith(b"HTTP/1.1 101 ")
        del recorder.received[: recorder.received.index(b"\r\n\r\n") + 4]
        return transport, recorder


async def test_the_functions_are_called_in_order() -> None:
    rig = Rig(Diary)
    async with rig.client:
        wire, recorder = await rig.open()
        wire.write(frame(b"one") + frame(b"\x00", Opcode.BINARY) + frame(b"", Opcode.PING))
        await settle()
        assert recorder.received == b"\x8a\x00"
        wire.write(frame(b"two") + frame(close_payload(4001), Opcode.CLOSE))
        await settle()
        (diary,) = diaries
        assert diary.entries == ["open", "one", b"\x00", "two", (Cause.PEER, 4001, 4001)]
        assert rig.server.websockets == []


async def test_none_of_the_functions_is_required() -> None:
    class Silent(Handler): ...

    rig = Rig(Silent)
    async with rig.client:
        wire, recorder = await rig.open()
        wire.write(frame(b"ignored") + frame(close_payload(1000), Opcode.CLOSE))
        await settle()
        assert recorder.received == b"\x88\x02\x03\xe8"


async def test_each_connection_has_an_object_with_the_parameters_of_the_path() -> None:
    clock = ManualClock()
    server = Server(clock=clock)

    @server.websocket("/rooms/{room}/{name}")
    class Member(Handler):
        def __init__(self, room: str, name: str) -> None:
            self.room, self.name = server.rooms[room], name

        def on_open(self, ws: WebSocket) -> None:
            self.room.join(ws)

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            self.room.broadcast(f"{self.name}: {message!s}")

    async with TestClient(server, clock) as client:
        kim, lee = await client.connect("/rooms/a/kim"), await client.connect("/rooms/a/lee")
        await kim.send("hello")
        assert [await kim.recv(), await lee.recv()] == ["kim: hello"] * 2
        await lee.send("hi")
        assert await kim.recv() == "lee: hi"


async def test_there_is_no_task_and_the_answers_to_one_read_leave_in_one_write() -> None:
    class Echo(Handler):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            ws.post(message)
            ws.post("again")

    rig = Rig(Echo)
    async with rig.client:
        wire, recorder = await rig.open()
        tasks = len(asyncio.all_tasks())
        written: list[bytes] = []
        (ws,) = rig.server.websockets
        write = ws._transport.write
        ws._transport.write = lambda data: (written.append(bytes(data)), write(data))  # type: ignore[method-assign,assignment,func-returns-value]
        wire.write(frame(b"a") + frame(b"b"))
        await settle()
        assert written == [b"\x81\x01a\x81\x05again\x81\x01b\x81\x05again"]
        assert recorder.received == written[0]
        assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close"])
def test_a_coroutine_function_is_refused(name: str) -> None:
    async def function(*_: object) -> None: ...

    async def generator(*_: object) -> Any:
        yield

    for awaited in (function, generator):
        handler = type("Wrong", (Handler,), {name: awaited})
        with pytest.raises(TypeError, match=rf"Wrong\.{name} must be a plain function"):
            Server().websocket("/")(handler)


@pytest.mark.parametrize("path", ["/", "/{name}/{other}", "/{another}"])
def test_a_handler_that_does_not_take_the_parameters_of_the_path_is_refused(path: str) -> None:
    class Named(Handler):
        def __init__(self, name: str) -> None: ...

    with pytest.raises(TypeError, match="Named is made with the parameters of the path"):
        Server().websocket(path)(Named)


def test_a_class_that_is_no_handler_is_refused() -> None:
    with pytest.raises(TypeError, match="dict is not a subclass of Handler"):
        Server().websocket("/")(dict)  # type: ignore[type-var]  # what is tested


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("where", ["__init__", "on_open", "on_message"])
async def test_what_a_function_raises_is_logged_and_closes_with_1011(
    where: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Diary):
        def __init__(self) -> None:
            super().__init__()
            self.fail("__init__")

        def fail(self, now: str) -> None:
            if now == where:
                raise error

        def on_open(self, ws: WebSocket) -> None:
            super().on_open(ws)
            self.fail("on_open")

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            super().on_message(ws, message)
            self.fail("on_message")

    rig = Rig(Failing)
    async with rig.client:
        wire, recorder = await rig.open(frame(b"one") + frame(b"two"))
        assert recorder.received == b"\x88\x02\x03\xf3"
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.message.startswith("handler failed")
        wire.write(frame(close_payload(1011), Opcode.CLOSE))
        await settle()
        end = (Cause.HANDLER_FAILED, 1011, 1011)
        expected = {"__init__": [], "on_open": ["open", end], "on_message": ["open", "one", end]}
        assert diaries[0].entries == expected[where]
        assert rig.server.websockets == []
        assert len(rig.server.make_ready()._keepalive) == 0


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), asyncio.CancelledError()], ids=repr)
async def test_what_on_close_raises_is_logged(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Handler):
        def on_close(self, ws: WebSocket, report: CloseReport) -> None:
            raise error

    rig = Rig(Failing)
    async with rig.client:
        wire, recorder = await rig.open()
        wire.write(frame(close_payload(1000), Opcode.CLOSE))
        await settle()
        assert recorder.received == b"\x88\x02\x03\xe8"
        assert any("on_close failed" in record.message for record in caplog.records)
        assert rig.server.make_ready().connections == 0  # TCP is closed
        assert rig.server.websockets == []
        assert len(rig.server.make_ready()._keepalive) == 0


async def test_a_limit_closes_with_1008_and_a_closed_connection_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Limited(Diary):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            assert message != "not passed on"
            if message == "limit":
                raise LimitExceededError("too much of it")
            raise ws._closed_error()

    rig = Rig(Limited)
    async with rig.client:
        _, recorder = await rig.open(frame(b"limit"))
        assert recorder.received == b"\x88\x10\x03\xf0too much of it"
        _, recorder = await rig.open(frame(b"closed") + frame(b"not passed on"))
        assert recorder.received == b"\x88\x02\x03\xe8"
        assert diaries[1].entries == ["open"]
        assert not [record for record in caplog.records if record.exc_info]


async def test_on_message_is_not_called_after_this_side_has_begun_to_close() -> None:
    class Closing(Diary):
        def on_open(self, ws: WebSocket) -> None:
            super().on_open(ws)
            if len(diaries) == 2:
                ws.start_close(4000)

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            super().on_message(ws, message)
            if message == "fail":
                ws.fail(4002)
            else:
                ws.start_close(4001)

    rig = Rig(Closing)
    async with rig.client:
        wire, recorder = await rig.open(frame(b"close") + frame(b"more"))
        wire.write(frame(b"even more") + frame(close_payload(4001), Opcode.CLOSE))
        await settle()
        await rig.open(frame(b"too late"))
        await rig.open(frame(b"fail") + frame(b"too late"))
        assert recorder.received == b"\x88\x02\x0f\xa1"
        assert [diary.entries for diary in diaries] == [
            ["open", "close", (Cause.CLOSED, 4001, 4001)],
            ["open"],
            ["open", "fail", (Cause.CLOSED, 4002, None)],
        ]


@pytest.mark.parametrize("end", [frame(close_payload(1000), Opcode.CLOSE), b"\x83\x80"])
async def test_an_end_that_comes_with_the_request(end: bytes) -> None:
    rig = Rig(Diary)
    async with rig.client:
        await rig.open(frame(b"hello") + end)
        (diary,) = diaries
        assert diary.entries[:2] == ["open", "hello"]
        assert len(diary.entries) == 3
        assert rig.server.websockets == []


class Multiplier(Diary):
    """Answers each message with one of 20 KB, more than a client that does not read takes of many."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        super().on_message(ws, message)
        ws.post(bytes(20_000))


async def test_a_client_cannot_flood_an_echo() -> None:
    """It does not read: then it is not read either. Nothing is lost when it does."""
    rig = Rig(Multiplier)
    async with rig.client:
        wire, recorder = await rig.open()
        (ws,) = rig.server.websockets
        wire.pause_reading()
        sent = 0
        while not ws.reading_paused:
            wire.write(frame(f"{sent:06}".encode()))
            sent += 1
            await settle()
        answered = len(diaries[0].entries) - 1
        assert answered < 20  # as many as the two ends buffer
        assert ws.queued < 500_000
        assert MAX_UNREAD < ws.unread_bytes < MAX_UNREAD + 2000
        assert rig.server.incoming == ws.unread_bytes
        wire.resume_reading()
        await until(lambda: len(diaries[0].entries) == 1 + sent)
        await settle()
        assert diaries[0].entries[1:] == [f"{number:06}" for number in range(sent)]
        assert len(recorder.received) == sent * 20_004
        assert not ws.reading_paused
        assert rig.server.queued == rig.server.incoming == ws.unread_bytes == 0


async def test_others_have_a_turn_between_the_batches_of_a_peer_that_has_caught_up() -> None:
    class Slow(Multiplier):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if message == "large":
                ws.post(bytes(200_000))
            super(Multiplier, self).on_message(ws, message)

    rig = Rig(Slow)
    async with rig.client:
        wire, _ = await rig.open()
        wire.pause_reading()
        wire.write(frame(b"large"))
        await settle()
        for _ in range(3):
            wire.write(frame(b"x"))
            await settle()
        entries = diaries[0].entries
        assert entries == ["open", "large"]
        lengths = set()

        def watch() -> None:
            lengths.add(len(entries))
            asyncio.get_running_loop().call_soon(watch)

        watch()
        wire.resume_reading()
        await settle()
        assert lengths >= {3, 4, 5}


@pytest.mark.parametrize("how", ["close", "violation", "abort", "eof"])
async def test_what_was_sent_before_the_end_is_passed_on_while_the_client_is_behind(how: str) -> None:
    rig = Rig(Multiplier)
    async with rig.client:
        wire, _ = await rig.open()
        wire.pause_reading()
        for number in range(30):
            wire.write(frame(str(number).encode()))
            await settle()
        entries = diaries[0].entries
        assert len(entries) < 20
        match how:
            case "close":
                wire.write(frame(close_payload(1000), Opcode.CLOSE))
            case "violation":
                wire.write(b"\x83\x80")
            case "abort":
                wire.abort()
            case "eof":
                wire.write_eof()
        await settle()
        await rig.clock.advance(60)
        assert entries[1:31] == [str(number) for number in range(30)]
        assert len(entries) == 32
        assert rig.server.queued == rig.server.incoming == 0


async def test_the_end_is_found_behind_more_messages_than_are_kept() -> None:
    rig = Rig(Multiplier)
    async with rig.client:
        wire, _ = await rig.open()
        wire.pause_reading()
        (ws,) = rig.server.websockets
        sent = 0
        while not ws.reading_paused:
            wire.write(frame(b"x" * 1000) * 20)
            sent += 20
            await settle()
        wire.write(frame(b"last") + frame(close_payload(1000), Opcode.CLOSE))
        wire.resume_reading()
        await until(lambda: ws.closed is not None)
        assert len(diaries[0].entries) == sent + 3
        assert diaries[0].entries[-2:] == ["last", (Cause.PEER, 1000, 1000)]


async def test_a_client_for_which_too_much_waits_is_disconnected() -> None:
    rig = Rig(Multiplier, max_total_queue=200_000)
    async with rig.client:
        wire, _ = await rig.open()
        wire.pause_reading()
        for _ in range(300):
            wire.write(frame(b"x" * 1000))
            await settle()
        assert diaries[0].entries[-1] == (Cause.BUDGET, 1008, None)
        await rig.clock.advance(60)
        assert rig.server.queued == rig.server.incoming == 0


async def test_a_client_that_sends_too_fast_is_disconnected() -> None:
    rig = Rig(Diary, message_rate=10)
    async with rig.client:
        wire, recorder = await rig.open(frame(b"x") * 200)
        wire.write(frame(b"too fast") * 200)
        await settle()
        assert recorder.received == b"\x88\x0a\x03\xf0too fast"
        assert diaries[0].entries == ["open", *["x"] * 200, (Cause.LIMIT, 1008, None)]


async def test_messages_cannot_also_be_received() -> None:
    rig = Rig(Diary)
    async with rig.client:
        await rig.open()
        (ws,) = rig.server.websockets
        with pytest.raises(LocalProtocolError, match="passed to on_message") as caught:
            await ws.recv()
        assert caught.value.slug == "concurrent-recv"
        with pytest.raises(LocalProtocolError, match="passed to on_message"):
            async for _ in ws:
                pass


@pytest.mark.parametrize("answers", [True, False])
async def test_a_server_that_stops_closes_them_and_waits(answers: bool) -> None:
    rig = Rig(Diary, close_timeout=3)
    async with rig.client:
        wire, recorder = await rig.open()
        stopping = asyncio.create_task(rig.server.stop())
        await settle()
        assert recorder.received[:4] == b"\x88\x18\x03\xe9"
        assert not stopping.done()
        if answers:
            wire.write(frame(close_payload(1001), Opcode.CLOSE))
            await settle()
        else:
            await rig.clock.advance(3)
        await settle()
        assert diaries[0].entries == ["open", (Cause.GOING_AWAY, 1001, 1001 if answers else None)]
        async with asyncio.timeout(PATIENCE):
            await stopping


@pytest.mark.parametrize("how", ["close", "vanish", "raise"])
async def test_a_connection_is_freed_without_the_garbage_collector(how: str) -> None:
    seen: list[weakref.ref[object]] = []
    server = Server(compression=PerMessageDeflate())

    @server.websocket("/")
    class Echo(Handler):
        def on_open(self, ws: WebSocket) -> None:
            seen.extend(map(weakref.ref, (self, ws, ws._protocol, ws._protocol.reader, ws._transport)))

        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            if message == "raise":
                raise ZeroDivisionError
            ws.post(message)

    async with serving(server) as url:
        gc.collect()
        gc.disable()
        logging.disable()  # pytest keeps records, and with them what raised
        try:
            peer = await RawPeer.upgraded(url, "/")
            peer.send(1, b"hello")
            assert await peer.read(7) == b"\x81\x05hello"
            ends: dict[str, Callable[[], object]] = {
                "close": lambda: peer.send(8, close_payload(1000)),
                "vanish": peer.writer.transport.abort,
                "raise": lambda: peer.writer.write(
                    frame(b"raise") + frame(close_payload(1011), Opcode.CLOSE)
                ),
            }
            ends[how]()
            await until(lambda: len(seen) == 5 and not any(ref() for ref in seen))
        finally:
            gc.enable()
            logging.disable(logging.NOTSET)
        await peer.close()


async def test_text_that_is_no_text_fails_the_handler_only() -> None:
    class Surrogate(Diary):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            with pytest.raises(LocalProtocolError) as caught:
                ws.post("\ud800")
            assert caught.value.slug == "bad-text"
            ws.post("well")
            ws.start_close()
            ws.post("dropped")  # it is closing: nothing happens

    rig = Rig(Surrogate)
    async with rig.client:
        _, recorder = await rig.open(frame(b"x"))
        assert recorder.received == b"\x81\x04well\x88\x02\x03\xe8"


class Large(Diary):
    """Answers with more than a client that does not read takes, and ends as it is told."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        super().on_message(ws, message)
        match message:
            case "large":
                ws.post(bytes(400_000))
            case "close":
                ws.start_close(4001)
            case "raise":
                raise ZeroDivisionError


@pytest.mark.parametrize("how", ["close", "raise"])
async def test_nothing_runs_after_a_client_that_has_caught_up_was_closed(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages of the same batch are left: nothing may try to pass them on until the peer's Close comes."""
    rig = Rig(Large)
    turns: list[Calls] = []
    go_on = Calls.go_on
    monkeypatch.setattr(Calls, "go_on", lambda calls: (turns.append(calls), go_on(calls)))  # type: ignore[func-returns-value]
    async with rig.client:
        wire, _ = await rig.open()
        (ws,) = rig.server.websockets
        wire.pause_reading()
        wire.write(frame(b"large"))
        await settle()
        wire.write(frame(how.encode()) + frame(b"left") * 3)
        await settle()
        wire.resume_reading()
        await settle()
        assert diaries[0].entries == ["open", "large", how]
        assert len(turns) < 5
        assert ws.unread_bytes == 0


async def test_nothing_is_passed_on_after_a_function_has_failed_even_at_the_end() -> None:
    rig = Rig(Large)
    async with rig.client:
        wire, _ = await rig.open()
        wire.pause_reading()
        for data in (
            frame(b"large"),
            frame(b"one"),
            frame(b"raise") + frame(b"two"),
            frame(b"three"),
            frame(close_payload(1000), Opcode.CLOSE),
        ):
            wire.write(data)
            await settle()
        assert diaries[0].entries == ["open", "large", "one", "raise", (Cause.PEER, 1000, 1000)]


@asynccontextmanager
async def client_that_is_behind() -> AsyncIterator[tuple[Rig, MemoryTransport, Recorder]]:
    """Yields a client that has not read a large answer; only the send timeout can end it."""
    rig = Rig(Large, send_timeout=30, ping_interval=1000, ping_timeout=1000)
    async with rig.client:
        wire, recorder = await rig.open()
        wire.pause_reading()
        wire.write(frame(b"large"))
        await settle()
        yield rig, wire, recorder


async def test_a_client_that_never_catches_up_is_disconnected_in_time() -> None:
    """While it is not read, its silence means nothing to `keepalive`; so its own messages wait for it."""
    async with client_that_is_behind() as (rig, wire, _):
        await rig.clock.advance(60)
        assert diaries[0].entries == ["open", "large"]  # nothing waits for it
        wire.write(frame(b"waits"))
        await rig.clock.advance(29)
        assert diaries[0].entries == ["open", "large"]
        await rig.clock.advance(1)
        assert diaries[0].entries == ["open", "large", (Cause.SEND_TIMEOUT, 1008, None)]
        assert rig.server.make_ready().connections == 0


async def test_a_client_that_falls_behind_again_is_disconnected_in_time() -> None:
    async with client_that_is_behind() as (rig, wire, recorder):
        wire.write(frame(b"large") + frame(b"waits"))
        await rig.clock.advance(20)
        wire.resume_reading()
        while len(recorder.received) < 400_000:  # noqa: ASYNC110 - each turn counts
            await asyncio.sleep(0)  # no more turns than that: it would catch up again
        wire.pause_reading()
        await settle()
        await rig.clock.advance(29)
        assert diaries[0].entries == ["open", "large", "large"]
        await rig.clock.advance(1)
        assert diaries[0].entries[3:] == [(Cause.SEND_TIMEOUT, 1008, None)]


@pytest.mark.parametrize(
    ("name", "close_frame"),
    [
        ("on_open", b"\x88\x02\x03\xf3"),
        ("on_message", b"\x88\x02\x03\xf3"),
        ("on_close", b"\x88\x02\x03\xe8"),
    ],
)
async def test_a_coroutine_that_a_plain_function_returns_is_an_error(
    name: str, close_frame: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def function(*_: object) -> None: ...

    def plain(*arguments: object) -> object:  # as a decorator makes one
        return function(*arguments)

    rig = Rig(type("Hidden", (Handler,), {name: plain}))
    async with rig.client:
        wire, recorder = await rig.open(frame(b"x"))
        wire.write(frame(close_payload(1000), Opcode.CLOSE))
        await settle()
        assert bytes(recorder.received) == close_frame
        (record,) = [record for record in caplog.records if record.exc_info]
        assert record.exc_text is not None
        assert "a called handler has returned a coroutine, which nothing awaits" in record.exc_text


@pytest.mark.parametrize("text", ["x" * 200, "x" + "é" * 100, "\ud800"], ids=ascii)
async def test_the_reason_of_a_limit_is_cut_to_what_a_close_may_have(text: str) -> None:
    class Limited(Handler):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            raise LimitExceededError(text)

    rig = Rig(Limited)

    @rig.server.websocket("/coroutine")
    async def limited(ws: WebSocket) -> None:
        raise LimitExceededError(text)

    async with rig.client:
        _, recorder = await rig.open(frame(b"x"))
        assert recorder.received[2:4] == b"\x03\xf0"
        assert recorder.received[4:] == text.encode(errors="replace")[:123].decode(errors="ignore").encode()
        ws = await rig.client.connect("/coroutine")
        await until(lambda: ws.closed is not None)
        assert ws.closed is not None
        assert (ws.closed.code, ws.closed.reason.encode()) == (1008, bytes(recorder.received[4:]))


@pytest.mark.parametrize("compression", [None, PerMessageDeflate()], ids=["plain", "deflate"])
async def test_a_client_over_tls_that_reads_late_gets_every_answer(
    certificate: Certificate, compression: PerMessageDeflate | None
) -> None:
    """Over TCP and TLS, where asyncio buffers too: it sends 4 MB before it reads anything."""
    server = Server(compression=compression)
    calls = 0

    @server.websocket("/")
    class Echo(Handler):
        def on_message(self, ws: WebSocket, message: str | bytes) -> None:
            nonlocal calls
            calls += 1
            ws.post(message)

    await server.listen(Endpoint("127.0.0.1", ssl_context=certificate.server_context()))
    try:
        url = f"wss://localhost:{server.port}/"
        async with connect(url, ssl_context=certificate.client_context(), compression=compression) as client:
            # Random, so that compression makes nothing of it small.
            messages = [os.urandom(20_000) for _ in range(200)]

            async def send_all() -> None:
                for message in messages:
                    await client.send(message)

            client._protocol.reader.pause()
            sending = asyncio.create_task(send_all())
            (ws,) = server.websockets
            await until(lambda: ws.reading_paused)
            assert calls < len(messages)
            assert server.queued < 3_000_000
            client._protocol.reader.resume()
            assert [await client.recv() for _ in messages] == messages
            await sending
            assert (calls, server.incoming) == (len(messages), 0)
    finally:
        await server.stop()
