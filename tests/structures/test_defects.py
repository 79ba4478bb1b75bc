"""Defect sites: counts known by symmetry, contact heights, what is added and removed."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase.data import atomic_numbers, covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st

from defectkit import DefectkitError
from defectkit.structures import defects
from defectkit.structures.defects import (
    CLEARANCE,
    KINDS,
    NEIGHBOUR_CUTOFF,
    find_site,
    find_sites,
    make_defect,
    named_sites,
)
from defectkit.structures.hosts import HOSTS, supercell_size

SITES = {name: find_sites(host.unit_cell()) for name, host in HOSTS.items()}


def test_sites_of_mos2_by_symmetry():
    counts = Counter(site.name[:3] for site in SITES["MoS2"])
    # Above S, above Mo, above the hollow, above the middle of an S-S edge; the mirror plane makes
    # both sides equal. Two sublattices. Pairs within 1.05 a: Mo-Mo along the edge, Mo-S, S-S
    # across the layer, S-S along the edge.
    assert counts["ads"] == 4
    assert counts["sub"] == counts["vac"] == 2
    assert counts["div"] == 4
    assert counts["cpx"] == 5  # the Mo-S pair counts twice: either one may be vacant


def test_janus_layer_has_two_different_sides():
    sides = Counter(site.side for site in SITES["MoSSe"] if site.kind == "adsorbate")
    assert sides == {1: 4, -1: 4}


@pytest.mark.parametrize("name", HOSTS)
def test_every_host_offers_every_kind(name):
    assert {site.kind for site in SITES[name]} == set(KINDS)
    assert len({site.name for site in SITES[name]}) == len(SITES[name])


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_make_defect_adds_and_removes_what_it_says(data):
    host = data.draw(st.sampled_from(sorted(HOSTS)))
    site = data.draw(st.sampled_from(SITES[host]))
    dopant = data.draw(st.sampled_from(["H", "Fe", "Cs"]))
    unit = HOSTS[host].unit_cell()
    size = supercell_size(unit)
    pristine = unit.repeat(size)
    defect = make_defect(unit, size, site, dopant)

    expected = Counter(pristine.symbols)
    expected.subtract(defect.removed)
    expected[dopant] += site.has_dopant
    assert Counter(defect.atoms.symbols) == +expected
    assert len(defect.positions) == site.has_dopant + len(site.vacancies)
    distances = defect.atoms.get_all_distances(mic=True)
    # An adsorbate touches: hydrogen on hydrogen is closer than any other pair.
    touching = covalent_radii[atomic_numbers[dopant]] + covalent_radii[unit.numbers].min()
    least = min(CLEARANCE, touching) if site.kind == "adsorbate" else CLEARANCE
    assert distances[np.triu_indices_from(distances, 1)].min() > least - 1e-6


@pytest.mark.parametrize("dopant", ["H", "Fe", "Cs"])
@pytest.mark.parametrize("host", ["MoS2", "MoSSe", "P4", "CrI3"])
def test_adsorbate_touches_the_layer_from_outside(host, dopant):
    unit = HOSTS[host].unit_cell()
    for site in SITES[host]:
        if site.kind != "adsorbate":
            continue
        atoms = make_defect(unit, supercell_size(unit), site, dopant).atoms
        distance = atoms.get_distances(-1, range(len(atoms) - 1), mic=True)
        contact = covalent_radii[atoms.numbers[:-1]] + covalent_radii[atomic_numbers[dopant]]
        above = (site.side * (atoms.positions[-1, 2] - atoms.positions[:-1, 2])).min()
        assert above > -1e-6
        if above > 1e-6:  # else it fell between the outermost atoms, which it need not touch
            assert (distance - contact).min() == pytest.approx(0, abs=1e-6)


def test_pairs_are_near_neighbours():
    for host, sites in SITES.items():
        unit = HOSTS[host].unit_cell()
        for site in sites:
            if site.name.startswith(("div", "cpx")):
                first, second = make_defect(unit, supercell_size(unit), site, "H").positions
                gap = unit.repeat(supercell_size(unit))
                gap = gap.cell.array[:2]
                shifts = np.array([i * gap[0] + j * gap[1] for i in (-1, 0, 1) for j in (-1, 0, 1)])
                distance = np.linalg.norm(second - first + shifts, axis=1).min()
                assert distance <= NEIGHBOUR_CUTOFF + 1e-6


def test_symmetry_copies_of_a_host_offer_the_same_sites():
    unit = HOSTS["SnS2"].unit_cell()
    turned = unit.copy()
    turned.rotate(37, "z", rotate_cell=True)
    turned.positions += [0.7, -0.3, 0.0]
    counts = Counter(site.kind for site in find_sites(turned))
    assert counts == Counter(site.kind for site in SITES["SnS2"])


@pytest.mark.parametrize("host", ["MoS2", "SnS2", "CrI3", "P4", "MoSSe"])
def test_sites_keep_the_names_that_they_have_elsewhere(host):
    """Numbered backwards and moved by a lattice vector, half of them missing."""
    unit = HOSTS[host].unit_cell()
    kinds = {}
    for site in reversed(SITES[host]):
        kinds.setdefault(site.name[:3], []).append(site)
    elsewhere = {f"{kind}{n}": s for kind, sites in kinds.items() for n, s in enumerate(sites)}
    shift = unit.cell[0] - 2 * unit.cell[1]
    half = list(elsewhere.items())[::2]
    places = {name: defects._points(unit, site) + shift for name, site in half}
    named = {site.name: site for site in named_sites(unit, places)}
    assert len(named) == len(SITES[host])
    for name in places:
        assert replace(elsewhere[name], name="") == replace(named[name], name="")


def test_the_order_of_sites_survives_rounding_errors():
    rng = np.random.default_rng(0)
    for host, sites in SITES.items():
        unit = HOSTS[host].unit_cell()
        unit.positions += rng.uniform(-1e-12, 1e-12, unit.positions.shape)
        noisy = find_sites(unit)
        assert [replace(s, point=None) for s in noisy] == [replace(s, point=None) for s in sites]
        for one, other in zip(noisy, sites):
            assert one.point == pytest.approx(other.point, abs=2e-6)


@pytest.mark.parametrize("host", ["MoS2", "SnS2", "MoSSe", "Ti2CO2", "CrI3"])
def test_a_site_is_found_by_what_it_takes_out(host):
    unit = HOSTS[host].unit_cell()
    for symbol in set(unit.symbols):
        for kind, dopant in (("vacancy", ""), ("substitution", "W")):
            site = find_site(unit, kind, symbol)
            assert site.kind == kind
            assert make_defect(unit, (3, 3, 1), site, dopant).removed == (symbol,)


def test_pairs_are_found_by_both_atoms_the_replaced_one_first():
    unit = HOSTS["MoS2"].unit_cell()
    assert make_defect(unit, (3, 3, 1), find_site(unit, "complex", "S,Mo"), "O").removed == (
        "S",
        "Mo",
    )


def test_a_site_that_is_not_there_is_named_with_the_choices():
    unit = HOSTS["MoS2"].unit_cell()
    with pytest.raises(DefectkitError, match=r"MoS2 has no vacancy that takes out Se.*Mo.*S\."):
        find_site(unit, "vacancy", "Se")
