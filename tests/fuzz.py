"""Whole input files, ways in which files break, and what must come of them: for the fuzz tests.

The suite tries nearly the same files each time (hypothesis takes some numbers from the modules
that happen to be loaded). Others: `python tests/structures/test_fuzz_reading.py SEED FILES
[KIND...]` and likewise `test_fuzz_settings.py`, which also tell the seed of every fault.
"""

import contextlib
import io
import os
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase import Atoms
from ase.db import connect
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import defectkit
from defectkit import DefectkitError
from defectkit.bench import peak_mb
from defectkit.structures.files import write_structure
from defectkit.structures.hosts import HOSTS

PATIENCE = 10.0  # s of one processor for a file, however busy the machine is
MEMORY = 500.0  # MB that reading broken files may add to the largest size of the process
LONGEST = 1000  # characters of a sentence
OWN = str(Path(defectkit.__file__).parent)

NUMBERS = (
    b"0 -1 1e400 -1e308 nan inf 1000000000 0x10 1,5 1_0 99999999999999999999 0.0000001 3 2 1/3 \xb2"
).split()
PIECES = [
    b"\0",
    b"\n",
    b"\n\n",
    b"\r",
    b"\t",
    b" ",
    b'"',
    b"'",
    b";",
    b",",
    b"_",
    b"#",
    b"!",
    b"\xff",
    b"loop_\n",
    b"data_x\n",
    b"?",
    b".",
    b"nan",
    b"Mo",
    b"../",
    b"\xef\xbb\xbf",
]


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
        "family": "MoS2 (2H)",
        "symbols": list(host.symbols),
        "cell": host.cell.array.tolist(),
        "positions": host.positions.tolist(),
    }
    with connect(path, type="db", use_lock_file=False) as opened:
        opened.metadata = {"label_source": "made up", "hosts": {"MoS2": described}}
        for name in ("one", "two"):
            pairs = {"name": name, "host": "MoS2", "dopant": "X", "eform": 1.5, "removed": "S"}
            data = {"unrelaxed_positions": vacancy().positions.astype(np.float32)}
            opened.write(vacancy(), key_value_pairs=pairs, data=data)
    return path.read_bytes()


Fault = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Attributes:
        name: of the file.
        whole: makes what belongs to the file in a folder, and returns its right bytes.
        read: reads the file of these bytes in the folder with the kit and asserts that the
            answer is right; it may return another word for it than "read".
        faults: ways in which it breaks.
        examples: that a suite has time for.
    """

    name: str
    whole: Callable[[Path], bytes]
    read: Callable[[Path, bytes], str | None]
    faults: Sequence[Fault]
    examples: int = 500

    @contextlib.contextmanager
    def opened(self) -> Iterator[Callable[[int], str]]:
        """A function from seeds to what came of one broken file."""
        with TemporaryDirectory() as place:
            folder = Path(place)
            right = self.whole(folder)
            (folder / self.name).write_bytes(right)
            self.read(folder, right)
            yield lambda seed: self._outcome(folder, broken(right, seed, self.faults))

    def outcome_of(self, text: bytes) -> str:
        """What comes of a file with these bytes."""
        with TemporaryDirectory() as place:
            self.whole(Path(place))
            return self._outcome(Path(place), text)

    def _outcome(self, folder: Path, text: bytes) -> str:
        (folder / self.name).write_bytes(text)
        begin = time.process_time()
        quiet = contextlib.redirect_stdout(io.StringIO())
        with quiet, warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                result = self.read(folder, text) or "read"
            except DefectkitError as error:
                result = "refused"
                check_sentence(str(error), self.name)
        assert time.process_time() - begin < PATIENCE, "it takes long"
        ours = [f"{w.filename}, line {w.lineno}: {w.message}" for w in seen]
        assert not [text for text in ours if text.startswith(OWN)], ours
        return result


def check_sentence(said: str, name: str = "") -> None:
    """Whether an error is one line, of a length that can be read, and names the file."""
    assert not {"\n", "\r"} & set(said), f"{said!r} is more than a line"
    assert len(said) < LONGEST, f"{said[:LONGEST]!r} is long"
    assert name in said, f"{said!r} does not name the file"


def try_many(kind: str, case: Case) -> None:
    """As many broken files of a kind as the suite has time for."""
    counts = Counter()
    before = forget_peak()
    with case.opened() as one:

        @settings(
            max_examples=case.examples,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(0, 2**32 - 1))
        def many(seed: int):
            counts[one(seed)] += 1

        many()
    print(f"\n{kind}: " + ", ".join(f"{n} {word}" for word, n in sorted(counts.items())))
    assert counts["refused"] > 0
    assert counts["read"] > 0
    assert peak_mb() - before < MEMORY


def try_more(cases: dict[str, Case], seed: int, files: int, *names: str) -> None:
    """So many files of every kind, or of those named, from that seed on, and what came of them."""
    for kind in names or cases:
        case, counts, slowest, before = cases[kind], Counter(), 0.0, forget_peak()
        with case.opened() as one:
            for number in range(seed, seed + files):
                begin = time.process_time()
                try:
                    counts[one(number)] += 1
                except Exception as error:
                    counts[f"WRONG: {type(error).__name__}"] += 1
                    print(f"{kind}, {number}: {type(error).__name__}: {str(error)[:300]}")
                slowest = max(slowest, time.process_time() - begin)
        print(
            f"{kind}: {dict(sorted(counts.items()))}, slowest {slowest:.2f} s, "
            f"{peak_mb() - before:.0f} MB more",
            flush=True,
        )


def main(cases: dict[str, Case]) -> None:
    """For the command line: SEED FILES [KIND...]."""
    seed, files, *names = sys.argv[1:]
    try_more(cases, int(seed), int(files), *names)


def forget_peak() -> float:
    """MB that the process has in memory; from here on its largest size counts anew (Linux)."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{os.getpid()}/clear_refs").write_text("5")
    return peak_mb()


def broken(whole: bytes, seed: int, faults: Sequence[Fault] = ()) -> bytes:
    """One to three of the faults in a file's bytes, drawn from `seed`."""
    draw = random.Random(seed)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        whole = draw.choice(faults or FAULTS)(whole, draw)
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


def _of_lines(change: Callable[[list, random.Random], None]) -> Fault:
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
    _cut,
    _flip,
    _insert,
    _drop,
    _repeat,
    _number,
    _of_lines(_lose_line),
    _of_lines(_double_line),
    _of_lines(_swap_lines),
]
