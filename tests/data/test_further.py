"""Rows of a second file are learned from, and bring nothing back that is held out."""

from dataclasses import replace

import numpy as np
import pytest

from defectkit import DefectkitError
from defectkit.bench.models import on_data
from defectkit.data import Dataset, load
from defectkit.data.cleaning import clean
from defectkit.data.further import VALID_SHARE, Further
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.data.splits import make_split
from defectkit.data.starts import MORE_STARTS, STARTS
from defectkit.graphs.build import GraphConfig
from defectkit.training.config import ModelConfig, RunConfig, load_config, with_values
from defectkit.training.prepared import Prepared, fit_table
from defectkit.training.pretrained import CONFIGS


@pytest.fixture(scope="module")
def random() -> Dataset:
    return clean(load("demo", STARTS)).dataset


@pytest.fixture(scope="module")
def data(random) -> Dataset:
    """Twenty rows, the others are further ones."""
    return random.subset(random.frame.index[:20])


@pytest.fixture(scope="module")
def more(random) -> Dataset:
    return random.subset(random.frame.index[20:80])


def renamed(dataset: Dataset, uids, prefix: str) -> Dataset:
    return replace(dataset, records=[replace(dataset[uid], uid=f"{prefix}{uid}") for uid in uids])


def joined(*datasets: Dataset) -> Dataset:
    return replace(datasets[0], records=[record for one in datasets for record in one.records])


def test_the_same_structure_goes_where_it_is_already_or_nowhere(data, more):
    learned, held = list(data.frame.index[:12]), list(data.frame.index[12:])
    further = joined(more, renamed(data, learned[:3], "again "), renamed(data, held, "again "))
    tests = renamed(more, more.frame.index[:5], "")
    found = Further.of([further], data, learned, seed=0, tests=tests)
    assert not set(found.train) & set(found.valid)
    assert {f"again {uid}" for uid in learned[:3]} <= set(found.train)
    outside = {f"again {uid}" for uid in held} | set(more.frame.index[:5])
    assert not outside & {*found.train, *found.valid}
    # A few relaxed to what another row is already.
    assert 0 <= len(further) - len(outside) - len(found.train) - len(found.valid) <= 5
    assert abs(len(found.valid) - VALID_SHARE * 55) <= 2
    assert found.valid != Further.of([further], data, learned, seed=1, tests=tests).valid


def test_rows_that_are_there_already_count_once(data, more, capsys):
    uids = list(data.frame.index)
    alone, again = (Further.of(files, data, uids, 0) for files in ([more], [more, data]))
    assert (again.train, again.valid) == (alone.train, alone.valid)
    assert len(again.dataset) == len(more)
    assert f"{len(data)} rows are in demo already and count once" in capsys.readouterr().out


def test_rows_that_do_not_belong_are_refused(data, more):
    uids = list(data.frame.index)
    other = replace(more, label_source="DFT", records=[])
    with pytest.raises(DefectkitError, match="labels of DFT and demo those of CHGNet"):
        Further.of([other], data, uids, 0)
    with pytest.raises(DefectkitError, match=r"data.more: the id .* stands twice"):
        Further.of([more, more], data, uids, 0)
    hosts = {name: unit.copy() for name, unit in more.hosts.items()}
    for unit in hosts.values():
        unit.set_cell(1.02 * unit.cell, scale_atoms=True)
    with pytest.raises(DefectkitError, match=r"has another .* compute both with one cell"):
        Further.of([replace(more, hosts=hosts)], data, uids, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.split": {"kind": "host", "fold": 0}}, "bring back what the split by host holds"),
        ({"augment": ["strain"]}, "leave data.more or augment out"),
    ],
)
def test_settings_that_do_not_go_with_them_are_refused(changes, message):
    config = load_config(CONFIGS / "hybrid.yaml")
    with pytest.raises(DefectkitError, match=message):
        with_values(config, {"data.more": ["more.db"]} | changes)


def test_models_learn_from_them_and_are_judged_on_the_same_rows(random, more):
    dataset = random.subset(random.frame.index[100:180])
    config = RunConfig(
        model=ModelConfig("ridge"), graph=GraphConfig(positions="unrelaxed", angle_cutoff=None)
    )
    alone, beside = (Prepared(config, dataset, make_split(dataset)) for _ in range(2))
    uids = more.frame.index[:30]
    beside.__dict__["further"] = Further(more, tuple(uids), ())
    assert beside.parts == alone.parts
    assert beside.identity(0) == alone.identity(0)
    graphs = beside.training_graphs()
    assert graphs.uids[-30:] == list(uids)
    assert len(graphs) == len(alone.training_graphs()) + 30
    labels = graphs.tensors["y_eform"][-30:].numpy()
    np.testing.assert_allclose(labels, more.frame.eform[uids].astype(np.float32))
    table = alone.table().loc[alone.uids("valid")]
    one, two = (
        fit_table(prepared, alone.uids("train"), 0).predict(table).eform
        for prepared in (alone, beside)
    )
    assert (one - two).abs().max() > 1e-3


def test_the_shipped_configuration_finds_its_rows():
    config = load_config(CONFIGS / "hybrid-unrelaxed.yaml")
    assert [CHECKOUT_DATA / name for name in config.data.more] == [MORE_STARTS]
    names = {record.name for record in load("demo", MORE_STARTS).records}
    assert not names & {record.name for record in load("demo").records}
    assert load_config(CONFIGS / "lightgbm-unrelaxed.yaml").data.more == config.data.more


def test_other_data_leave_them_out_or_say_what_to_do():
    config = load_config(CONFIGS / "hybrid-unrelaxed.yaml")
    assert on_data(config, "demo", None).data.more == config.data.more
    assert on_data(config, "imp2d", None).data.more == ()
    missing = with_values(config, {"data.more": ["nowhere.db"]})
    prepared = Prepared(missing, None, None)
    with pytest.raises(DefectkitError, match=r"data.more: .* Set data.more=\[\]"):
        prepared.further  # noqa: B018 - it is read
