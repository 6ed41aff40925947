import subprocess
import sys

import pytest

from rfc6455.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["explain", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_masked_text_frame_and_the_frame_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "81 85 37fa213d", "7f9f4d5158", "8900")
    assert status == 0
    assert out.splitlines() == [
        "81  FIN=1 RSV1=0 opcode=0x1 (text)",
        "85  MASK=1 (from a client), payload of 5 bytes",
        "37 fa 21 3d  masking key",
        "7f 9f 4d 51 58  payload: 'Hello'",
        "89  FIN=1 RSV1=0 opcode=0x9 (ping)",
        "00  MASK=0 (from a server), payload of 0 bytes",
    ]


def test_a_close(capsys: pytest.CaptureFixture[str]) -> None:
    assert "close code 1000, reason 'bye'" in run(capsys, "880503e8627965")[1]


def test_a_compressed_frame(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "c107f248cdc9c90700")
    assert status == 0
    assert "RSV1=1" in out
    assert "compressed: f2 48 cd c9 c9 07 00" in out


def test_long_lengths_and_payloads(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "827e0080" + "41" * 128)[1]
    assert "7e 00 80" not in out.splitlines()[0]
    assert "00 7e" not in out
    assert "payload of 128 bytes" in out
    assert "…" in out


@pytest.mark.parametrize(
    ("data", "said"),
    [("81", "incomplete header"), ("8105", "5 more to come"), ("81054865", "3 more to come")],
)
def test_incomplete_frames(capsys: pytest.CaptureFixture[str], data: str, said: str) -> None:
    status, out, _ = run(capsys, data)
    assert status == 0
    assert said in out


@pytest.mark.parametrize(
    ("data", "slug"),
    [("83", "bad-opcode"), ("827e0001", "bad-length"), ("880103", "bad-close-payload")],
)
def test_a_violation_is_status_1(capsys: pytest.CaptureFixture[str], data: str, slug: str) -> None:
    status, out, _ = run(capsys, "8100", data)
    assert status == 1
    assert out.startswith("81  FIN=1")
    assert f"(close code 1002, {slug})" in out.splitlines()[-1]


def test_bad_hexadecimal_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "8x") == (2, "", "python -m rfc6455: the bytes are not hexadecimal\n")


@pytest.mark.parametrize("arguments", [[], ["explain"], ["other"]])
def test_bad_arguments_are_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "rfc6455", "explain", "8a00"], capture_output=True, text=True, check=True
    )
    assert "(pong)" in done.stdout
