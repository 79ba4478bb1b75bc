"""Every defect that could be made: enumerated lazily, named, and known without being recognised.

A candidate is a host, one of its symmetry-distinct sites, a dopant and a strain. Candidates that
differ by their dopant alone are a `Family`; a `Chunk` is a few hundred candidates of one cell, what
a worker does at a time. Who makes a defect knows it: `Family.recognition` says what
`structures.recognise.recognise` would find.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from defectkit import DefectkitError
from defectkit.data.demo import DOPANTS, NO_DOPANT, Candidate
from defectkit.structures.defects import (
    KINDS,
    Defect,
    DefectSite,
    find_sites,
    make_defect,
    supercell_index,
)
from defectkit.structures.hosts import stretched, supercell_size
from defectkit.structures.lattice import aligned_setting
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, inside_layer
from defectkit.structures.record import SiteKind

CHUNK = 512  # candidates: seconds of work, and megabytes of memory
DIGITS = 6  # of Å that count in a name by content
MOST_STRAIN = 0.1  # beyond it no host is the crystal that it was


@dataclass(frozen=True, eq=False)
class Family:
    """Candidates of one host, site and strain, which differ by the dopant alone.

    Attributes:
        host: its name.
        unit: the pristine unit cell, without strain (Å).
        strain: biaxial, of the candidates.
        repeat: of the unit cell.
        site: in the strained unit cell.
        dopants: symbols, or "X" alone where none is added.
    """

    host: str
    unit: Atoms
    strain: float
    repeat: tuple[int, int, int]
    site: DefectSite
    dopants: tuple[str, ...]

    @property
    def candidates(self) -> list[Candidate]:
        """One a dopant."""
        return [Candidate(self.host, self.site, dopant, self.strain) for dopant in self.dopants]

    @cached_property
    def keys(self) -> list[str]:
        """A hash of the content of every candidate: host's cell, size, strain, site, dopant.

        Two screens that meet the same candidate call it the same, whatever its host is called.
        """
        digest = hashlib.sha256(self.unit.numbers.astype("<i8").tobytes())
        for array in (self.unit.positions, self.unit.cell.array):
            digest.update((np.round(array, DIGITS) + 0.0).astype("<f8").tobytes())
        point = self.site.point and tuple(round(x, DIGITS) for x in self.site.point)
        site = replace(self.site, name="", point=point)
        digest.update(repr((self.repeat, round(self.strain, DIGITS), site)).encode())
        keys = []
        for dopant in self.dopants:
            one = digest.copy()
            one.update(dopant.encode())
            keys.append(one.hexdigest()[:24])
        return keys

    def defect(self, dopant: str) -> Defect:
        """The unrelaxed structure with this dopant."""
        return make_defect(self._strained, self.repeat, self.site, dopant)

    @cached_property
    def _strained(self) -> Atoms:
        return stretched(self.unit, self.strain)

    @cached_property
    def removed(self) -> tuple[str, ...]:
        """Symbols of the host atoms that are replaced, then of those that are taken out."""
        places = [] if self.site.substituted is None else [self.site.substituted]
        return tuple(self.unit.symbols[atom] for atom, _ in (*places, *self.site.vacancies))

    def recognition(self, defect: Defect) -> Recognition:
        """The defect of a structure of this family, as `recognise` finds it against `unit`.

        It is never ambiguous: how it was made is known, and not read from the atoms.
        """
        sites = self._strained.repeat(self.repeat)
        gaps = sorted(
            supercell_index(self.unit, self.repeat, *vacancy) for vacancy in self.site.vacancies
        )
        kept = np.delete(np.arange(len(sites)), gaps)
        atoms, added = defect.atoms, int(self.site.point is not None)
        kind = np.full(len(atoms), int(SiteKind.HOST))
        if self.site.substituted is not None:
            replaced = supercell_index(self.unit, self.repeat, *self.site.substituted)
            kind[np.searchsorted(kept, replaced)] = SiteKind.SUBSTITUTION
        if added:
            last, layer = np.array([len(kept)]), np.arange(len(kept))
            inside = inside_layer(atoms, last, layer)[0]
            kind[-1] = SiteKind.INTERSTITIAL if inside else SiteKind.ADSORBATE
        return Recognition(
            site_kind=kind,
            original_z=np.concatenate([sites.numbers[kept], np.zeros(added, int)]),
            ideal_positions=np.concatenate([sites.positions[kept], atoms.positions[len(kept) :]]),
            vacancy_positions=sites.positions[gaps],
            vacancy_z=sites.numbers[gaps],
            ambiguous=False,
            reason="",
            rms=0.0,
            setting=aligned_setting(self.unit, atoms),
        )


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some families of one host and strain, `CHUNK` candidates or fewer."""

    families: tuple[Family, ...]

    def __len__(self) -> int:
        return sum(len(family.dopants) for family in self.families)

    @cached_property
    def name(self) -> str:
        """A hash of the candidates that it holds, in their order."""
        keys = "".join(key for family in self.families for key in family.keys)
        return hashlib.sha256(keys.encode()).hexdigest()[:24]


