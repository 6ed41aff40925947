"""The pages of the command: a start page, a chat, a stock ticker and a game, and the events of all of them.

Each has a short file here, an example of how to use `rfc6455_server.socketio`, and its browser side in
``web/``.
"""

from importlib import resources
from typing import Final

from rfc6455 import __version__
from rfc6455_server.app import Server
from rfc6455_server.http.routes import HttpRequest, HttpResponse
from rfc6455_server.pages.chat import add_chat
from rfc6455_server.pages.game import add_game
from rfc6455_server.pages.status import add_status
from rfc6455_server.pages.ticker import add_ticker
from rfc6455_server.socketio import SocketIO

RECOVERY: Final = 120.0
"""Seconds for which a client whose connection was lost is sent what it missed when it comes back."""

MAX_PAYLOAD: Final = 1 << 20
"""Maximum bytes of a message; images are sent in smaller pieces."""

_PAGES: Final = {"/": "index", "/chat": "chat", "/ticker": "ticker", "/game": "game"}


async def no_content(_: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def add_pages(server: Server) -> SocketIO:
    """Adds the pages and their events to a server."""
    io = SocketIO(recovery=RECOVERY, max_payload=MAX_PAYLOAD)
    server.mount(io)
    add_status(server, io)
    add_chat(io)
    add_ticker(io)
    add_game(io)
    io.serve_asyncapi("/events", title="The pages of rfc6455", version=__version__)
    server.http("/favicon.ico")(no_content)  # some browsers request it, although the pages name an icon
    web = resources.files("rfc6455_server") / "web"
    for path, name in _PAGES.items():
        server.page(path, (web / f"{name}.html").read_bytes(), "text/html")
    with resources.as_file(web) as directory:
        server.static("/web/", directory)
    return io
