"""Values that cannot be are flagged, and those that can are not."""

import numpy as np
import pandas as pd
from ase import Atoms

from defectkit.sanity import RULES, flags, largest_moment


def found(table: pd.DataFrame, uid) -> set[str]:
    return set(table.columns[table.loc[uid] != ""])


def test_every_rule():
    predictions = pd.DataFrame(
        {"eform": [1.0, np.nan, 30.0, 1.0, 1.0], "spin": [1.0, 0.0, 0.0, -0.2, 20.0]}, list("abcde")
    )
    atoms = dict.fromkeys("abcde", Atoms("MoS2"))
    table = flags(predictions, (-2.0, 8.0), (0.0, 10.0), atoms)
    assert list(table) == list(RULES)
    assert found(table, "a") == set()
    assert found(table, "b") == {"no number"}
    assert found(table, "c") == {"extreme energy"}
    assert found(table, "d") == {"negative moment"}
    assert found(table, "e") == {"extreme moment", "impossible moment"}
    assert "-2.0 to 8.0 eV" in table.loc["c", "extreme energy"]


def test_values_at_the_edge_of_the_training_labels_pass():
    predictions = pd.DataFrame({"eform": [-2.9, 8.9], "spin": [10.5, 0.0]})
    assert (flags(predictions, (-2.0, 8.0), (0.0, 10.0)) == "").all(axis=None)


def test_electrons_limit_the_moment():
    assert largest_moment(Atoms("Cr")) == 6  # 3d5 4s1
    assert largest_moment(Atoms("Gd")) == 8  # 4f7 5d1
    assert largest_moment(Atoms("N")) == 3
    assert largest_moment(Atoms("MoS2")) == 6 + 2 * 3
