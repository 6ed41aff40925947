"""Serves the official client's bundles: ``/socket.io/socket.io.js`` and its like.

Left to others: files over HTTP (`rfc6455_server.http.static`). The bundles are not part of this package;
npm installs them: ``npm install socket.io-client``.
"""

from pathlib import Path
from typing import Final, Literal

from rfc6455_server.http.routes import HttpHandler, HttpRequest, HttpResponse, HttpRoute
from rfc6455_server.http.static import static_files
from rfc6455_server.socketio.cors import Cors

_BUNDLES: Final = ("socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js")

NAMES: Final = frozenset(name + suffix for name in _BUNDLES for suffix in ("", ".map"))
"""The files that are served; none but these."""

_INSTALLED: Final = Path("node_modules", "socket.io-client", "dist")


def find_folder(option: str | Path | Literal[True]) -> Path:
    """Returns the folder that ``serve_client`` stands for; raises `ValueError` if there are no bundles."""
    if option is True:
        here = Path.cwd()
        folders = [parent / _INSTALLED for parent in (here, *here.parents)]
    else:
        folders = [Path(option)]
    for folder in folders:
        if any((folder / name).is_file() for name in _BUNDLES):
            return folder
    raise ValueError(
        f"serve_client: {folders[0]} has none of {', '.join(_BUNDLES)};"
        " install them with: npm install socket.io-client"
    )


def client_routes(path: str, folder: Path, cors: Cors) -> dict[str, HttpRoute]:
    """Returns the routes of the files in ``folder``, by their paths below ``path``."""
    serve = static_files(path + "/", folder)
    present = [name for name in sorted(NAMES) if (folder / name).is_file()]
    return {f"{path}/{name}": HttpRoute(_bundle_handler(serve, cors)) for name in present}


def _bundle_handler(serve: HttpHandler, cors: Cors) -> HttpHandler:
    async def answer(request: HttpRequest) -> HttpResponse:
        response = await serve(request)
        is_map = request.head.path.endswith(".map")
        response.content_type = f"application/{'json' if is_map else 'javascript'}; charset=utf-8"
        # A module script of another origin needs them.
        response.headers += cors.fields(request.head) or []
        return response

    return answer
