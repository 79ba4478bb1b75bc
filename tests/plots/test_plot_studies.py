"""Figures of studies: verdicts, and what is drawn and labelled."""

import numpy as np
import pandas as pd
import pytest

from defectkit import plots

SOURCE = "CHGNet-0.3.0"
SEEDS = np.array([-0.01, 0.0, 0.01])  # eV, the luck of three seeds

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def study():
    variants = {
        ("reference", "full"): (0.40, 100),
        ("local", "no angles"): (0.50, 80),
        ("local", "no luck"): (0.41, 90),
        ("training", "noise"): (0.35, 100),
    }
    return pd.concat(
        pd.DataFrame(
            {"group": group, "variant": name, "seed": range(3), "eform_mae": error + SEEDS}
        ).assign(n_params=weights)
        for (group, name), (error, weights) in variants.items()
    )


def ticks(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_change_counts_beyond_two_standard_errors(study):
    found = plots.studies.changes(study)
    assert found.index.tolist() == ["noise", "no luck", "no angles"]
    assert found.verdict.tolist() == ["better", "no clear difference", "worse"]
    assert found.change.tolist() == pytest.approx([-0.05, 0.01, 0.10])
    assert found.percent["no angles"] == pytest.approx(25)
    # Three seeds spread by 0.01: two standard errors are 2 * 0.01 * sqrt(2 / 3) = 0.0163.
    for change, verdict in ((0.0162, "no clear difference"), (0.0164, "worse")):
        study.loc[study.variant == "no luck", "eform_mae"] = 0.40 + change + SEEDS
        assert plots.studies.changes(study).verdict["no luck"] == verdict


def test_a_single_wild_variant_does_not_hide_the_others(study):
    study.loc[study.variant == "no luck", "eform_mae"] = [0.4, 0.9, 2.0]
    assert plots.studies.changes(study).verdict["no angles"] == "worse"


def test_verdicts_name_every_variant_once(study):
    assert plots.studies.verdicts(study).to_dict() == {
        "better": "noise",
        "no clear difference": "no luck",
        "worse": "no angles",
    }


def test_variants_stand_in_their_groups_with_every_seed(study):
    ax = plots.studies.variants(study, SOURCE)
    assert ticks(ax) == ["noise", "no luck", "no angles"]
    assert [text.get_text() for text in ax.texts] == ["training", "local"]
    dots = sorted(x for line in ax.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert dots == sorted(study[study.variant != "full"].eform_mae)
    left, right = ax.get_xlim()
    assert left < min(dots)
    assert right > max(dots)
    low, high = ax.get_ylim()
    assert all(low < place < high for place in ax.get_yticks())
    assert {"the full model", "better", "worse", "no clear difference"} < set(legend(ax))
    assert SOURCE in ax.get_xlabel()
    assert "eV" in ax.get_xlabel()


def test_sizes_are_sorted_by_weights_and_name_them(study):
    ax = plots.studies.sizes(study[study.variant != "noise"], SOURCE)
    upwards = ["full, 100 weights", "no luck, 90 weights", "no angles, 80 weights"]
    assert ticks(ax) == upwards
    assert "eV" in ax.get_xlabel()


def test_transfer_has_a_line_of_means_a_group():
    table = pd.DataFrame(
        {
            "group": ["from scratch"] * 4 + ["fine-tuned"] * 4,
            "n_train": [50, 50, 100, 100] * 2,
            "eform_mae": [1.0, 1.2, 0.8, 0.6, 0.5, 0.5, 0.4, 0.4],
        }
    )
    ax = plots.studies.transfer(table, SOURCE)
    lines = {line.get_label(): line for line in ax.lines if "mean" in line.get_label()}
    scratch = lines["from scratch, mean of the seeds"]
    assert scratch.get_xdata().tolist() == [50, 100]
    assert scratch.get_ydata() == pytest.approx([1.1, 0.7])
    assert len(lines) == 2
    assert [label.get_text() for label in ax.get_xticklabels()] == ["50", "100"]
    assert SOURCE in ax.get_ylabel()


def test_cost_draws_a_line_a_part_and_slopes_to_compare_with():
    table = pd.DataFrame(
        {
            "part": ["local", "local", "global", "global"],
            "n_atoms": [10, 100] * 2,
            "ms": [1.0, 10.0, 0.5, 50.0],
        }
    )
    ax = plots.studies.cost(table, "n_atoms", "atoms", slopes=(1, 2))
    assert legend(ax) == ["local", "global", "linear", "square"]
    assert ax.lines[1].get_ydata().tolist() == [0.5, 50.0]
    linear, square = ax.lines[2:]
    assert linear.get_ydata() == pytest.approx([5.0, 50.0])
    assert square.get_ydata() == pytest.approx([0.5, 50.0])
    assert not ax.texts  # a word on a line would cover another line
    assert "ms" in ax.get_ylabel()
    assert ax.get_xscale() == ax.get_yscale() == "log"


@pytest.fixture
def speed():
    return pd.DataFrame(
        {
            "model": ["hybrid", "hybrid", "hybrid triplets", "alignn compact", "alignn published"],
            "hidden": [64, 256, 64, 64, 256],
            "train_ms": [1.0, 4.0, 3.0, 6.0, 40.0],
            "infer_ms": [0.5, 2.0, 1.0, 2.0, 30.0],
        }
    )


def test_throughput_puts_the_fastest_on_top(speed):
    train, infer = plots.studies.throughput(speed)
    assert ticks(train)[-1] == "hybrid, 64 wide"
    assert ticks(train)[0] == "alignn published, 256 wide"
    assert [bar.get_width() for bar in train.patches] == [40.0, 6.0, 4.0, 3.0, 1.0]
    assert [bar.get_width() for bar in infer.patches] == [30.0, 2.0, 2.0, 1.0, 0.5]
    assert "(ms)" in train.get_xlabel()


def test_ladder_keeps_the_order_of_steps_and_leaves_gaps():
    table = pd.DataFrame(
        {
            "split": ["random", "host", "random"],
            "model": ["a", "a", "b"],
            "eform_mae": [0.4, 0.9, 0.3],
            "eform_mae_lo": [0.3, 0.8, 0.2],
            "eform_mae_hi": [0.5, 1.1, 0.4],
        }
    )
    ax = plots.studies.ladder(table, SOURCE)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["random", "host"]
    assert legend(ax) == ["a", "b"]
    assert SOURCE in ax.get_ylabel()
    points = [y for one in ax.lines if one.get_marker() == "o" for y in one.get_ydata()]
    assert [y for y in points if np.isfinite(y)] == [0.4, 0.9, 0.3]


def test_cost_against_accuracy():
    table = pd.DataFrame(
        {
            "model": ["a", "a", "b"],
            "eform_mae": [0.6, 0.4, 0.3],
            "build_ms": [4.0, 4.0, 5.0],
            "infer_ms_b64": [1.0, 1.0, 2.0],
        }
    )
    ax = plots.studies.cost_accuracy(table, SOURCE)
    x, y = ax.lines[0].get_data()
    assert sorted(zip(x, y)) == [(5.0, 0.5), (7.0, 0.3)]
    assert [text.get_text() for text in ax.texts] == ["a", "b"]
    assert "ms" in ax.get_xlabel()


def test_names_of_models_do_not_cover_each_other():
    table = pd.DataFrame(
        {
            "model": ["hybrid", "lightgbm", "alignn", "names"],
            "eform_mae": [0.25, 0.31, 0.36, 0.86],
            "build_ms": [5.0, 5.3, 5.5, np.nan],
            "infer_ms_b64": [2.7, 2.8, 2.9, np.nan],
        }
    )
    ax = plots.studies.cost_accuracy(table, SOURCE)
    assert sorted(text.get_text() for text in ax.texts) == ["alignn", "hybrid", "lightgbm"]
    ax.figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in ax.texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])


