"""Builds a small database with Imp2d's schema and the traps of the real file, one row each."""

import json
from functools import cache
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.db import connect
from ase.formula import Formula

from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS

# uid of the row -> the strict rules that have to hit it, and no others.
TRAPS = {
    "MoS2_Co_ads0": ("not_converged",),
    "MoS2_Fe_ads0": ("not_settled",),
    "MoS2_Ni_int0": ("rebuilt_layer",),
    "MoS2_Ti_int0": ("missing_energy",),
    "MoS2_Zr_int0": ("missing_energy",),
    "Te2W_Li_int0": ("energy_rise",),
    "MoS2_V_ads0": ("missing_eform",),
    "MoS2_Re_ads0": ("missing_eform",),
    "MoS2_Cs_ads0": ("eform_outlier",),
    "MoS2_Xe_ads0": ("detached_atom",),
    "CO2Ti2_Li_ads0": ("wrong_host_reference", "eform_outlier"),
    "CO2Ti2_Na_ads0": ("wrong_host_reference", "eform_outlier"),
    "CO2Ti2_K_ads0": ("wrong_host_reference", "eform_outlier"),
}
GOOD = (
    "MoS2_Li_ads0",
    "MoS2_Na_ads0",
    "MoS2_Be_int3",
    "MoS2_Be_int4",
    "MoTe2_Te_ads1",
    "MoTe2_Cu_ads0",
    "Se2Zr_Cr_int2",
    "Se2Zr_Ag_ads0",
)
TWINS = ("MoS2_Be_int3", "MoS2_Be_int4")
MU = -3.0  # eV, one chemical potential for all


def write_trap_database(path: Path) -> Path:
    """Write `GOOD` and `TRAPS` to an ASE database at `path`."""
    database = connect(path, type="db", use_lock_file=False)
    with database:
        for name in (*GOOD, *TRAPS):
            atoms, pairs = _row(name)
            database.write(atoms, key_value_pairs=pairs)
    return path


def write_real_rows(path: Path, rows_json: Path) -> Path:
    """Write the genuine Imp2d rows of a JSON file to an ASE database as the official file has."""
    rows = json.loads(rows_json.read_text(encoding="utf-8"))
    with connect(path, type="db", use_lock_file=False) as database:
        for row in rows.values():
            atoms = Atoms(row["Z"], positions=row["positions"], cell=row["cell"], pbc=True)
            database.write(atoms, key_value_pairs=row["kvp"])
    return path


def _row(name: str) -> tuple[Atoms, dict]:
    formula, dopant, site = name.split("_")
    host = {Formula(h).format("hill"): h for h in HOSTS}[formula]
    atoms = _structure(host, dopant, site)
    number = sum(map(ord, name))
    eform = 1.0 + 0.01 * (number % 300)
    hostenergy = -170.0
    pairs = {
        "name": name,
        "host": host,
        "dopant": dopant,
        "site": site,
        "defecttype": "interstitial" if "int" in site else "adsorbate",
        "depth": 0.5 if "int" in site else 2.1,
        "conv1": -0.004,
        "conv2": 0.002,
        "hostenergy": hostenergy,
        "dopant_chemical_potential": MU,
        "extension_factor": 1.0 + 0.001 * (number % 50),
        "host_spacegroup": 187 if host.startswith(("Mo", "W")) else 164,
        "supercell": 331,
        "spin": 0,
        "converged": True,
        "eform": eform,
    }
    pairs |= {
        "MoS2_Co_ads0": {"conv1": 0.2, "converged": False},
        "MoS2_Fe_ads0": {"conv2": -0.0689},  # converged stays True: it looks at conv1 only
        "MoS2_Ni_int0": {"extension_factor": 2.5},
        "MoS2_Cs_ads0": {"eform": 153.0},
        "MoS2_Na_ads0": {"spin": -2},
        "MoS2_Be_int4": {"eform": _eform("MoS2_Be_int3") + 0.001},
        "MoTe2_Te_ads1": {"defecttype": "interstitial", "depth": 0.9},  # sank in from ads1
        "CO2Ti2_Li_ads0": {"eform": -176.0},
        "CO2Ti2_Na_ads0": {"eform": -165.0},
        "CO2Ti2_K_ads0": {"eform": -156.0},
    }.get(name, {})
    pairs["en2"] = hostenergy + MU + pairs["eform"]
    pairs["en1"] = pairs["en2"] + 0.1
    if name == "MoS2_Ti_int0":
        pairs["en2"] = 0.0
    if name == "MoS2_Zr_int0":
        pairs["en2"] += 0.5
    if name == "Te2W_Li_int0":  # as in the real row of that name: the first stage is plausible
        pairs |= {"en1": pairs["en2"] - 10.4, "spin": 5}
    if name == "Se2Zr_Ag_ads0":  # as much as stages of good rows differ, and not more
        pairs["en1"] = pairs["en2"] - 0.4
    if name == "MoS2_V_ads0":
        del pairs["eform"]
    if name == "MoS2_Re_ads0":
        pairs["eform"] = float("nan")
    return atoms, pairs


def _eform(name: str) -> float:
    return 1.0 + 0.01 * (sum(map(ord, name)) % 300)


@cache
def _sites(host: str) -> dict:
    return {site.name: site for site in find_sites(HOSTS[host].unit_cell())}


def _structure(host: str, dopant: str, site: str) -> Atoms:
    """A slightly rattled defect in a slab that calls itself periodic along z, as Imp2d does."""
    sunk = (host, dopant) == ("MoTe2", "Te")
    kind = "int0" if "int" in site or sunk else "ads0"
    unit = HOSTS[host].unit_cell()
    atoms = make_defect(unit, (3, 3, 1), _sites(host)[kind], dopant).atoms
    if sunk:  # in a hollow, just under the upper chalcogens
        atoms.positions[-1, 2] = atoms.positions[:-1, 2].max() - 0.1
    if dopant == "Xe":
        atoms.positions[-1, 2] += 3.0
    seed = TWINS[0] if f"{host}_{dopant}_{site}" in TWINS else f"{host}_{dopant}_{site}"
    rng = np.random.default_rng(sum(map(ord, seed)))
    atoms.positions[:-1] += rng.normal(0.0, 0.03, (len(atoms) - 1, 3))
    if f"{host}_{dopant}_{site}" == TWINS[1]:  # the same structure, elsewhere in the crystal
        atoms.positions += unit.cell[0] + rng.normal(0.0, 3e-4, (len(atoms), 3))
        atoms.wrap()
    # The dopant is at no fixed place among the atoms.
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.pbc = True
    return atoms
