"""Files of a directory over HTTP."""

import asyncio
import mimetypes
import re
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from rfc6455_server.http.routes import HttpHandler, HttpRequest, HttpResponse, not_found

FILE_PIECE: Final = 1 << 18
"""Bytes of a file that are read and sent at once."""

# entity-tag = [ "W/" ] DQUOTE *etagc DQUOTE; the comparison is weak
_MAX_TAGS: Final = 100
"""Entity tags of a request that are compared. A cache names one for each version that it has."""

_ENTITY_TAG: Final = re.compile(r'"[^"]*"|\*')


def static_files(prefix: str, directory: Path, headers: Iterable[tuple[str, str]] = ()) -> HttpHandler:
    """Returns a handler for the files in ``directory``; for a path that ends with ``/``, its ``index.html``.

    Files outside the directory and names that start with a dot are not found, whatever the path or a symbolic
    link says. Raises `OSError` if the directory does not exist.
    """
    root = directory.resolve(strict=True)
    fields = list(headers)

    async def answer(request: HttpRequest) -> HttpResponse:
        file = await asyncio.to_thread(_find_file, root, request.head.path.removeprefix(prefix))
        if file is None:
            return not_found()
        facts = file.stat()
        tag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
        if _names_tag(request.head.headers.get_all("If-None-Match"), tag):
            return HttpResponse(status=304, headers=[("ETag", tag), *fields])
        content_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        if content_type.startswith("text/"):
            content_type += "; charset=utf-8"
        return HttpResponse(
            content_type=content_type,
            headers=[("ETag", tag), ("Cache-Control", "no-cache"), *fields],
            pieces=_read_pieces(file, facts.st_size),
            length=facts.st_size,
        )

    return answer


def _names_tag(conditions: Iterable[str], tag: str) -> bool:
    """Whether ``If-None-Match`` names ``tag`` or any (RFC 9110 §13.1.2); several lines are one list.

    Looks at `_MAX_TAGS`. Without a match, the whole file is sent.
    """
    found = islice(_ENTITY_TAG.finditer(",".join(conditions)), _MAX_TAGS)
    return any(match[0] in (tag, "*") for match in found)


def _find_file(root: Path, path: str) -> Path | None:
    names = unquote(path).split("/")
    if not names[-1]:
        names[-1] = "index.html"
    if any(not name or name.startswith(".") or "\0" in name or "\\" in name for name in names):
        return None
    try:
        file = root.joinpath(*names).resolve()
        inside = file.relative_to(root)
        # A symbolic link may lead to a name that starts with a dot.
        return file if file.is_file() and not any(name.startswith(".") for name in inside.parts) else None
    except (OSError, RuntimeError, ValueError):
        return None  # for example, it is outside, the name is too long, or links form a circle


async def _read_pieces(file: Path, size: int) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(file.open, "rb") as opened:
        while size > 0:
            piece = await asyncio.to_thread(opened.read, min(FILE_PIECE, size))
            if not piece:
                raise OSError("the file was truncated while it was sent")
            size -= len(piece)
            yield piece
