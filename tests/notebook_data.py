"""Data sets of a reader's own, for the notebooks: folders of structures with made-up labels."""

from pathlib import Path

import numpy as np
import pandas as pd
from ase.io import write

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS

DOPANTS = ("O", "Te", "Cl", "N", "P", "V", "Nb", "Cr", "Re")


def write_folder(folder: Path, names: dict[str, str] | None = None) -> Path:
    """Substitutions and a few vacancies in two hosts, 42 rows, with a CSV file of their labels.

    The labels are made up, and so the folder should be called. `names` maps the hosts' formulas
    to what the files call them.
    """
    (folder / "hosts").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for number, formula in enumerate(("MoS2", "WSe2")):
        host = (names or {}).get(formula, formula)
        unit = HOSTS[formula].unit_cell()
        write(folder / "hosts" / f"{host}.vasp", unit, sort=True)
        for site in find_sites(unit):
            for dopant in {"substitution": DOPANTS, "vacancy": ("",)}.get(site.kind, ()):
                atoms = make_defect(unit, (3, 3, 1), site, dopant or "X").atoms
                atoms.rattle(0.02, rng=rng)
                file = f"{host}-{site.name}-{dopant or 'none'}.vasp"
                write(folder / file, atoms, sort=True)
                size = len(dopant) + 0.3 * len(rows) % 4
                rows.append(
                    {
                        "file": file,
                        "host": host,
                        "dopant": dopant,
                        "eform": round(number + size + rng.normal(0, 0.3), 3),
                        "spin": round(float(rng.integers(3)), 1),
                    }
                )
    pd.DataFrame(rows).to_csv(folder / "targets.csv", index=False)
    return folder


def without_energies(folder: Path) -> Path:
    """Empties the column of formation energies."""
    return _rewrite(folder, lambda table: table.assign(eform=np.nan))


def first_only(folder: Path) -> Path:
    """Leaves one row."""
    return _rewrite(folder, lambda table: table.head(1))


def hostless(folder: Path) -> Path:
    """Takes the pristine hosts away."""
    for file in (folder / "hosts").glob("*"):
        file.unlink()
    return folder


def bare(folder: Path) -> Path:
    """Leaves nothing but files and energies, and no pristine hosts."""
    return hostless(_rewrite(folder, lambda table: table[["file", "eform"]]))


def write_some_of_2dmd(source: Path, folder: Path, every: int) -> Path:
    """A 2DMD folder with one in `every` rows of `source`."""
    folder.mkdir(parents=True)
    for name, options in (("data", {"index_col": 0}), ("targets", {})):
        table = pd.read_csv(source / f"{name}.csv.gz", **options)
        table.iloc[::every].to_csv(folder / f"{name}.csv", index=bool(options))
    for file in (source / "descriptors.csv", *source.glob("*.cif")):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _rewrite(folder: Path, change) -> Path:
    path = folder / "targets.csv"
    change(pd.read_csv(path, keep_default_na=False)).to_csv(path, index=False)
    return folder
