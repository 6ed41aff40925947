"""The import rules of the two packages, read from the source."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each may import from those above it only.
CODEC = ["constants", "errors", "masking", "headers", "frames", "uri", "http11", "deflate", "events"]
CODEC += ["messages", "connection", "handshake", "__init__", "__main__"]
SERVER = ["logs", "stats", "limits", "outbox", "reports", "rooms", "websocket", "keepalive", "proxy"]
SERVER += ["acceptor", "http", "listener", "metrics", "socketio", "app", "client", "testing", "pages"]
SERVER += ["terminal", "cli", "__init__", "__main__"]

SOCKETIO = ["packets", "engine", "recovery", "session", "namespaces", "transports", "__init__"]

FORBIDDEN_IN_CODEC = {"asyncio", "socket", "ssl", "time", "logging", "selectors", "threading"}


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports, wherever the import stands."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names.add(node.module or "")
    return names


def modules(package: Path) -> list[Path]:
    return sorted(package.glob("*.py"))


def parts(names: set[str], package: str) -> set[str]:
    """Which modules of ``package`` are among ``names``."""
    inside = {name for name in names if name == package or name.startswith(package + ".")}
    return {([*name.split("."), "__init__"])[1] for name in inside}


@pytest.mark.parametrize("path", modules(ROOT / "rfc6455"), ids=lambda path: path.stem)
def test_the_codec_imports_upward_and_does_no_io(path: Path) -> None:
    names = imports(path)
    above = CODEC[: CODEC.index(path.stem)]
    assert parts(names, "rfc6455") <= set(above)
    outside = {name.split(".")[0] for name in names} - {"rfc6455"}
    assert not outside & FORBIDDEN_IN_CODEC
    allowed = set(sys.stdlib_module_names) | ({"numpy"} if path.stem == "masking" else set())
    assert outside <= allowed


@pytest.mark.parametrize("path", modules(ROOT / "server" / "rfc6455_server"), ids=lambda path: path.stem)
def test_the_server_imports_upward(path: Path) -> None:
    above = SERVER[: SERVER.index(path.stem)]
    assert parts(imports(path), "rfc6455_server") <= set(above)


@pytest.mark.parametrize(
    "path", modules(ROOT / "server" / "rfc6455_server" / "socketio"), ids=lambda path: path.stem
)
def test_named_events_import_upward(path: Path) -> None:
    names = imports(path)
    assert parts(names, "rfc6455_server") <= set(SERVER[: SERVER.index("socketio") + 1])
    inside = {name.removeprefix("rfc6455_server.") for name in names}
    assert parts(inside, "socketio") <= set(SOCKETIO[: SOCKETIO.index(path.stem)])
    assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_codec_never_imports_the_server() -> None:
    for path in modules(ROOT / "rfc6455"):
        assert not any(name.startswith("rfc6455_server") for name in imports(path))


@pytest.mark.parametrize("package", ["rfc6455", "server/rfc6455_server"])
def test_every_module_has_a_place_and_a_docstring(package: str) -> None:
    for path in modules(ROOT / package):
        assert path.stem in (CODEC if package == "rfc6455" else SERVER)
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_check_itself_sees_nested_and_dotted_imports(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import rfc6455.frames\ndef f():\n    from rfc6455 import Role\n    import ssl\n")
    assert imports(file) == {"rfc6455.frames", "rfc6455", "ssl"}
    assert parts(imports(file), "rfc6455") == {"frames", "__init__"}
