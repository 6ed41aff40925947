"""The seeds, and inputs that are made from them without Atheris."""

import random
from pathlib import Path

SEEDS = Path(__file__).parent / "seeds"


def seeds(target: str) -> list[Path]:
    """Returns the files of a target's seeds, in the order of their names."""
    return sorted((SEEDS / target).iterdir())


def changed(rng: random.Random, inputs: list[bytes]) -> bytes:
    """Returns an input with a few bytes changed, removed or repeated, or two of them joined."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[at : at + 1] = rng.randbytes(1)
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            case _:
                other = rng.choice(inputs)
                data[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data)
