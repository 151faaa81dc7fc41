"""Damages IR text and weight files at random: what reads them gives a sound result or an error, and always ends.

``python -m tests.fuzz.mutations FIRST LAST``: the damages of these seeds.
"""

from __future__ import annotations

import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import numpy as np

from tests.fuzz.generator import sample
from tgc.compiler import lower_module
from tgc.dtypes import DTYPES
from tgc.errors import ParseError, UserError, VerificationError
from tgc.ir.parser import parse_module
from tgc.ir.printer import print_module
from tgc.ir.verify import verify
from tgc.nn.weights import read_weights, write_weights
from tgc.ops import OPS

SECONDS = 20  # after which reading counts as never ending
TEXTS = 150
NUMBERS = (
    "0",
    "1",
    "-1",
    "2",
    "7",
    "4096",
    str(2**31),
    str(2**63 - 1),
    str(2**63),
    str(10**40),
    "1e400",
    "nan",
    "-0.0",
)
NOISE = ("{", "}", "(", ")", "[", "]", "%0", "%1", "%x", "@f", ",", ":", "=", "->", '"', "n", "n//0", "-n", "max(n, 1)")


@cache
def texts() -> tuple[tuple[str, ...], ...]:
    """Sound modules, as tokens. Most lack the types of results, so that changes of operands and attributes go on."""
    found = []
    for seed in range(TEXTS):
        text = print_module(sample(seed, length=5).module)
        if seed % 4:
            text = re.sub(r"^( +%.* = .*[)}]) : .*[^{]$", r"\1", text, flags=re.MULTILINE)
        found.append(tuple(re.findall(r"%?\w+|\s+|[^\w\s]", text)))
    return tuple(found)


def replacement(token: str, tokens: Sequence[str], chance: random.Random) -> str:
    """A token that might stand where ``token`` does."""
    if token.isdigit() or chance.random() < 0.05:
        return chance.choice(NUMBERS)
    if token.startswith("%"):
        return chance.choice([other for other in tokens if other.startswith("%")])
    if token in DTYPES:
        return chance.choice(list(DTYPES))
    if token in OPS:
        return chance.choice(list(OPS))
    return chance.choice([token, token, *NOISE])


def damaged_text(seed: int) -> str:
    """A module's text with one to four changes, or with a stretch of another's."""
    chance = random.Random(seed)
    tokens = list(chance.choice(texts()))
    words = [i for i, token in enumerate(tokens) if not token.isspace()]
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = min(chance.choice(words), len(tokens) - 1)
        other = chance.choice(texts())
        start = chance.randrange(len(other))
        match chance.randrange(12):
            case 0:
                del tokens[at : at + chance.randint(1, 3)]
            case 1:
                tokens.insert(at, chance.choice(NOISE))
            case 2:
                tokens[at : at + chance.randint(0, 12)] = other[start : start + chance.randint(1, 12)]
            case 3:
                to = chance.randrange(len(tokens))
                tokens[at], tokens[to] = tokens[to], tokens[at]
            case _:
                tokens[at] = replacement(tokens[at], tokens, chance)
        tokens = tokens or ["module"]
    return "".join(tokens)


@contextmanager
def ending() -> Iterator[None]:
    """Raises TimeoutError in what takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check_text(text: str) -> str:
    """What became of a text: which error, or that it is a module that its own text gives again and that compiles."""
    try:
        module = parse_module(text, OPS)
        verify(module, OPS)
    except (ParseError, VerificationError) as error:
        return type(error).__name__
    assert parse_module(print_module(module), OPS) == module
    try:
        lower_module(module)
    except UserError as error:
        return type(error).__name__
    return "sound"


def damaged_weights(seed: int) -> bytes:
    """A safetensors file with some bytes or a word of its header changed."""
    chance = random.Random(seed)
    arrays = {d.name: np.zeros((2, chance.randrange(3)), d.numpy) for d in chance.sample(list(DTYPES.values()), 3)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        write_weights(path, arrays)
        data = bytearray(path.read_bytes())
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randint(1, 9)]
            case 2:
                data[at:at] = chance.randbytes(chance.randint(1, 9))
            case _:
                numbers = list(re.finditer(rb"\d+", data[8:]))
                place = chance.choice(numbers) if numbers else re.match(rb"", b"")
                assert place is not None
                width = len(place[0])
                data[8 + place.start() : 8 + place.end()] = str(chance.randrange(10**width)).zfill(width).encode()
    return bytes(data)


def check_weights(data: bytes) -> str:
    """What became of a file: an error, or arrays of tgc's dtypes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights"
        path.write_bytes(data)
        try:
            found = read_weights(path)
        except ParseError:
            return "ParseError"
    assert all(array.dtype in {d.numpy for d in DTYPES.values()} for array in found.values())
    return "sound"


def main() -> None:
    first, last = map(int, sys.argv[1:])
    became = Counter[str]()
    for seed in range(first, last):
        for what, made, check in (("text", damaged_text, check_text), ("weights", damaged_weights, check_weights)):
            try:
                with ending():
                    became[f"{what}: {check(made(seed))}"] += 1  # type: ignore[operator, arg-type]
            except Exception as error:  # noqa: BLE001
                became[f"{what}: FAILED"] += 1
                print(f"=== seed {seed}, {what}: {type(error).__name__}: {str(error)[:300]}", flush=True)
        if seed % 1000 == 999:
            print(f"... up to seed {seed}: {dict(became)}", flush=True)
    print(f"{last - first} of each: {dict(became)}")


if __name__ == "__main__":
    main()
