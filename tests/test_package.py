"""The wheel and the source distribution, built as for a release."""

import re
import subprocess
import sys
import tarfile
import tomllib
import venv
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

import pytest

import rfc6455

ROOT = Path(__file__).parent.parent
PACKAGES = {"rfc6455": ROOT / "rfc6455", "rfc6455_server": ROOT / "server" / "rfc6455_server"}
IN_SOURCE_DISTRIBUTION = {
    *(".ci", ".github", ".gitignore", ".pre-commit-config.yaml", "Makefile", "noxfile.py", "pyproject.toml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "PKG-INFO"),
    *("benchmarks", "conformance", "docs", "examples", "rfc6455", "server", "tests"),
}
NEVER = {"node_modules", ".venv", ".nox", ".wstest", "__pycache__", ".git", "reports", "build", "dist"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder with both. The wheel is built from the source distribution, not the checkout."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


@pytest.fixture(scope="module")
def description(metadata: Message) -> str:
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


def test_the_wheel_has_the_packages_and_nothing_else(wheel: Path) -> None:
    expected = {
        f"{name}/{path.relative_to(folder)}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert {"rfc6455/py.typed", "rfc6455_server/py.typed", "rfc6455_server/web/index.html"} <= names


def test_the_source_distribution_has_what_a_checkout_has(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = [Path(*Path(name).parts[1:]) for name in archive.getnames()]
    assert {name.parts[0] for name in names} == IN_SOURCE_DISTRIBUTION
    assert not [name for name in names if NEVER.intersection(name.parts)]
    assert {Path("tests/test_package.py"), Path("docs/reading.md"), Path(".ci/run")} <= set(names)


def test_the_version_matches_the_code_and_the_changelog(metadata: Message) -> None:
    assert metadata["Version"] == rfc6455.__version__
    releases = re.findall(
        r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert releases[0] == rfc6455.__version__


def test_the_changelog_links_each_release() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.findall(r"^\[(.+?)\]: https://", changelog, re.MULTILINE) == headings


def test_pictures_and_links_of_the_readme_also_work_on_a_package_index(description: str) -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", description)
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)]*)\)", description)
    assert len(pictures) == (ROOT / "README.md").read_text().count("![")
    raw = f"https://raw.githubusercontent.com/rfc6455-python/rfc6455/v{rfc6455.__version__}/"
    for picture in pictures:
        assert picture.startswith(raw)
        assert (ROOT / picture.removeprefix(raw)).is_file()
    assert links
    assert all(link.startswith(("https://", "http://", "#")) for link in links)
    assert not re.search(r"<img|\]: (?!https?:)", description), "links in a form that is not made absolute"


def test_code_in_the_readme_is_not_changed_on_a_package_index(description: str) -> None:
    blocks = re.findall(r"^```.*?^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    assert all(block in description for block in blocks)


def test_all_lists_of_python_versions_agree(metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier", [])
    pythons = [match[1] for text in classifiers if (match := re.search(r":: (3\.\d+)$", text))]
    noxfile = re.search(r"^PYTHONS = \[(.*)\]", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    workflow = re.search(r"python: \[(.*)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert noxfile is not None
    assert workflow is not None
    for found in (noxfile[1], workflow[1]):
        assert re.findall(r'"(.+?)"', found) == pythons
    assert metadata["Requires-Python"] == f">={pythons[0]}"


def test_build_requirements_are_in_the_extra_dev() -> None:
    """`make build` and these tests build without isolation, so that they need no network."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extra = set(project["project"]["optional-dependencies"]["dev"])
    assert set(project["build-system"]["requires"]) <= extra


def test_the_wheel_works_outside_of_the_tree(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv")
    programs = tmp_path / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-index", "--no-deps", str(wheel)], check=True)

    def run(*command: str) -> str:
        done = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
        return done.stdout

    assert "--port" in run(str(programs / "rfc6455-server"), "--help")
    where = "import rfc6455, rfc6455_server; print(rfc6455.__file__, rfc6455_server.__file__)"
    assert run(str(programs / "python"), "-c", where).count(str(tmp_path)) == 2
