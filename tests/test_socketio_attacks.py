"""Hostile and unlucky clients of the Socket.IO server: what they send, and what they must not reach."""

import json

import pytest

from rfc6455_server.testing import settle
from tests.server_helpers import RawPeer
from tests.test_http import read_answer
from tests.test_socketio_server import polling, rig


async def test_a_session_that_ends_before_its_attachments_leaves_nothing_in_the_budget() -> None:
    async with rig() as r:
        for number in range(3):
            client = await r.client()
            places = ",".join(json.dumps({"_placeholder": True, "num": place}) for place in range(2))
            client.say(f'452-["x",{places}]', b"x" * 500_000)
            await settle()
            assert r.server.queued > 500_000
            if number == 0:
                r.test.transports[-1].abort()
            else:
                client.say("bad" if number == 1 else "41")
            await settle()
            assert r.server.queued == 0
        assert r.io._transports is not None
        assert not r.io._transports.sessions


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
async def test_an_origin_that_is_not_ascii_is_refused(method: str) -> None:
    async with polling(cors=lambda origin, request: True) as (url, io, _):
        peer = await RawPeer.connect(url)
        target = f"{method} /socket.io/?EIO=4&transport=polling HTTP/1.1"
        peer.writer.write(target.encode() + b"\r\nHost: test\r\nOrigin: http://\xe9\r\n\r\n")
        assert (await read_answer(peer)).status == 403
        await peer.close()
        assert io._transports is not None
        assert not io._transports.sessions
