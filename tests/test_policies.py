import pytest

from rfc6455_server.policies import Coalesce, Policy, check_policy, coalesce


def test_a_key_function_is_called_once_for_each_broadcast() -> None:
    calls: list[object] = []

    def key(message: str | bytes) -> str | bytes:
        calls.append(message)
        return message[:1]

    resolved = coalesce(key).resolve("abc")
    assert resolved == Coalesce("a")
    assert resolved.resolve("xyz") is resolved
    assert calls == ["abc"]


def test_none_is_a_key() -> None:
    assert coalesce(None).resolve("abc") == Coalesce(None)
    assert coalesce(lambda message: None).resolve("abc") == Coalesce(None)


@pytest.mark.parametrize("policy", ["disconnect", "drop_oldest", "drop_newest", "volatile", coalesce("k")])
def test_valid_policies(policy: Policy) -> None:
    assert check_policy(policy) is policy


@pytest.mark.parametrize("policy", ["", "drop", None, 5])
def test_invalid_policies(policy: object) -> None:
    with pytest.raises(ValueError, match="not a policy"):
        check_policy(policy)  # type: ignore[arg-type]


def test_a_key_has_a_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        coalesce(["list"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        coalesce(lambda message: [message]).resolve("x")  # type: ignore[return-value]
