"""What the demo database can hold: its hosts, and every row that can be computed, in one order.

The order is the same on every processor: what is drawn is the hash of a name, shares are whole
numbers, and no sum of floats, whose last digit hangs on the vector unit, decides anything.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from math import lcm

from ase import Atoms

from defectkit.structures.defects import DefectSite, named_sites
from defectkit.structures.hosts import HOSTS

DOPANTS = (
    "Ag Al As Au B Ba Be Bi Br C Ca Cd Cl Co Cr Cs Cu F Fe Ga Ge H Hf Hg I In Ir K Li Lu Mg Mn Mo "
    "N Na Nb Ni O Os P Pb Pd Pt Rb Re Rh Ru S Sb Sc Se Si Sn Sr Ta Tc Te Ti Tl V W Xe Y Zn Zr"
).split()
NO_DOPANT = "X"  # ASE's symbol for "no atom"
SHARES = {  # per cent of the rows
    "adsorbate": 28,
    "interstitial": 25,
    "substitution": 23,
    "complex": 14,
    "vacancy": 10,
}
STRAINED_SHARE = 10  # per cent of the rows
STRAINS = tuple(k / 1000 for k in range(-20, 21) if k)
MAX_STRAIN = STRAINS[-1]
STRAINED_VACANCIES = 6  # strained copies of each vacancy: it has no dopant to vary


@dataclass(frozen=True)
class HostReference:
    """A host relaxed by CHGNet: unit cell (Å), repetition of it, energy per unit cell (eV)."""

    unit: Atoms
    repeat: tuple[int, int, int]
    energy: float
    spacegroup: int

    def strained(self, strain: float) -> Atoms:
        """The unit cell stretched by `strain` along both in-plane vectors."""
        unit = self.unit.copy()
        cell = unit.cell.array
        cell[:2] *= 1 + strain
        unit.set_cell(cell, scale_atoms=True)
        return unit


def read_hosts(metadata: dict) -> dict[str, HostReference]:
    """The relaxed hosts stored with a demo database, by name."""
    return {
        name: HostReference(
            Atoms(h["symbols"], positions=h["positions"], cell=h["cell"], pbc=(1, 1, 0)),
            tuple(h["repeat"]),
            h["energy"],
            h["spacegroup"],
        )
        for name, h in metadata["hosts"].items()
    }


@dataclass(frozen=True)
class Candidate:
    """One row to compute: a host, a site in it, a dopant ("X" for none), a biaxial strain."""

    host: str
    site: DefectSite
    dopant: str
    strain: float

    @property
    def name(self) -> str:
        """Imp2d's form `host_dopant_site`, host in Hill order; strain in per cent."""
        strain = f"_{100 * self.strain:+.1f}%" if self.strain else ""
        return f"{_formula(self.host)}_{self.dopant}_{self.site.name}{strain}"


@cache
def _formula(host: str) -> str:
    return HOSTS[host].unit_cell().symbols.formula.format("hill")


def candidates(
    hosts: dict[str, HostReference], seed: int, places: dict[str, dict] | None = None
) -> list[Candidate]:
    """Every possible row in one seeded order, mixed by kind in the `SHARES`.

    `places` holds, by host, the sites that have names already (see `named_sites`).

    Within a kind the order is that of hashes; the kinds take turns, so that any first part of
    the list has these shares until a kind runs out. A strained candidate is passed over while
    more than `STRAINED_SHARE` of the list before it is strained.
    """
    pool = [
        Candidate(host, site, dopant, strain)
        for host, reference in hosts.items()
        for site in named_sites(reference.unit, (places or {}).get(host, {}))
        for dopant, strain in _variants(reference.unit, host, site, seed)
    ]
    unit = lcm(*SHARES.values())
    turns = []
    for rank, (kind, share) in enumerate(SHARES.items()):
        names = {c.name: c for c in pool if c.site.kind == kind}
        drawn = sorted(names, key=lambda name: _draw(seed, name))
        # The k-th row of a kind is due when the list has about (k + 1/2) / share rows.
        turns += [((2 * k + 1) * unit // share, rank, names[name]) for k, name in enumerate(drawn)]
    chosen, strained = [], 0
    for _, _, candidate in sorted(turns, key=lambda turn: turn[:2]):
        if candidate.strain and 100 * strained > STRAINED_SHARE * len(chosen):
            continue
        strained += bool(candidate.strain)
        chosen.append(candidate)
    return chosen


def _variants(unit: Atoms, host: str, site: DefectSite, seed: int) -> list[tuple[str, float]]:
    """Dopant and strain of every candidate at a site: all dopants, a share of them strained.

    A site without a dopant comes without strain and with some.
    """
    if not site.has_dopant:
        drawn = sorted(STRAINS, key=lambda strain: _draw(seed, host, site.name, strain))
        return [(NO_DOPANT, strain) for strain in (0.0, *drawn[:STRAINED_VACANCIES])]
    own = unit[site.substituted[0]].symbol if site.substituted is not None else NO_DOPANT
    variants = []
    for dopant in DOPANTS:
        which, percent = divmod(_draw(seed, host, site.name, dopant), 100)
        strain = STRAINS[which % len(STRAINS)] if percent < STRAINED_SHARE else 0.0
        if dopant != own:
            variants.append((dopant, strain))
    return variants


def _draw(*what: object) -> int:
    """A whole number of 64 bits that the hash of `what` draws."""
    digest = hashlib.sha256("/".join(map(str, what)).encode()).digest()
    return int.from_bytes(digest[:8], "big")
