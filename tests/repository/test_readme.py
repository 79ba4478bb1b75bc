import re

import numpy as np
import pandas as pd
import pytest

from defectkit import DefectkitError
from defectkit.bench import readme as pages
from defectkit.bench.readme import update
from defectkit.bench.tables import ladder_table, models_table, throughput_table

ROWS = pd.DataFrame(
    {
        "model": ["good", "good", "poor"],
        "input": "relaxed",
        "seed": [0, 1, 0],
        "eform_mae": [0.2, 0.4, 1.0],
        "eform_mae_lo": [0.1, 0.3, 0.9],
        "eform_mae_hi": [0.3, 0.5, 1.1],
        "eform_rmse": 1.0,
        "eform_r2": 0.5,
        "spin_mae": 0.1,
        "mag_f1": 0.9,
        "n_params": [1000, 1000, 0],
        "train_s_per_epoch": 2.0,
        "infer_ms_b64": 0.5,
        "n_test": 90,
        "left_out": "MoS2_a; MoS2_b",
        "data_fingerprint": "abc",
    }
)


def lines(table: str) -> list[str]:
    """The lines of a Markdown table, without the spaces that align its columns."""
    return re.sub(" +", " ", table).splitlines()


def test_tables_of_readme_are_those_of_the_benchmarks():
    assert update(check=True), "run `defectkit readme`"


def test_a_row_is_the_mean_over_seeds_with_its_spread():
    poor, good = lines(models_table(ROWS))[2:4]
    assert poor.startswith("| poor | relaxed | 1.000 |")
    assert good.startswith("| good | relaxed | 0.300 ± 0.141 | 0.200–0.400 ")
    assert "1,000" in good
    assert "–" in poor.split("|")[9]


def test_all_models_of_the_table_were_tested_on_the_same_rows():
    last = models_table(ROWS).splitlines()[-1]
    assert "the same 90 of 92 rows" in last
    assert "`MoS2_a`, `MoS2_b`" in last
    assert models_table(ROWS.assign(left_out=np.nan)).endswith("the same 90 rows.")
    for column, value in (("n_test", 92), ("left_out", ""), ("data_fingerprint", "xyz")):
        other = ROWS.copy()
        other.loc[0, column] = value
        with pytest.raises(DefectkitError, match="different rows"):
            models_table(other)


def test_times_are_compared_with_those_of_the_hybrid():
    columns = {"hidden": 64, "n_params": 1000, "angles": 5.0}
    table = pd.DataFrame(
        {"model": ["hybrid", "alignn"], "train_ms": [2.0, 10.0], "infer_ms": [1.0, 3.0], **columns}
    )
    slow, fast = lines(throughput_table(table))[2:]
    assert slow == "| alignn | 64 | 1,000 | 5 | 10.0 | 3.0 | 5.0 and 3.0 |"
    assert fast.endswith("| 1.0 and 1.0 |")


def test_the_ladder_has_a_column_a_step():
    errors = {"eform_mae": [0.5, 1.0, 0.6, 2.0], "eform_mae_lo": 0.4, "eform_mae_hi": 2.5}
    table = pd.DataFrame(
        {"split": ["random", "host"] * 2, "model": ["hybrid"] * 2 + ["alignn"] * 2, **errors}
    )
    head, _, hybrid, alignn = lines(ladder_table(table))
    assert head == "| model | random | host |"
    assert hybrid == "| hybrid | 0.500 (0.400–2.500) | 1.000 (0.400–2.500) |"
    assert alignn.startswith("| alignn | 0.600")


def test_a_table_goes_between_its_marks(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "TABLES", {"models_demo": models_table})
    monkeypatch.setattr(pages, "PAGES", {})
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- models_demo -->\nold\n<!-- /models_demo -->\nafter\n")
    with pytest.raises(DefectkitError, match="bench models"):
        update(readme)
    (tmp_path / "data" / "benchmarks").mkdir(parents=True)
    ROWS.to_csv(tmp_path / "data" / "benchmarks" / "models_demo.csv", index=False)
    assert not update(readme, check=True)
    assert "old" in readme.read_text()
    assert not update(readme)
    text = readme.read_text()
    assert text.startswith("before\n<!-- models_demo -->\n| model ")
    assert text.endswith("<!-- /models_demo -->\nafter\n")
    assert update(readme)
    readme.write_text("no marks")
    with pytest.raises(DefectkitError, match="no place"):
        update(readme)
