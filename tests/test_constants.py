import pytest

from rfc6455 import CloseCode, Opcode, constants


def test_opcodes_are_those_of_the_rfc() -> None:
    assert {opcode.name: int(opcode) for opcode in Opcode} == {
        "CONTINUATION": 0,
        "TEXT": 1,
        "BINARY": 2,
        "CLOSE": 8,
        "PING": 9,
        "PONG": 10,
    }


@pytest.mark.parametrize("opcode", list(Opcode))
def test_control_opcodes_have_the_top_bit(opcode: Opcode) -> None:
    assert opcode.is_control is bool(opcode & 0x8)


def test_close_codes_are_those_of_the_registry() -> None:
    assert [int(code) for code in CloseCode] == [*range(1000, 1004), *range(1005, 1016)]


def test_every_default_limit_is_finite() -> None:
    limits = {name: value for name, value in vars(constants).items() if name.startswith("DEFAULT_")}
    assert limits
    assert all(0 < value < 1 << 24 for value in limits.values())
