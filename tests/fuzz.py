"""Whole input files, and ways in which files break: for the fuzz tests."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.db import connect

from defectkit.structures.files import write_structure
from defectkit.structures.hosts import HOSTS

NUMBERS = [
    b"0", b"-1", b"1e400", b"-1e308", b"nan", b"inf", b"1000000000", b"0x10", b"1,5", b"1_0",
    b"99999999999999999999", b"0.0000001", b"3", b"2", b"1/3", b"\xb2",
]  # fmt: skip
PIECES = [
    b"\0", b"\n", b"\n\n", b"\r", b"\t", b" ", b'"', b"'", b";", b",", b"_", b"#", b"!", b"\xff",
    b"loop_\n", b"data_x\n", b"?", b".", b"nan", b"Mo", b"../", b"\xef\xbb\xbf",
]  # fmt: skip


def unit() -> Atoms:
    return HOSTS["MoS2"].unit_cell()


def vacancy() -> Atoms:
    """MoS2, 2 x 2, without one S."""
    atoms = unit().repeat((2, 2, 1))
    del atoms[4]
    return atoms


def structure(path: Path) -> bytes:
    """The vacancy in the format that the name says."""
    return write_structure(vacancy(), path).read_bytes()


def database(path: Path) -> bytes:
    """Two rows in the schema of the demo database."""
    host = unit()
    described = {
        "family": "MoS2 (2H)", "symbols": list(host.symbols), "cell": host.cell.array.tolist(),
        "positions": host.positions.tolist(),
    }  # fmt: skip
    with connect(path, type="db", use_lock_file=False) as opened:
        opened.metadata = {"label_source": "made up", "hosts": {"MoS2": described}}
        for name in ("one", "two"):
            pairs = {"name": name, "host": "MoS2", "dopant": "X", "eform": 1.5, "removed": "S"}
            data = {"unrelaxed_positions": vacancy().positions.astype(np.float32)}
            opened.write(vacancy(), key_value_pairs=pairs, data=data)
    return path.read_bytes()


def broken(whole: bytes, seed: int) -> bytes:
    """One to three faults of `FAULTS` in a file's bytes, drawn from `seed`."""
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        whole = draw.choice(FAULTS)(whole, draw)
    return whole


def _cut(text: bytes, draw: random.Random) -> bytes:
    return text[: draw.randrange(len(text) + 1)]


def _flip(text: bytes, draw: random.Random) -> bytes:
    changed = bytearray(text)
    for _ in range(min(len(changed), draw.choice([1, 1, 4, 30]))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _insert(text: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(text) + 1)
    return text[:place] + draw.choice(PIECES) * draw.choice([1, 1, 2, 1000]) + text[place:]


def _drop(text: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(text) + 1)
    return text[:start] + text[start + draw.choice([1, 2, 10, 100, 1000]) :]


def _repeat(text: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(text) + 1)
    piece = text[start : start + draw.choice([1, 10, 100, 1000])]
    return text[:start] + piece + text[start:]


def _number(text: bytes, draw: random.Random) -> bytes:
    words = text.split(b" ")
    places = [k for k, word in enumerate(words) if any(48 <= byte < 58 for byte in word)]
    if places:
        words[draw.choice(places)] = draw.choice(NUMBERS)
    return b" ".join(words)


def _of_lines(change: Callable[[list, random.Random], None]) -> Callable:
    def fault(text: bytes, draw: random.Random) -> bytes:
        lines = text.split(b"\n")
        change(lines, draw)
        return b"\n".join(lines)

    return fault


def _lose_line(lines: list, draw: random.Random) -> None:
    del lines[draw.randrange(len(lines))]


def _double_line(lines: list, draw: random.Random) -> None:
    place = draw.randrange(len(lines))
    lines.insert(draw.randrange(len(lines) + 1), lines[place])


def _swap_lines(lines: list, draw: random.Random) -> None:
    one, other = (draw.randrange(len(lines)) for _ in range(2))
    lines[one], lines[other] = lines[other], lines[one]


FAULTS = [
    _cut, _flip, _insert, _drop, _repeat, _number,
    _of_lines(_lose_line), _of_lines(_double_line), _of_lines(_swap_lines),
]  # fmt: skip
