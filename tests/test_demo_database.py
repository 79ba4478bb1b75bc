"""The demo database that ships with the kit: size, shares, labels, and what every row holds."""

import numpy as np
import pytest
from ase.db import connect
from processors import run_on

from defectkit.data.candidates import DOPANTS, MAX_STRAIN, NO_DOPANT, read_hosts
from defectkit.data.fetch import CHECKOUT_DATA
from defectkit.data.potential import LABEL_SOURCE
from defectkit.data.readers import read_demo
from defectkit.structures.defects import find_sites
from defectkit.structures.hosts import HOSTS

DATABASE = CHECKOUT_DATA / "demo2d.db"


@pytest.fixture(scope="module")
def data():
    return read_demo(DATABASE)


@pytest.fixture(scope="module")
def metadata():
    return connect(DATABASE, type="db", use_lock_file=False).metadata


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


def test_every_row_is_named_by_what_it_is(data, metadata):
    sites = {
        name: {site.name: site.has_dopant for site in find_sites(host.unit)}
        for name, host in read_hosts(metadata).items()
    }
    names = [record.name for record in data.records]
    assert len(set(names)) == len(names)
    for record in data.records:
        formula = HOSTS[record.host].unit_cell().symbols.formula.format("hill")
        strain = f"_{100 * record.strain:+.1f}%" if record.strain else ""
        assert record.name == f"{formula}_{record.dopant or NO_DOPANT}_{record.site}{strain}"
        assert sites[record.host][record.site] == bool(record.dopant)


DRAW = """
import hashlib, sys
from ase.db import connect
from defectkit.data.candidates import candidates, read_hosts
metadata = connect(sys.argv[1], type="db", use_lock_file=False).metadata
for seed in (0, 7):
    drawn = candidates(read_hosts(metadata), seed)
    print(hashlib.sha256(" ".join(c.name for c in drawn).encode()).hexdigest())
points = {(c.host, c.site.name): c.site.point for c in drawn if c.site.point}
for (host, site), point in sorted(points.items()):
    print(host, site, *(round(x, 3) + 0.0 for x in point))
"""


@pytest.mark.slow
def test_order_and_sites_are_the_same_on_every_processor():
    here = run_on("here", DRAW, DATABASE)
    assert len(here.splitlines()) > 300
    assert run_on("without AVX-512", DRAW, DATABASE) == here


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
