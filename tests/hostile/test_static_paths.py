"""Paths of static files that lead elsewhere."""

import os
from pathlib import Path

import pytest

from rfc6455_server import Server
from rfc6455_server.http.routes import HttpRoute, fixed
from tests.hostile.flaws import flaw
from tests.server_helpers import serving
from tests.test_http import ask

ESCAPES = [
    "../secret.txt",
    "..%2fsecret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "%252e%252e%252fsecret.txt",
    ".%2e/secret.txt",
    "sub/../../secret.txt",
    "sub/..%2f..%2fsecret.txt",
    "./a.txt",
    "sub/./b.txt",
    "..\\secret.txt",
    "..%5csecret.txt",
    "sub%5c..%5ca.txt",
    "....//secret.txt",
    "..;/secret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "..%c0%afsecret.txt",
    "%ef%bc%8e%ef%bc%8e/secret.txt",
    "..%ef%bc%8fsecret.txt",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "//etc/passwd",
    "sub//b.txt",
    "a.txt/",
    "a.txt%00",
    "a.txt%00.png",
    "%00",
    "a.txt%0a",
    "A.TXT%20",
    "~root/secret.txt",
    "file:///etc/passwd",
    "c:/windows/win.ini",
    "out/secret.txt",
    "out.txt",
    "dangling.txt",
    "loop.txt",
    ".hidden",
    "%2ehidden",
    "sub/.git/config",
    "git/config",
    "hidden.txt",
    "sub",
    "sub/",
    "fifo",
    "x" * 300,
    "sub/" * 200 + "b.txt",
    "%ff%fe",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sub" / ".git").mkdir(parents=True)
    (root / "a.txt").write_text("open")
    (root / "sub" / "b.txt").write_text("open")
    (root / "sub" / ".git" / "config").write_text("secret")
    (root / ".hidden").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2" / "c.txt").write_text("secret")
    (root / "out").symlink_to(tmp_path)
    (root / "out.txt").symlink_to(tmp_path / "secret.txt")
    (root / "git").symlink_to(root / "sub" / ".git")
    (root / "hidden.txt").symlink_to(root / ".hidden")
    (root / "dangling.txt").symlink_to(tmp_path / "nothing")
    (root / "loop.txt").symlink_to(root / "loop.txt")
    os.mkfifo(root / "fifo")
    return root


@flaw(
    "found here",
    what="names a file outside of the directory: dots, encodings, backslashes, NUL, links, pipes",
    here="404; only regular files below the directory are served, none whose name starts with a dot",
)
@pytest.mark.parametrize("path", ESCAPES)
async def test_a_path_stays_in_its_directory(root: Path, path: str) -> None:
    server = Server()
    server.static("/files/", root)
    async with serving(server) as url:
        answer = await ask(url, f"GET /files/{path} HTTP/1.1\nHost: a\n")
        assert answer.status == 404
        assert b"open" not in answer.body
        assert b"secret" not in answer.body
        assert (await ask(url, "GET /files/a.txt HTTP/1.1\nHost: a\n")).body == b"open"


@flaw(
    "found here",
    what="names a path that starts like the served one, and gets what is below that",
    here="404",
)
@pytest.mark.parametrize("target", ["/files-2/c.txt", "/files", "/filesa.txt", "/FILES/a", "/%66iles/", "/"])
async def test_a_prefix_is_no_part_of_a_name(target: str) -> None:
    server = Server()
    server.add_http_route("/files/", HttpRoute(fixed(b"open", "text/plain")))
    async with serving(server) as url:
        assert (await ask(url, f"GET {target} HTTP/1.1\nHost: a\n")).status == 404
        assert (await ask(url, "GET /files/a.txt HTTP/1.1\nHost: a\n")).status == 200
