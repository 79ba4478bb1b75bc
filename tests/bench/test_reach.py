"""The benches on pairs of vacancies, with small networks on a part of one subset."""

import numpy as np
import pandas as pd
import pytest
from real_rows import some_rows

from defectkit import bench
from defectkit.bench import reach
from defectkit.training.config import with_values

VACANCIES = "X1", "X2"  # how the data describe one or two of sulphur


@pytest.fixture(scope="module")
def tables(real_data, tmp_path_factory, own_cache) -> dict[str, pd.DataFrame]:
    """Every table after one epoch on a few rows, and the runs they are made of."""
    path = some_rows(real_data, tmp_path_factory.mktemp("2dmd"), {"low_MoS2": 250}, VACANCIES)
    place = tmp_path_factory.mktemp("bench")
    full = reach._few_rows

    def short(name, path):
        small = {"hidden": 8, "global_layers": 2} if name != "sites" else {"hidden": 8, "pair": 4}
        small = {f"model.settings.{key}": value for key, value in small.items()}
        return with_values(full(name, path), {"epochs": 1, **small})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "_few_rows", short)
        patch.setattr(reach, "FOLDER", place / "runs")
        patch.setattr(reach, "SEEDS", (0,))
        patch.setattr(reach, "CUTS", (5.0,))
        patch.setattr(reach, "HOSTS", {"MoS2": "low_MoS2"})
        patch.setattr(reach, "FOLDS", 2)
        patch.setattr(reach, "PAIR_ROWS", 60)
        patch.setattr(reach, "PAIR_VALID", 20)
        # In this process, which has the patches.
        patch.setattr(reach, "train_all", lambda work, jobs, name: [work(*job) for job in jobs])
        files = {
            name: bench.run(name, output=place, path=path)
            for name in ("pairs_2dmd", "reach_2dmd", "attention_2dmd")
        }
        splits = [(job, reach._prepared(job)) for *_, job in reach._pair_jobs(path)]
        vacancies = reach._vacancies(splits[0][1].dataset)
    return {name: pd.read_csv(file) for name, file in files.items()} | {
        "splits": splits,
        "vacancies": vacancies,
    }


def test_every_network_speaks_of_every_pair(tables):
    table = tables["pairs_2dmd"]
    counts = table.groupby(["held_out", "network"]).size()
    assert set(counts) == {18}  # and the farthest, from which energies count
    assert set(counts["pair"].index) == {
        "all pairs",
        "cut at 5 Å",
        "all atoms, global",
        "all atoms, global without ψ",
        "all atoms, local",
    }
    assert list(counts["shell"].index) == ["all pairs"]
    assert (table.groupby("distance").dft.nunique() == 1).all()
    # (E_pair - E_far) / 2 from the labels themselves.
    nearest = table.sort_values("distance").dft.iloc[0]
    assert nearest == pytest.approx(-0.0062 - 0.0181, abs=2e-4)


def test_nothing_held_out_is_learned_from(tables):
    vacancies = tables["vacancies"]
    for job, prepared in tables["splits"]:
        split = prepared.split
        learned = set(split.train) | set(split.valid)
        assert vacancies.single in split.train
        assert len(split.train) == 60
        assert not learned & set(vacancies.pairs.index) or job.held_out != "pair"
        if job.held_out != "pair":
            far = vacancies.distances[vacancies.distances.index.isin(learned)].to_numpy()
            tested = vacancies.pairs[list(split.test)].to_numpy()
            assert np.abs(far[:, None] - tested).min() > 0.05


def test_beyond_its_cut_a_network_says_the_same_of_all_pairs(tables):
    table = tables["pairs_2dmd"]
    cut = table[(table.network == "cut at 5 Å") & (table.distance > 5)]
    whole = table[(table.network == "all pairs") & (table.held_out == "pair")]
    assert cut.predicted.nunique() <= 2  # five decimals are kept
    assert whole.predicted.nunique() > 2


def test_errors_and_weights_stand_beside_the_networks(tables):
    errors = tables["reach_2dmd"]
    assert len(errors) == 5
    assert (errors.mae_lo <= errors.mae).all()
    assert (errors.n_valid == 21).all()
    weights = tables["attention_2dmd"]
    assert len(weights) == 18
    assert weights.weight.between(0, 1).all()
