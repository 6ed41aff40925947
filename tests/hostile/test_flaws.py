"""docs/security.md lists what the tests here name, and all of them name something."""

from types import ModuleType

import pytest

from tests.hostile.flaws import PAGE, flaws_by_test, link, modules, page


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run python -m tests.hostile.flaws --write"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__.rpartition(".")[2])
def test_each_test_names_a_flaw(module: ModuleType) -> None:
    found = flaws_by_test(module)
    assert found
    assert [name for name, flaws in found if not flaws] == []


def test_an_identifier_links_to_its_text() -> None:
    assert link("CVE-2020-27813").endswith("(https://nvd.nist.gov/vuln/detail/CVE-2020-27813)")
    assert link("GHSA-hxp9-w8x3-p566").endswith("(https://github.com/advisories/GHSA-hxp9-w8x3-p566)")
    assert link("aio-libs/aiohttp#13274").endswith("(https://github.com/aio-libs/aiohttp/issues/13274)")
    assert link("found here") == "found here"
    with pytest.raises(ValueError, match="no identifier"):
        link("CVE-2020")
