import inspect
import math
from dataclasses import dataclass, fields

import pytest

from rfc6455 import Connection, ConnectionOptions
from rfc6455_server.command import cli
from rfc6455_server.limits import Addresses, LimitOptions, Limits, ReceiveRates, TokenBucket
from rfc6455_server.socketio import EngineOptions, PacketOptions, SocketIOOptions
from tests import limits_page
from tests.limits_page import NO_LIMIT, Option, options, options_of


def test_the_page_of_defaults_is_current() -> None:
    assert limits_page.PAGE.read_text() == limits_page.page(), "python -m tests.limits_page --write"


def test_the_page_says_nothing_twice_about_the_options_of_one_owner() -> None:
    rows = [row.split(" | ") for row in limits_page.page().splitlines() if row.startswith("| `")]
    said = [(row[0], row[-1]) for row in rows if not row[-1].startswith("See `")]
    assert len(said) == len(set(said))
    named = {(row[0], row[1]) for row in rows}
    for row in rows:
        if row[-1].startswith("See `"):
            assert (row[0], row[-1].removeprefix("See ").removesuffix(". |")) in named


def test_the_page_has_every_option_of_the_command_line() -> None:
    of_the_command = {"key", "log-format", "log-level", "no-pages", "max-per-address"}
    assert {*limits_page.COMMAND.values(), *of_the_command} == {option.name for option in cli._ALL_OPTIONS}
    assert limits_page.COMMAND.keys() <= {(option.owner, option.name) for option in options()}


def flaws(option: Option) -> list[str]:
    """What is wrong with an option: it is not documented, or its default is no bound."""
    found = [] if len(option.text.split()) > 2 else ["no text"]
    if option.is_number and option.default is None:
        found += [] if option.name in NO_LIMIT else ["no limit"]
    elif option.is_number and not 0 <= option.default < 1 << 40:
        found += ["not finite"]
    # 0 is no limit either; a port may be 0, which means any.
    return found + ["zero"] * (option.default == 0 and option.is_number and option.name != "port")


@pytest.mark.parametrize("option", options(), ids=lambda option: f"{option.owner}.{option.name}")
def test_every_option_is_documented_and_has_a_finite_default(option: Option) -> None:
    assert flaws(option) == []


def test_the_walk_finds_every_option_and_every_flaw() -> None:
    @dataclass(kw_only=True)
    class Wrong:
        """A class whose ``described`` is five."""

        described: int = 5
        silent: int = 5
        endless: float = math.inf
        """This one has no end."""
        unlimited: int | None = None
        """This one is not limited."""
        zero: float = 0.0
        """This one is zero."""
        flag: bool = False
        """This one is no number."""

    found = {option.name: flaws(option) for option in options_of("Wrong", Wrong, Wrong)}
    assert found == {
        "described": [],
        "silent": ["no text"],
        "endless": ["not finite"],
        "unlimited": ["no limit"],
        "zero": ["zero"],
        "flag": [],
    }
    walked = {option.name for option in options()}
    for owner in (Limits, EngineOptions, PacketOptions):
        assert {field.name for field in fields(owner)} - {"path"} <= walked
    assert {name for name in NO_LIMIT if name not in walked} == set()


def test_the_options_that_are_passed_on_are_those_of_their_owners() -> None:
    assert set(LimitOptions.__annotations__) == set(Limits.__dataclass_fields__)
    passed_on = {*EngineOptions.__dataclass_fields__, *PacketOptions.__dataclass_fields__} - {"path"}
    assert SocketIOOptions.__optional_keys__ == passed_on
    # The handshake itself decides about the other parameters.
    decided = {"self", "role", "subprotocol", "deflate", "trailing_data"}
    assert (
        set(ConnectionOptions.__annotations__)
        == set(inspect.signature(Connection.__init__).parameters) - decided
    )


@pytest.mark.parametrize("name", sorted(Limits.__dataclass_fields__))
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_limit_is_a_number_above_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})  # type: ignore[arg-type]


TIMES = [name for name in LimitOptions.__annotations__ if name.endswith(("_timeout", "_interval"))]


@pytest.mark.parametrize("name", TIMES)
def test_a_time_in_milliseconds_is_refused(name: str) -> None:
    assert getattr(Limits(**{name: 3600}), name) == 3600
    with pytest.raises(ValueError, match=f"{name} must be above 0 and at most 3600 seconds, not 20000"):
        Limits(**{name: 20_000})


def test_a_bucket_allows_a_burst_of_two_seconds_and_then_the_rate() -> None:
    bucket = TokenBucket(10, now=0)
    assert [bucket.take(1, 0) for _ in range(21)] == [True] * 20 + [False]
    assert [bucket.take(1, 0.35) for _ in range(4)] == [True] * 3 + [False]
    assert [bucket.take(1, 100) for _ in range(21)] == [True] * 20 + [False]


def test_a_full_bucket_allows_more_than_it_holds() -> None:
    bucket = TokenBucket(10, now=0)
    assert bucket.take(1000, 0)
    assert not bucket.take(1, 1)
    assert not bucket.take(1000, 99)
    assert bucket.take(1000, 150)


def test_a_low_rate_allows_one_at_a_time() -> None:
    bucket = TokenBucket(0.1, now=0)
    assert bucket.take(1, 0)
    assert not bucket.take(1, 9)
    assert bucket.take(1, 10.5)


def test_messages_and_bytes_are_limited_separately() -> None:
    both = ReceiveRates(Limits(message_rate=2, byte_rate=100), 0)
    assert both.take(1, 150, 0)
    assert not both.take(1, 100, 0)
    assert both.take(2, 50, 0) is True
    assert not both.take(1, 0, 0)
    assert ReceiveRates(Limits(byte_rate=10), 0).take(1000, 1, 0)


def test_connections_of_an_address_are_counted() -> None:
    addresses = Addresses(Limits(max_connections_per_address=2))
    assert [addresses.admit("a", 0) for _ in range(3)] == [True, True, False]
    assert addresses.admit("b", 0)
    addresses.release("a")
    assert addresses.admit("a", 0)
    for address in ("a", "a", "b"):
        addresses.release(address)
    assert len(addresses) == 0


def test_the_rate_of_an_address_outlasts_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rfc6455_server.limits._MAX_ADDRESSES", 2)
    addresses = Addresses(Limits(connection_rate=1))
    for expected in (True, True, False):
        assert addresses.admit("a", 0) is expected
        if expected:
            addresses.release("a")
    assert addresses.admit("b", 0)
    assert addresses.admit("c", 0)  # evicts the oldest address
    assert addresses.admit("a", 0)
