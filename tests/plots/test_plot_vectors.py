"""Figures of vectors of elements: places, colours and marks are those of the numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from defectkit import plots
from defectkit.evaluation.vectors import components, known_vectors, nearest
from defectkit.plots import style

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def vectors():
    return known_vectors("elemental").iloc[2:40]


@pytest.mark.parametrize(
    ("z", "place"),
    [
        (1, (1, 1)),
        (2, (18, 1)),
        (6, (14, 2)),
        (42, (6, 5)),
        (57, (3, 8.5)),
        (72, (4, 6)),
        (92, (6, 9.5)),
        (118, (18, 7)),
    ],
)
def test_elements_stand_where_everybody_looks_for_them(z, place):
    assert plots.vectors.cell_of(z) == place


def test_no_two_elements_share_a_place():
    assert len({plots.vectors.cell_of(z) for z in range(1, 119)}) == 118


def test_a_table_colours_what_has_a_number_and_frames_what_is_marked():
    values = pd.Series({"Mo": 1.0, "S": -1.0})
    ax = plots.vectors.periodic_table(values, "a number", (-1, 1), {"S": style.ORANGE})
    cells = {
        tuple(np.round(p.get_xy(), 2) + 0.46): p for p in ax.patches if isinstance(p, Rectangle)
    }
    assert len(cells) == 118
    faces = {place: to_hex(p.get_facecolor()) for place, p in cells.items()}
    colours = plt.get_cmap(style.SIGNED)
    assert faces[6, 5] == to_hex(colours(1.0))
    assert faces[16, 3] == to_hex(colours(0.0))
    assert sum(face != "#ffffff" for face in faces.values()) == 2
    assert to_hex(cells[16, 3].get_edgecolor()) == style.ORANGE
    assert "a number" in style.describe(ax.figure)


def test_a_map_joins_an_element_to_its_neighbours(vectors):
    ax = plots.vectors.component_map(vectors, "S")
    near, (places, _) = nearest(vectors, "S"), components(vectors)
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2]
    ends = {tuple(np.round(line.get_xydata()[1], 6)) for line in lines}
    assert ends == {tuple(np.round(places.loc[x], 6)) for x in near.index}
    bold = {t.get_text().strip() for t in ax.texts if t.get_fontweight() == "bold"}
    assert bold == {"S", *near.index}
    assert len(plots.vectors.element_map(vectors, "S")) == 2


def test_probes_show_every_seed_and_the_mean():
    rows = [("a", 0, 0.2), ("a", 1, 0.4), ("b", 0, 0.9)]
    table = pd.DataFrame(rows, columns=["vectors", "seed", "score"])
    table = table.assign(test="probe", property="group", baseline=0.1)
    (ax,) = plots.vectors.probes(table)
    drawn = [line.get_xydata().tolist() for line in ax.lines]
    assert sorted(x for x, _ in drawn[0]) == [0.2, 0.4]
    assert np.allclose(drawn[1], [[0.3, 1], [0.9, 0]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["b", "a"]


def test_errors_have_intervals_and_the_mean_a_line():
    columns = ["vectors", "model", "mae", "mae_lo", "mae_hi"]
    rows = [
        ("", "mean", 0.5, 0.4, 0.6),
        ("a", "ridge", 0.3, 0.2, 0.5),
        ("b", "ridge", 0.4, 0.3, 0.6),
    ]
    ax = plots.vectors.errors(pd.DataFrame(rows, columns=columns), "error (eV)")
    (points, _, (bars,)) = ax.containers[0].lines
    assert points.get_xdata().tolist() == [0.3, 0.4]
    assert np.allclose([segment[:, 0] for segment in bars.get_segments()], [[0.2, 0.5], [0.3, 0.6]])
    assert any(np.allclose(line.get_xdata(), 0.5) for line in ax.lines)


def test_losses_over_epochs():
    metrics = pd.DataFrame(
        {
            "epoch": [0, 1],
            "train_element": [4.0, 3.5],
            "valid_element": [3.9, 3.6],
            "valid_groups_right": [0.5, 0.7],
            "valid_alike": [0.3, 0.3],
        }
    )
    left, right = plots.vectors.losses(metrics, 4.2)
    assert left.lines[1].get_xydata().tolist() == [[1, 3.9], [2, 3.6]]
    assert set(left.lines[2].get_ydata()) == {4.2}
    assert right.lines[0].get_ydata().tolist() == [0.5, 0.7]
    assert set(right.lines[1].get_ydata()) == {0.7}