@pytest.fixture
def models():
    columns = ["model", "input", "split", "eform_mae", "n_params"]
    rows = [
        ("hybrid", "relaxed", "random 0", 0.22, 250_000),
        ("hybrid", "relaxed", "random 0", 0.24, 250_000),
        ("alignn", "relaxed", "random 0", 0.46, 150_000),
        ("hybrid", "unrelaxed", "random 0", 0.90, 250_000),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_aims_are_judged_from_the_tables(models, speed):
    none = pd.DataFrame({"split": ["random"], "model": ["hybrid"], "eform_mae": [0.2]})
    found = plots.studies.aims(models, speed, none)
    assert found.reached.iloc[0] == pytest.approx(0.5)
    assert found.verdict.iloc[0] == "met"
    assert found.verdict["error (eV)"] == "missed by 15.0 %"
    assert found.verdict["error on a host never seen, share of ALIGNN's"] == "not measured"
    assert found.reached["training, times as fast as alignn compact"] == 6
    assert found.verdict["prediction, times as fast as alignn compact"] == "missed by 20.0 %"
    assert found.reached["training, times as fast as alignn published"] == 10  # both 256 wide
    assert found.reached["weights (millions)"] == 0.25


def test_hosts_never_seen_are_judged_where_they_were_measured(models, speed):
    ladder = pd.DataFrame(
        {
            "split": ["random", "random", "host", "host"],
            "model": ["hybrid", "alignn", "hybrid", "alignn"],
            "eform_mae": [0.5, 0.6, 1.0, 2.0],
        }
    )
    found = plots.studies.aims(models, speed, ladder)
    assert found.reached["error on a host never seen, share of ALIGNN's"] == 0.5
    assert found.reached["error (eV)"] == pytest.approx(0.23)
