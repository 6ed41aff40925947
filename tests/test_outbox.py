import asyncio

from rfc6455 import Connection, Role
from rfc6455_server.outbox import Outbox, Tick


class Transport(asyncio.WriteTransport):
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.writes.append(data)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.writes))


async def test_frames_of_one_tick_leave_in_one_write_a_connection() -> None:
    tick = Tick(asyncio.get_running_loop())
    connections = [Connection(Role.SERVER) for _ in range(3)]
    transports = [Transport() for _ in connections]
    outboxes = [Outbox(c, t, tick) for c, t in zip(connections, transports, strict=True)]
    for text in ("a", "b"):
        for connection, outbox in zip(connections[:2], outboxes[:2], strict=True):
            connection.send_text(text)
            outbox.schedule()
    assert [transport.writes for transport in transports] == [[], [], []]
    await asyncio.sleep(0)
    assert [transport.writes for transport in transports] == [[b"\x81\x01a\x81\x01b"]] * 2 + [[]]
    connections[0].send_text("c")
    outboxes[0].schedule()
    await asyncio.sleep(0)
    assert transports[0].writes[1:] == [b"\x81\x01c"]
    assert outboxes[0].size == 9


async def test_flush_does_not_wait_and_nothing_is_written_twice() -> None:
    connection, transport = Connection(Role.SERVER), Transport()
    outbox = Outbox(connection, transport, Tick(asyncio.get_running_loop()))
    connection.send_text("a")
    outbox.schedule()
    outbox.flush()
    assert transport.writes == [b"\x81\x01a"]
    await asyncio.sleep(0)
    assert transport.writes == [b"\x81\x01a"]
    outbox.flush()
    assert transport.writes == [b"\x81\x01a"]
