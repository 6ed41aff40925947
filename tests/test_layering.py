"""The import rules, checked in the source: imports point one way, between files and between folders."""

import ast
import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A module imports only modules that are before it in its list. A folder is one entry in its parent's list,
# and has its own list.
ORDER = {
    package: order.split()
    for package, order in {
        "rfc6455": "constants errors masking headers frames uri http11 deflate events messages reader"
        " connection handshake __init__ __main__",
        "rfc6455_server": "clock collector logs callbacks stats limits policies asyncio_private systemd"
        " process rooms websocket http listening socketio app client testing pages command __init__ __main__",
        "rfc6455_server.websocket": "reports streams lingering hub backlog outbox inbox calls pings ending"
        " websocket handler lag keepalive __init__",
        "rfc6455_server.http": "extras refusals heads routes static connection metrics __init__",
        "rfc6455_server.listening": "certificates origins proxy acceptor routing opening listener __init__",
        "rfc6455_server.socketio": "ids packet_json packets typed engine_packets engine cors compression"
        " options encoded backlog inflow reasons polling session handshake"
        " history recovery catchup registering documents handlers receiving"
        " targets sockets cluster namespaces parents classes msgpack clients"
        " client_files transports mounting engine_socket engine_server __init__",
        "rfc6455_server.socketio.typed": "problems definitions shapes containers records pydantic_models"
        " msgspec_models models annotations signatures declared asyncapi page __init__",
        "rfc6455_server.pages": "chat game status ticker __init__",
        "rfc6455_server.command": "limit_options terminal endpoints cli __init__",
    }.items()
}
FOLDERS = {"rfc6455": ROOT / "rfc6455", "rfc6455_server": ROOT / "server" / "rfc6455_server"}
FILES = [path for folder in FOLDERS.values() for path in sorted(folder.rglob("*.py"))]

FORBIDDEN_IN_CODEC = {"asyncio", "socket", "ssl", "time", "logging", "selectors", "threading"}


def imports(path: Path) -> set[str]:
    """Returns the full names of the modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names.add(node.module or "")
    return names


def module_name(path: Path) -> str:
    """Returns the full name of a module. A package's own module ends with ``__init__``."""
    package = next(name for name, folder in FOLDERS.items() if path.is_relative_to(folder))
    return ".".join([package, *path.relative_to(FOLDERS[package]).with_suffix("").parts])


def violations(module: str, names: set[str]) -> list[str]:
    """Returns the imports of ``module`` that are the module itself or after it in the order."""
    parts = module.split(".")
    wrong = []
    for name in sorted(names):
        target = name.split(".")
        if target[0] not in FOLDERS or target[0] != parts[0]:
            continue
        # Where the two paths diverge, the target must be before the module.
        depth = next((i for i, (a, b) in enumerate(zip(parts, target, strict=False)) if a != b), len(target))
        package = ".".join(parts[:depth])
        order = ORDER[package]
        here = parts[depth]
        there = target[depth] if depth < len(target) else "__init__"
        if order.index(there) >= order.index(here):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path: Path) -> None:
    assert violations(module_name(path), imports(path)) == []


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_has_a_place_and_a_docstring(path: Path) -> None:
    package, _, name = module_name(path).rpartition(".")
    assert name in ORDER[package]
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_place_has_a_module() -> None:
    names = set(map(module_name, FILES))
    for package, order in ORDER.items():
        for name in order:
            full = f"{package}.{name}"
            assert full in names or full in ORDER, full


@pytest.mark.parametrize("path", sorted(FOLDERS["rfc6455"].rglob("*.py")), ids=module_name)
def test_the_codec_does_no_io_and_depends_on_nothing(path: Path) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - {"rfc6455"}
    assert not outside & FORBIDDEN_IN_CODEC
    allowed = set(sys.stdlib_module_names) | ({"numpy"} if path.stem == "masking" else set())
    assert outside <= allowed


@pytest.mark.parametrize("path", sorted(FOLDERS["rfc6455_server"].rglob("*.py")), ids=module_name)
def test_the_server_uses_the_public_interface_of_the_codec_only(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith("rfc6455.")]


def test_no_file_is_too_long() -> None:
    long = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    limit = {name: 600 if name.endswith((".engine", ".handshake")) else 500 for name in long}
    assert {name: lines for name, lines in long.items() if lines > limit[name]} == {}


def test_the_check_itself_sees_every_kind_of_import(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("import rfc6455.frames\ndef f():\n    from rfc6455 import Role\n    import ssl\n")
    assert imports(file) == {"rfc6455.frames", "rfc6455", "ssl"}
    for order in ORDER.values():
        assert len(set(order)) == len(order)
    for before, after in pairwise(ORDER["rfc6455"]):
        assert violations(f"rfc6455.{before}", {f"rfc6455.{after}"}) == [f"rfc6455.{after}"]
        assert violations(f"rfc6455.{after}", {f"rfc6455.{before}"}) == []
    assert violations("rfc6455_server.websocket.hub", {"rfc6455_server.websocket"}) != []
    assert violations("rfc6455_server.websocket.hub", {"rfc6455_server.listening.proxy"}) != []
    assert violations("rfc6455_server.websocket.hub", {"rfc6455_server.websocket.outbox"}) != []
    assert violations("rfc6455_server.listening.proxy", {"rfc6455_server.websocket.hub"}) == []
