"""What every mutation of tests/fuzz.py has: odd numbers and texts, and files with some bytes changed."""

import random
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
NUMBERS = (0, 1, -1, 2, 7, 255, -128, 2**31 - 1, -(2**31), 2**32, 2**62, -(2**63), 2**63 - 1)
TEXTS = (
    "",
    "x",
    "\n",
    "../../etc",
    "<script>alert(1)</script>",
    "名",
    "a" * 5000,
    "\ud7ff",
    "${oc.env:HOME}",
    "%s{}",
    "/",
    "NaN",
)


def mutated_bytes(contents: bytes, rng: random.Random) -> bytes:
    """Return a file with some bytes changed, removed, repeated or cut off."""
    found = bytearray(contents)
    for _ in range(rng.choice((1, 2, 8))):
        near_the_front = rng.random() < 0.5
        place = rng.randrange(min(len(found), 400) if near_the_front else len(found)) if found else 0
        match rng.randrange(6):
            case 0 | 1:
                found[place : place + 1] = bytes([rng.randrange(256)])
            case 2:
                del found[place : place + rng.choice((1, 2, 16, 400))]
            case 3:
                found[place:place] = found[place : place + rng.choice((1, 16, 400))]
            case 4:
                found[place : place + 4] = rng.choice((b"\xff\xff\xff\x7f", b"\x00" * 4, b"\x80" * 4))
            case 5 if rng.random() < 0.3:
                del found[place:]
    return bytes(found)
