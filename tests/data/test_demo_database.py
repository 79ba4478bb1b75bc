"""The demo database that ships with the kit: size, shares, labels, and what every row holds."""

import numpy as np
import pytest
from ase.db import connect
from processors import other_processors, run_on

from defectkit.bench.card import write_card
from defectkit.data.demo import DOPANTS, MAX_STRAIN, NO_DOPANT, read_hosts
from defectkit.data.demo import inventory as demo_inventory
from defectkit.data.potential import LABEL_SOURCE
from defectkit.data.readers import read_demo
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.structures.defects import find_sites, make_defect, named_sites
from defectkit.structures.hosts import HOSTS

DATABASE = CHECKOUT_DATA / "demo2d.db"


@pytest.fixture(scope="module")
def data():
    return read_demo(DATABASE)


@pytest.fixture(scope="module")
def metadata():
    return connect(DATABASE, type="db", use_lock_file=False).metadata


def test_the_data_card_is_that_of_the_database(tmp_path):
    write_card(DATABASE, tmp_path / "card.md")
    assert (tmp_path / "card.md").read_bytes() == (CHECKOUT_DATA / "README.md").read_bytes()


def test_size_and_shares(data):
    frame = data.frame
    assert DATABASE.stat().st_size <= 40e6
    assert frame.converged.sum() >= 5000
    share = frame.defecttype.value_counts(normalize=True)
    assert (share[["adsorbate", "interstitial", "substitution"]] >= 0.12).all()
    assert share[["vacancy", "complex"]].sum() >= 0.10
    assert set(frame.host) == set(HOSTS)
    assert len(set(frame.dopant) - {""}) >= 45
    assert 0.08 <= (frame.strain != 0).mean() <= 0.12
    assert frame.strain.abs().max() <= MAX_STRAIN + 1e-9


def test_every_row_is_labelled_as_chgnet(data):
    assert data.label_source == LABEL_SOURCE
    assert set(data.frame.label_source) == {LABEL_SOURCE}


def test_energy_identity_holds_on_every_row(data):
    f = data.frame
    expected = f.en2 - f.hostenergy - f.dopant_chemical_potential + f.removed_chemical_potential
    assert np.allclose(f.eform, expected, atol=1e-5, rtol=0)


def test_chemical_potentials_are_those_stored_with_the_database(data, metadata):
    mu = {symbol: entry["mu"] for symbol, entry in metadata["chemical_potentials"].items()}
    assert set(DOPANTS) <= set(mu)
    f = data.frame
    assert np.allclose(f.dopant_chemical_potential, f.dopant.map({**mu, "": 0.0}), atol=1e-6)
    removed = f.removed.map(lambda text: sum(mu[s] for s in text.split(",") if s))
    assert np.allclose(f.removed_chemical_potential, removed, atol=1e-5)


@pytest.fixture(scope="module")
def inventory():
    return demo_inventory(connect(DATABASE, type="db", use_lock_file=False), DATABASE)


def test_every_row_is_named_by_what_it_is(data, inventory):
    names = [record.name for record in data.records]
    assert set(names) == inventory[0]
    assert len(set(names)) == len(names)
    for record in data.records:
        formula = HOSTS[record.host].unit_cell().symbols.formula.format("hill")
        strain = f"_{100 * record.strain:+.1f}%" if record.strain else ""
        assert record.name == f"{formula}_{record.dopant or NO_DOPANT}_{record.site}{strain}"


def test_a_longer_build_goes_on_with_the_same_sites(data, metadata, inventory):
    """The rows were computed where sites had other numbers: their names keep their meaning."""
    hosts = read_hosts(metadata)
    places = inventory[1]
    for host, reference in hosts.items():
        sites = named_sites(reference.unit, places[host])
        names = [site.name for site in sites]
        assert len(set(names)) == len(names) == len(find_sites(reference.unit))
        assert set(places[host]) <= set(names)
        by_name = {site.name: site for site in sites}
        for record in data.records:
            if record.host == host:
                site = by_name[record.site]
                defect = make_defect(reference.unit, reference.repeat, site, record.dopant or "H")
                assert defect.removed == record.removed, record.uid


DRAW = """
import hashlib, sys
from ase.db import connect
from defectkit.data.demo import candidates, read_hosts
from defectkit.structures.defects import find_sites, make_defect, named_sites
hosts = read_hosts(connect(sys.argv[1], type="db", use_lock_file=False).metadata)
for seed in (0, 7):
    names = " ".join(candidate.name for candidate in candidates(hosts, seed))
    print(hashlib.sha256(names.encode()).hexdigest())
for host, reference in hosts.items():
    for site in find_sites(reference.unit):
        print(host, site)
"""


@pytest.mark.slow
@other_processors
def test_order_and_sites_are_the_same_on_every_processor(processor, here):
    assert len(here.splitlines()) > 500
    assert run_on(processor, DRAW, DATABASE) == here


@pytest.fixture(scope="module")
def here():
    return run_on("here", DRAW, DATABASE)


def test_every_record_is_whole(data):
    for record in data.records:
        assert np.isfinite(record.atoms.positions).all()
        assert record.unrelaxed.shape == record.atoms.positions.shape
        assert record.site_magmoms.shape == (record.natoms,)
        assert record.atoms.pbc.tolist() == [True, True, False]
        gone = len(record.removed) + (not record.dopant)  # a dopant replaces or adds one atom
        assert len(record.defect_positions) >= 1
        repeat = [int(digit) for digit in str(record.supercell)]
        pristine = len(data.hosts[record.host]) * np.prod(repeat)
        assert record.natoms == pristine + 1 - gone


def test_no_layer_has_drifted_away(data):
    for record in data.records:
        drift = np.median(record.atoms.positions - record.unrelaxed, axis=0)
        assert np.abs(drift).max() < 1e-4, record.uid


def test_honest_imperfections_are_there(data):
    f = data.frame
    assert (~f.converged).any()
    assert (f.extension_factor > 2).any()
    assert (f.depth > 3).any()
