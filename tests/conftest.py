import pytest

from rfc6455 import masking
from tests.server_helpers import Certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["numpy", "standard library"])
def masking_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with each of the two ways to mask large payloads."""
    if request.param == "standard library":
        monkeypatch.setattr(masking, "_numpy", lambda: None)
    return str(request.param)
