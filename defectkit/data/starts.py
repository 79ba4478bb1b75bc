"""Defects that start where no recipe puts them: rows for networks of unrelaxed input.

The recipe of the demo database begins at symmetric sites, and a network could learn these by
heart. Here an added atom begins anywhere above, below or inside the layer, a substituted one
beside its site. The rows are labelled like all others; those of `STARTS` are never learned from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, covalent_radii
from ase.db import connect

from defectkit import DefectkitError
from defectkit.data.demo import DOPANTS, Candidate, HostReference, check_demo_database, draw
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.structures.defects import DefectSite, adsorption_height, find_sites

STARTS = CHECKOUT_DATA / "starts.db"  # the rows that test; nothing is learned from them
MORE_STARTS = CHECKOUT_DATA / "more_starts.db"  # for `data.more`
KINDS = ("adsorbate", "adsorbate", "interstitial", "substitution")  # they take turns
LIFT = -0.3, 0.8  # Å above the place where an adsorbate touches the layer
OFF_SITE = 0.25  # Å, standard deviation of each coordinate of a substituted atom
ROOM = 0.6  # least distance from an interstitial to an atom, over the sum of covalent radii
TRIALS = 200  # points of a layer, before another dopant is taken


@dataclass(frozen=True)
class RandomStarts:
    """Rows with random starts, for `demo.build`.

    Attributes:
        like: the demo database whose hosts and chemical potentials are taken.
    """

    like: Path

    def references(self, seed: int) -> dict:
        """The metadata of a new database; DefectkitError where `like` is no demo database."""
        if not self.like.is_file():
            raise DefectkitError(f"{self.like} is not there; name a demo database.")
        check_demo_database(self.like)
        metadata = connect(self.like, type="db", use_lock_file=False).metadata
        return metadata | {"seed": seed, "failed": {}, "runs": []}

    def candidates(self, hosts: dict[str, HostReference], seed: int) -> Iterator[Candidate]:
        """Endlessly many rows, `start0` and on, all hosts and kinds by turns.

        Args:
            hosts: relaxed hosts by name.
            seed: of the draws, which hash what is drawn for and are the same on every machine.
        """
        names = sorted(hosts)
        for number in count():
            host = names[number % len(names)]
            kind = KINDS[number // len(names) % len(KINDS)]
            rng = np.random.default_rng([seed, draw(seed, "start", number) % 2**32])
            dopant = str(rng.choice(DOPANTS))
            site = _site(hosts[host].unit, kind, dopant, f"start{number}", rng)
            off = rng.normal(0.0, OFF_SITE, 3) if kind == "substitution" else np.zeros(3)
            if site is not None:
                yield Candidate(host, site, dopant, 0.0, tuple(map(float, off)))


def _site(
    unit: Atoms, kind: str, dopant: str, name: str, rng: np.random.Generator
) -> DefectSite | None:
    """A place for the dopant; None where the layer has no room for it or it is there already."""
    if kind == "substitution":
        sites = [site for site in find_sites(unit) if site.kind == kind]
        atom, image = sites[rng.integers(len(sites))].substituted
        if unit.symbols[atom] == dopant:
            return None
        return DefectSite(name, kind, substituted=(atom, image))
    if kind == "adsorbate":
        x, y, _ = rng.random(3) @ unit.cell.array
        side = int(rng.choice([-1, 1]))
        layer = unit.repeat((3, 3, 1))
        inner = np.array([x, y]) + unit.cell.array[:2, :2].sum(axis=0)
        z = adsorption_height(layer, inner, dopant, side) + side * rng.uniform(*LIFT)
        return DefectSite(name, kind, (float(x), float(y), float(z)))
    layer = unit.repeat((5, 5, 1))
    radii = covalent_radii[layer.numbers] + covalent_radii[atomic_numbers[dopant]]
    low, high = unit.positions[:, 2].min(), unit.positions[:, 2].max()
    for _ in range(TRIALS):
        point = rng.random(3) @ unit.cell.array
        point[2] = rng.uniform(low, high)
        inner = point + 2 * unit.cell.array[:2].sum(axis=0)
        if (np.linalg.norm(layer.positions - inner, axis=1) > ROOM * radii).all():
            return DefectSite(name, kind, tuple(map(float, point)))
    return None