@dataclass(frozen=True, eq=False)
class Space:
    """All candidates of some hosts, enumerated as they are asked for.

    Attributes:
        hosts: pristine unit cells by name.
        dopants: symbols.
        kinds: of `structures.defects.KINDS`.
        sites: names of sites, such as "ads0"; all where there is none.
        strains: biaxial, without unit.

    Raises DefectkitError for an unknown element, kind or site, and a strain above `MOST_STRAIN`.
    """

    hosts: dict[str, Atoms]
    dopants: tuple[str, ...] = tuple(DOPANTS)
    kinds: tuple[str, ...] = KINDS
    sites: tuple[str, ...] = ()
    strains: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if not self.hosts:
            raise DefectkitError("There is no host to screen; name one, such as MoS2.")
        _check(self.dopants, [s for s in atomic_numbers if s != NO_DOPANT], "element", "as Cr")
        _check(self.kinds, KINDS, "kind of defect", ", ".join(KINDS))
        if self.sites:
            known = sorted({site.name for sites in self._sites.values() for site in sites})
            _check(self.sites, known, "site in these hosts", ", ".join(known))
        for strain in self.strains:
            if not abs(strain) <= MOST_STRAIN:
                raise DefectkitError(
                    f"A strain of {strain:g} is too much; give one between -{MOST_STRAIN} and "
                    f"{MOST_STRAIN}, such as 0.01 for one per cent."
                )

    def families(self) -> Iterator[Family]:
        """Host by host, strain by strain, site by site."""
        for host, unit in self.hosts.items():
            repeat = supercell_size(unit)
            for strain in self.strains:
                for site in self._sites[host]:
                    if site.kind in self.kinds and site.name in (self.sites or (site.name,)):
                        dopants = self._dopants(unit, site)
                        place = _stretched_site(site, strain)
                        if dopants:
                            yield Family(host, unit, strain, repeat, place, dopants)

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """All candidates in pieces of one host and strain, `size` at most."""
        waiting: list[Family] = []
        for family in self.families():
            cell = (family.host, family.strain)
            if waiting and (waiting[0].host, waiting[0].strain) != cell:
                yield Chunk(tuple(waiting))
                waiting = []
            rest = family.dopants
            while rest:
                room = size - sum(len(one.dopants) for one in waiting)
                waiting.append(replace(family, dopants=rest[:room]))
                rest = rest[room:]
                if len(rest) or room == len(waiting[-1].dopants):
                    yield Chunk(tuple(waiting))
                    waiting = []
        if waiting:
            yield Chunk(tuple(waiting))

    def __len__(self) -> int:
        return sum(len(family.dopants) for family in self.families())

    @cached_property
    def _sites(self) -> dict[str, list[DefectSite]]:
        return {host: find_sites(unit) for host, unit in self.hosts.items()}

    def _dopants(self, unit: Atoms, site: DefectSite) -> tuple[str, ...]:
        if not site.has_dopant:
            return (NO_DOPANT,)
        own = unit.symbols[site.substituted[0]] if site.substituted is not None else ""
        return tuple(dopant for dopant in self.dopants if dopant != own)


def _stretched_site(site: DefectSite, strain: float) -> DefectSite:
    """A site of a unit cell in the strained one: the point of an added atom moves along."""
    if site.point is None:
        return site
    x, y, z = site.point
    return replace(site, point=(x * (1 + strain), y * (1 + strain), z))


def _check(given: Sequence[str], known: Sequence[str], what: str, choices: str) -> None:
    """DefectkitError where something that was given is not known, or stands twice."""
    unknown = [one for one in given if one not in known]
    if unknown:
        raise DefectkitError(f"There is no {what} {one_line(unknown[0])}; choose {choices}.")
    if len(set(given)) < len(given):
        twice = next(one for one in given if given.count(one) > 1)
        raise DefectkitError(f"{twice} stands twice; give every {what.split()[0]} once.")
