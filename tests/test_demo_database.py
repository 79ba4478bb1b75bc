"""The demo database that ships with the kit: size, shares, labels, and what every row holds."""

import numpy as np
import pytest
from ase.db import connect

from defectkit.data.demo import DOPANTS, MAX_STRAIN, candidates, read_hosts
from defectkit.data.fetch import CHECKOUT_DATA
from defectkit.data.potential import LABEL_SOURCE
from defectkit.data.readers import read_demo
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


def test_rows_are_the_first_candidates_of_the_seeded_order(data, metadata):
    names = [c.name for c in candidates(read_hosts(metadata), metadata["seed"])]
    expected = [n for n in names if n not in metadata["failed"]][: len(data)]
    assert [record.name for record in data.records] == expected


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
