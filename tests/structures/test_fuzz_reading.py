"""Broken structures, tables and databases are read rightly or refused in one sentence.

More, and other, files than the suite tries:
`PYTHONPATH=tests python tests/structures/test_fuzz_reading.py SEED FILES`.
"""

import re
from functools import partial
from pathlib import Path

import fuzz
import numpy as np
import pytest
from ase import Atoms

from defectkit.data import load
from defectkit.structures.files import read_structure

TABLE = (
    b"file,host,eform,spin,dopant,removed,converged,supercell,unrelaxed\n"
    b'one.xyz,MoS2,1.5,0.0,,S,yes,2x2x1,no\ntwo.vasp,MoS2,-0.25,1.0,,"S",no,221,yes\n'
)
FORMULA = re.compile(r"(?m)^\s*_chemical_formula_sum\s+'?([A-Z][A-Za-z0-9 ]*?)'?\s*$")


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


def check(name: str, folder: Path, text: bytes) -> None:
    found = read(name, folder)
    assert found
    for atoms in found:
        assert len(atoms)
        assert np.isfinite(atoms.positions).all()
        assert atoms.cell.volume > 1
    says = count_says(name, text)
    if says is not None:
        assert len(found[0]) % says == 0, f"{len(found[0])} atoms for {says}"


EXAMPLES = {"a.cif": 300, "POSCAR": 500, "a.xyz": 500, "targets.csv": 200, "a.db": 300}
CASES = {
    name: fuzz.Case(name, partial(whole, name), partial(check, name), fuzz.FAULTS, examples)
    for name, examples in EXAMPLES.items()
}


@pytest.mark.parametrize("kind", CASES)
def test_a_broken_file_is_read_rightly_or_refused_in_a_sentence(kind):
    fuzz.try_many(kind, CASES[kind])


if __name__ == "__main__":
    fuzz.main(CASES)
