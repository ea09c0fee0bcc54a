"""Prepares mutated pictures, one after the other, and prints the outcomes as JSON.

    python tests/fuzz_pictures.py SEED ROUNDS

A round mutates each format that vlmbatch reads and each of the samples once. Memory for decoding is limited
as in a run. An error that is not an ImageError ends the program with a traceback and the number of the round.
"""

import json
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pictures import EVERY_FORMAT, sent

from vlmbatch.config.groups import ImageOptions
from vlmbatch.errors import ImageError
from vlmbatch.imaging.formats import IMAGE_EXTENSIONS
from vlmbatch.imaging.memory import DecodeMemory
from vlmbatch.imaging.prepare import prepare

SAMPLES = Path(__file__).parent.parent / "samples"
BUDGET, MACHINE = 100_000_000, 250_000_000
"""Bytes for all decoding, and bytes of the machine, of which one picture gets at most four fifths."""
EVIL = (0, 1, 0x7F, 0x80, 0xFF)


def truncate(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """Cut the data at a random place."""
    return data[: chance.randrange(len(data))]


def flip(data: bytes, _other: bytes, chance: random.Random) -> bytes:
    """Change 1 to 20 bytes, half of them near the start, where the structures are."""
    broken = bytearray(data)
    for _ in range(chance.choice((1, 3, 20))):
        at = chance.randrange(min(200, len(data)) if chance.random() < 0.5 else len(data))
        broken[at] = chance.choice((*EVIL, chance.randrange(256)))
    return bytes(broken)


def splice(data: bytes, other: bytes, chance: random.Random) -> bytes:
    """Insert a piece of another picture or of this one, or replace a piece with it."""
    source = other if chance.random() < 0.5 else data
    start, at = chance.randrange(len(source)), chance.randrange(len(data))
    piece = source[start : start + chance.choice((4, 40, 400, len(source)))]
    return data[:at] + piece + data[at + chance.choice((0, len(piece))) :]


MUTATIONS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (truncate, flip, splice)


def peak() -> int:
    """The peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])


def main(seed: int, rounds: int) -> None:
    """Mutate and prepare all pictures, and print the outcomes."""
    pictures = [make() for make in EVERY_FORMAT.values()]
    pictures += [path.read_bytes() for path in sorted(SAMPLES.iterdir()) if path.suffix in IMAGE_EXTENSIONS]
    memory = DecodeMemory(BUDGET, MACHINE)
    options = ImageOptions(max_size=256)
    before, outcomes = peak(), Counter[str]()

    def outcome(data: bytes) -> str:
        try:
            picture = prepare(data, options, memory.room)
        except ImageError as error:
            message, kind = str(error), error.kind
        else:
            sent(picture)
            return "prepared"
        return kind if message and message.isprintable() else f"unfit to print: {message!r}"

    for number in range(rounds):
        chance = random.Random(seed * 1_000_000 + number)
        for data in pictures:
            mutant = chance.choice(MUTATIONS)(data, chance.choice(pictures), chance)
            try:
                outcomes[outcome(mutant)] += 1
            except Exception as error:
                error.add_note(f"round {number} of seed {seed}")
                raise
    print(json.dumps({"outcomes": outcomes, "grew": peak() - before}))  # noqa: T201  # read by the test


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
