"""The private names of asyncio that the server uses, each optional, in one place.

asyncio has no public way to do these four things. Where a name is missing (another event loop, another
Python), the server works without it; where memory then grows, it logs one warning.

- ``loop._make_socket_transport`` makes a transport for an accepted socket without a task and a future, which
  are a tenth of an opening handshake (``benchmarks/handshake.py``). Without it, the server uses the public
  ``connect_accepted_socket``.
- ``transport._read_ready_cb`` and, since Python 3.12, ``transport._write_ready`` are methods of the transport
  that it keeps in itself. Clearing them breaks the reference cycle, so that a connection is freed when it
  ends. Without it, ended connections wait for the garbage collector. (Since Python 3.12, asyncio clears them
  in ``close``, but not where a connection is aborted or reset.)
- ``transport._ssl_protocol`` has a read buffer of 256 KiB for each TLS connection, although a TLS record has
  at most 16 KiB. Without it, each idle TLS connection holds some 240 KiB more.
- ``protocol._drain_waiters`` is an empty deque of 760 bytes in each protocol of a stream, for those who wait
  in ``StreamWriter.drain``. Here nobody does.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from rfc6455_server.logs import log

_TLS_RECORD_SIZE: Final = 1 << 14

_SELF_REFERENCES: Final = ("_read_ready_cb", "_write_ready")

_warned: set[str] = set()


def socket_transport_maker(loop: asyncio.AbstractEventLoop) -> Callable[..., object] | None:
    """Returns the loop's function of a socket and a protocol that makes a transport at once, or ``None``."""
    return getattr(loop, "_make_socket_transport", None)


def break_reference_cycle(transport: object) -> None:
    """Clears the methods that an asyncio transport keeps in itself. Call it when the connection is lost."""
    for name in _SELF_REFERENCES:
        if hasattr(transport, name):
            setattr(transport, name, None)
        elif _is_asyncio(transport, "asyncio.selector_events"):
            _warn_once(name, "ended connections are freed by the garbage collector only")


def drop_drain_waiters(protocol: asyncio.StreamReaderProtocol) -> None:
    """Frees the queue of those who wait in ``StreamWriter.drain``, which must not be called."""
    if hasattr(protocol, "_drain_waiters"):
        protocol._drain_waiters = ()


def shrink_tls_buffer(transport: asyncio.BaseTransport) -> None:
    """Replaces asyncio's read buffer of a TLS connection by one of 16 KiB."""
    protocol: Any = getattr(transport, "_ssl_protocol", None)
    if protocol is not None and hasattr(protocol, "_ssl_buffer_view") and hasattr(protocol, "max_size"):
        protocol.max_size = _TLS_RECORD_SIZE
        protocol._ssl_buffer_view.release()
        protocol._ssl_buffer = bytearray(_TLS_RECORD_SIZE)
        protocol._ssl_buffer_view = memoryview(protocol._ssl_buffer)
    elif _is_asyncio(transport, "asyncio.sslproto"):
        _warn_once("_ssl_protocol", "each TLS connection holds a read buffer of 256 KiB")


def _is_asyncio(transport: object, module: str) -> bool:
    return type(transport).__module__ == module


def _warn_once(name: str, consequence: str) -> None:
    if name not in _warned:
        _warned.add(name)
        log(logging.WARNING, "asyncio has changed", missing=name, consequence=consequence)
