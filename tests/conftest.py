import os

import execnet
import pytest
from hypothesis import HealthCheck, settings

from rfc6455 import masking
from tests import helpers
from tests.server_helpers import Certificate

# A busy machine must not fail a test, so neither running nor generating an example has a deadline. In CI, the
# same commit must always have the same result: examples are derived from the test alone, and nothing is kept
# between runs. Elsewhere, each run tries new examples, and repeats those that failed before (.hypothesis/).
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "CI", settings.get_profile("here"), derandomize=True, database=None, print_blob=True
)
settings.load_profile("CI" if os.environ.get("CI") == "true" else "here")


def pytest_sessionstart(session: pytest.Session) -> None:
    for plugin in session.config.pluginmanager.get_plugins():
        channel = getattr(plugin, "channel", None)
        if isinstance(channel, execnet.Channel):  # in a worker of pytest-xdist
            helpers.runner_lock = channel.gateway._receivelock


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["numpy", "standard library"])
def masking_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with each of the two ways to mask large payloads."""
    if request.param == "standard library":
        monkeypatch.setattr(masking, "_numpy", lambda: None)
    return str(request.param)
