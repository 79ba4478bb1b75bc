"""Broken files are read rightly or refused in one sentence that names them, within seconds.

More, and other, files than the suite tries: `python tests/test_fuzz_reading.py SEED FILES`, which
also counts what came of them.
"""

import contextlib
import io
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import fuzz
import numpy as np
import pytest
from ase import Atoms
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.data import load
from defectkit.structures.files import read_structure

PATIENCE = 5.0  # s of the processor, which others may keep busy
TABLE = (
    b"file,host,eform,spin,dopant,removed,converged,supercell,unrelaxed\n"
    b'one.xyz,MoS2,1.5,0.0,,S,yes,2x2x1,no\ntwo.vasp,MoS2,-0.25,1.0,,"S",no,221,yes\n'
)
KINDS = ["a.cif", "POSCAR", "a.xyz", "targets.csv", "a.db"]
FORMULA = re.compile(r"(?m)^\s*_chemical_formula_sum\s+'?([A-Z][A-Za-z0-9 ]*?)'?\s*$")
EXAMPLES = {"targets.csv": 200, "a.db": 300, "a.cif": 300}  # what a suite has time for


def whole(name: str, folder: Path) -> bytes:
    """The bytes of a file that is right, in a folder that has what belongs to it."""
    if name == "a.db":
        return fuzz.database(folder / name)
    if name != "targets.csv":
        return fuzz.structure(folder / name)
    (folder / "hosts").mkdir()
    fuzz.structure(folder / "one.xyz")
    fuzz.structure(folder / "two.vasp")
    fuzz.write_structure(fuzz.unit(), folder / "hosts" / "MoS2.cif")
    return TABLE


def read(name: str, folder: Path) -> list[Atoms]:
    """What the kit finds in the file, after a look at what it says about it."""
    if name == "a.db":
        records = load("demo", folder / name).records
    elif name == "targets.csv":
        records = load(folder).records
    else:
        return [read_structure(folder / name)]
    for record in records:
        assert np.isfinite([record.eform, record.spin]).all() | np.isnan(record.eform + record.spin)
        assert type(record.converged) is bool
        if record.unrelaxed is not None:
            assert record.unrelaxed.shape == record.atoms.positions.shape
            assert np.isfinite(record.unrelaxed).all()
    return [record.atoms for record in records]


def count_says(name: str, text: bytes) -> int | None:
    """How many atoms the file says that it holds, found without the kit."""
    lines = text.decode("utf-8-sig", errors="replace").replace("\r", "\n").split("\n")
    if name == "a.xyz":
        return int(lines[0])
    if name == "POSCAR":
        return sum(map(int, next(filter(is_counts, lines[5:7])).split("!")[0].split()))
    if name == "a.cif":
        said = FORMULA.findall("\n".join(lines))
        if said:
            return sum(int(n or 1) for n in re.findall(r"[A-Z][a-z]?(\d*)", said[-1]))
    return None


def is_counts(line: str) -> bool:
    words = line.split("!")[0].split()
    return bool(words) and all(word.isdecimal() for word in words)


def outcome(name: str, seed: int, right: bytes, folder: Path) -> str:
    """What came of one broken file: "read" or "refused"; AssertionError for anything else."""
    text = fuzz.broken(right, seed)
    (folder / name).write_bytes(text)
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = read(name, folder)
        result = "read"
    except DefectkitError as error:
        result, said = "refused", str(error)
        assert name in said, f"{said!r} does not name the file"
        assert "\n" not in said, f"{said!r} is more than a line"
        assert len(said) < 1000, f"{said!r} is long"
    assert time.process_time() - begin < PATIENCE
    if result == "read":
        for atoms in found:
            assert len(atoms)
            assert np.isfinite(atoms.positions).all()
            assert atoms.cell.volume > 1
        says = count_says(name, text)
        if says is not None:
            assert len(found[0]) % says == 0, f"{len(found[0])} atoms for {says}"
    return result


def tried(name: str) -> Callable[[int], str]:
    """A function from seeds to outcomes, and its folder as long as it lives."""
    place = TemporaryDirectory()
    folder = Path(place.name)
    right = whole(name, folder)
    (folder / name).write_bytes(right)
    assert read(name, folder)

    def one(seed: int, place=place) -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            return outcome(name, seed, right, folder)

    return one


@pytest.mark.parametrize("name", KINDS)
def test_a_broken_file_is_read_rightly_or_refused_in_a_sentence(name):
    one, counts = tried(name), Counter()

    @settings(
        max_examples=EXAMPLES.get(name, 500),
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32 - 1))
    def many(seed: int):
        counts[one(seed)] += 1

    many()
    print(f"\n{name}: " + ", ".join(f"{n} {result}" for result, n in sorted(counts.items())))
    assert counts["refused"] > 0
    assert counts["read"] > 0


def main(seed: int, files: int) -> None:
    """Try so many files of every kind, from that seed on, and print what came of them."""
    for name in KINDS:
        one, counts, slowest = tried(name), Counter(), 0.0
        for number in range(seed, seed + files):
            begin = time.process_time()
            try:
                counts[one(number)] += 1
            except Exception as error:
                counts[f"WRONG: {type(error).__name__}"] += 1
                print(f"{name}, seed {number}: {type(error).__name__}: {str(error)[:300]}")
            slowest = max(slowest, time.process_time() - begin)
        print(f"{name}: {dict(sorted(counts.items()))}, slowest {slowest:.2f} s", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
