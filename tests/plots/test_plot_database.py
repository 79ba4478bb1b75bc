"""Figures: what is drawn and how it is labelled."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Circle

from defectkit import plots
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    n = 120
    return pd.DataFrame(
        {
            "host": rng.choice(["MoS2", "SnS2", "P4"], n),
            "dopant": rng.choice(["Fe", "Li", "O", ""], n),
            "defecttype": rng.choice(["adsorbate", "vacancy"], n),
            "eform": rng.normal(1, 2, n),
            "spin": rng.normal(0, 1, n),
        }
    )


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_periodic_table_shows_known_values_only():
    ax = plots.database.periodic_table(pd.Series({"Fe": 1.25, "Lu": -3.0, "O": 0.5}), "eV")
    assert {"1.2", "-3.0", "0.5"} <= set(texts(ax))
    assert sum("." in text for text in texts(ax)) == 3
    assert ax.figure.axes[1].get_ylabel() == "eV"


def test_every_element_has_a_place_of_its_own():
    ax = plots.database.periodic_table(pd.Series({"H": 0.0, "He": 1.0}), "")
    corners = [(round(p.get_x(), 2), round(p.get_y(), 2)) for p in ax.patches]
    assert len(corners) == len(set(corners)) == 103


def test_types_are_named_with_their_counts(frame):
    ax = plots.database.eform_by_type(frame)
    counts = frame.defecttype.value_counts()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{kind}\n({counts[kind]} rows)" for kind in ("adsorbate", "vacancy")]
    assert "eV" in ax.get_xlabel()


def test_host_dopant_map_leaves_out_rows_without_dopant(frame):
    ax = plots.database.host_dopant_map(frame)
    assert {t.get_text() for t in ax.get_xticklabels()} == {"Fe", "Li", "O"}
    assert {t.get_text() for t in ax.get_yticklabels()} == {"MoS2", "SnS2", "P4"}


def test_spin_by_dopant_orders_by_mean_moment(frame):
    frame.loc[frame.dopant == "Fe", "spin"] -= 5  # sign does not count
    ax = plots.database.spin_by_dopant(frame, top=2)
    assert ax.get_xticklabels()[0].get_text() == "Fe"
    assert len(ax.get_xticklabels()) == 2


def test_rows_with_two_dopants_count_for_both(frame):
    frame.loc[:5, "dopant"] = "Se,W"
    assert set(plots.database.each_dopant(frame).dopant) == {"Fe", "Li", "O", "Se", "W"}
    maps = (plots.database.host_dopant_map, plots.database.spin_by_dopant)
    labels = [{t.get_text() for t in draw(frame).get_xticklabels()} for draw in maps]
    assert labels == 2 * [{"Fe", "Li", "O", "Se", "W"}]


def test_types_in_the_users_own_words_are_drawn_and_unnamed_ones_left_out(frame):
    frame.loc[:9, "defecttype"] = "antisite"
    frame.loc[10:19, "defecttype"] = ""
    labels = [
        t.get_text().split("\n")[0] for t in plots.database.eform_by_type(frame).get_yticklabels()
    ]
    assert labels == ["adsorbate", "vacancy", "antisite"]


def test_traps_are_drawn_for_the_columns_that_hold_numbers(frame):
    nothing = frame.assign(conv1=np.nan, conv2=np.nan, extension_factor=np.nan)
    assert list(plots.database.traps(nothing)) == ["a"]
    assert list(plots.database.traps(nothing.assign(conv1=0.1, conv2=0.2))) == ["a", "b"]
    assert plots.database.traps(nothing.assign(eform=np.nan)) == {}
    known = nothing.assign(extension_factor=1.5, eform=25.0)
    axes = plots.database.traps(known)
    assert list(axes) == ["a", "c"]
    heights = {k: sum(bar.get_height() for bar in ax.patches) for k, ax in axes.items()}
    assert heights == {"a": len(frame), "c": len(frame)}


def test_stages_are_drawn_where_both_energies_are_known(frame):
    assert plots.database.stages(frame.assign(en1=-9.0, en2=np.nan)) == []
    rise = pd.Series(-0.1, frame.index)
    rise[:3] = [13.7, 0.4, 1.1]
    known = frame.assign(en1=-100.0, en2=-100.0 + rise)
    axes = plots.database.stages(known)
    assert [ax.get_xlabel() for ax in axes] == [plots.database.EFORM, "|magnetic moment (μB)|"]
    assert "en2 − en1 (eV)" in axes[0].get_ylabel()
    points, diamonds, bound = axes[0].lines
    assert sorted(diamonds.get_ydata().round(1)) == [1.1, 13.7]
    assert len(points.get_ydata()) == len(frame) - 2
    assert set(bound.get_ydata()) == {1.0}
    words = plots.style.describe(axes[0].figure)
    assert f"below the bound ({len(frame) - 2}), above the bound (2)" in words
    assert len(plots.database.stages(known.assign(spin=np.nan))) == 1


def test_a_series_stands_in_order_with_its_names_and_the_bound_where_it_is_near():
    ax = plots.database.series(pd.Series({"Xe": 23.0, "Zr": 11.0, "Co": 19.0}), "dopants")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["Zr", "Co", "Xe"]
    assert list(ax.lines[0].get_ydata()) == [11.0, 19.0, 23.0]
    assert len(ax.lines) == 2
    assert len(plots.database.series(pd.Series({"Xe": 2.0}), "dopants").lines) == 1


def test_two_views_ring_the_defect():
    unit = HOSTS["MoS2"].unit_cell()
    site = next(s for s in find_sites(unit) if s.name == "ads0")
    atoms = make_defect(unit, (3, 3, 1), site, "Fe").atoms
    vacancy = [[1.0, 2.0, 3.0]]
    for ax, columns in zip(
        plots.database.two_views(atoms, [27], "title", vacancy), ([0, 1], [0, 2])
    ):
        centres = [patch.center for patch in ax.patches if isinstance(patch, Circle)]
        assert np.allclose(centres, [atoms.positions[27][columns], np.array(vacancy)[0][columns]])
        assert "Å" in ax.get_xlabel()
        assert "Å" in ax.get_ylabel()


def test_waterfall_writes_the_numbers():
    table = pd.DataFrame({"rule": ["a", "b"], "removed": [10, 0], "left": [90, 90]})
    assert [text.strip() for text in texts(plots.database.waterfall(table, 100))] == [
        "100",
        "90  (−10)",
        "90",
    ]


def test_route_has_one_box_a_station():
    assert len(texts(plots.database.route())) == 2 * len(plots.database.ROUTE)


def test_figures_for_print_are_png_and_svg_with_letters(tmp_path):
    figure = plots.database.waterfall(
        pd.DataFrame({"rule": ["a"], "removed": [1], "left": [9]}), 10
    ).figure
    png, svg = plots.style.save(figure, tmp_path / "new" / "figure 1.5 eV")
    assert (png.name, svg.name) == ("figure 1.5 eV.png", "figure 1.5 eV.svg")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<text" in svg.read_text()
