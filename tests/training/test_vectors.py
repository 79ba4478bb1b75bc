"""Vectors of the elements: pairs, training that resumes, and what is shipped."""

import numpy as np
import pandas as pd
import pytest
import torch
from ase.data import chemical_symbols

from defectkit import DefectkitError
from defectkit.data.formulas import corpus_of, groups, invented
from defectkit.graphs.elements import ATOM_VECTORS, feature_table
from defectkit.models.formulas import SEP
from defectkit.training import engine
from defectkit.training.config import VectorConfig, load_config, with_values
from defectkit.training.pretrained import CONFIGS, published_janus, read_vectors
from defectkit.training.run import LAST, Run
from defectkit.training.vectors import Partners, learn_vectors

SMALL = VectorConfig(rows=400, layers=1, heads=2, hidden=8, epochs=3, batch_size=64)


@pytest.fixture(scope="module")
def corpus():
    return invented(400)


class Stop(engine.Callback):
    """Ctrl-C in the second epoch."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def read(folder):
    return pd.read_csv(folder / "vectors.csv", index_col="element", keep_default_na=False)


def test_pairs_are_alike_where_their_groups_are():
    texts = ["NaCl", "KBr", "K2S", "CaTiO3", "SrZrS3", "GaAs", "AlP"]
    partners = Partners.of(corpus_of(texts))
    rows = torch.arange(len(texts)).repeat(400)
    pairs, alike = partners.pairs(rows, torch.Generator().manual_seed(0))
    table = groups()
    for token, same in zip(pairs.token[:200].tolist(), alike[:200].tolist()):
        cut = token.index(SEP)
        halves = [{table[z] for z in part if 0 < z < 119} for part in (token[:cut], token[cut:])]
        assert same == (halves[0] == halves[1])
    share = {texts[k]: alike[rows == k].double().mean().item() for k in range(len(texts))}
    assert share["K2S"] == pytest.approx(1 / 7, abs=0.06)  # itself alone, drawn from all
    assert share["NaCl"] == pytest.approx(0.5 + 0.5 * 2 / 7, abs=0.06)
    # A partner that is looked for among its like is another formula than the first.
    width = (pairs.token.shape[1] - 3) // 2
    first, second = pairs.token[:, 1 : 1 + width], pairs.token[:, 2 + width : -1]
    itself = (first == second).all(dim=1)
    assert itself.double().mean().item() < 0.25


def test_a_run_that_was_interrupted_ends_like_one_that_was_not(tmp_path, corpus):
    whole = learn_vectors(SMALL, tmp_path / "whole", progress=False, corpus=corpus)
    with pytest.raises(KeyboardInterrupt):
        learn_vectors(SMALL, tmp_path / "cut", 0, False, (Stop(),), corpus)
    assert (tmp_path / "cut" / LAST).exists()
    assert not Run(tmp_path / "cut").finished
    cut = learn_vectors(SMALL, tmp_path / "cut", progress=False, corpus=corpus)
    pd.testing.assert_frame_equal(read(whole.folder), read(cut.folder))
    losses = pd.read_csv(cut.folder / "metrics.csv")
    assert losses.epoch.tolist() == [0, 1, 2]
    assert losses.valid_element.iloc[-1] < losses.valid_element.iloc[0]
    assert sorted(path.name for path in cut.folder.iterdir() if path.suffix == ".ckpt") == []
    assert cut.summary["formulas"] == {"train": 380, "valid": 20}
    assert cut.summary["valid_element"] == pytest.approx(losses.valid_element.min())


def test_a_finished_run_is_returned_and_another_refused(tmp_path, corpus):
    run = learn_vectors(SMALL, tmp_path / "a", progress=False, corpus=corpus)
    before = (run.folder / "vectors.csv").stat().st_mtime_ns
    learn_vectors(SMALL, tmp_path / "a", progress=False, corpus=corpus)
    assert (run.folder / "vectors.csv").stat().st_mtime_ns == before
    with pytest.raises(DefectkitError, match="holds another run"):
        learn_vectors(SMALL, tmp_path / "a", seed=1, progress=False, corpus=corpus)
    other = learn_vectors(SMALL, tmp_path / "b", seed=1, progress=False, corpus=corpus)
    assert not np.allclose(read(run.folder), read(other.folder))


def test_a_training_that_diverges_leaves_no_folder(tmp_path, corpus):
    wild = with_values(SMALL, {"optimiser.lr": 1e30, "schedule.warmup": 0.0})
    with pytest.raises(engine.Diverged, match="make optimiser"):
        learn_vectors(wild, tmp_path / "wild", progress=False, corpus=corpus)
    assert not (tmp_path / "wild").exists()


def test_without_the_second_task_nothing_tells_groups(tmp_path, corpus):
    alone = with_values(SMALL, {"groups": 0.0})
    run = learn_vectors(alone, tmp_path / "alone", progress=False, corpus=corpus)
    losses = pd.read_csv(run.folder / "metrics.csv")
    assert losses.valid_groups.nunique() == 1 or losses.valid_groups.std() < 0.05


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 3}, "heads must divide hidden"),
        ({"schedule.name": "plateau"}, "plateau"),
        ({"rows": 2}, "rows is 2"),
        ({"dropout": 0.1}, "dropout is no setting"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(DefectkitError, match=words):
        with_values(VectorConfig(), changes)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("vectors/*.yaml")), ids=lambda p: p.stem)
def test_shipped_vectors_are_those_of_their_configuration(path):
    config = load_config(path, VectorConfig)
    run = Run(ATOM_VECTORS.parents[1] / f"{path.stem}-0")
    assert load_config(run.folder / "config.yaml", VectorConfig) == config
    table = read_vectors(path.stem)
    assert table.shape == (run.summary["elements"], config.hidden)
    assert set(table.index) <= set(chemical_symbols[1:])
    assert run.summary["valid_element"] < run.summary["guess"]
    losses = pd.read_csv(run.folder / "metrics.csv")
    assert losses.valid_element.min() == pytest.approx(run.summary["valid_element"])


def test_atom_dl_is_a_group_of_features():
    features = feature_table(["atom_dl"])
    shipped = pd.read_csv(ATOM_VECTORS, index_col="element", keep_default_na=False)
    assert features.names[0] == "atom_dl 1"
    assert features.names[-1] == "vacancy"
    z = chemical_symbols.index("Mo")
    assert np.allclose(features.values[z, :16], shipped.loc["Mo"])
    assert not np.isnan(features.values).any()


def test_published_gaps_are_told_with_their_misprints():
    table = published_janus()
    assert len(table) == 24
    assert table.formula.nunique() == 22
    assert not table.drop(columns="printed").duplicated().any()
    assert set(table.printed[table.printed != table.formula]) == {"TiClII", "VCII", "ZrClII"}
    with_twin = pd.concat([table, table[table.formula == "ClSbTe"]])  # as it is printed, 25 rows
    errors = {c: round((with_twin[c] - with_twin.gap).abs().mean(), 3) for c in table.columns[3:12]}
    assert errors == {
        "rf_magpie": 0.213, "rf_atom2vec": 0.202, "rf_atom_dl": 0.185,
        "krr_magpie": 0.233, "krr_atom2vec": 0.216, "krr_atom_dl": 0.127,
        "svr_magpie": 0.172, "svr_atom2vec": 0.172, "svr_atom_dl": 0.164,
    }  # fmt: skip
