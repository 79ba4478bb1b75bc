"""Widgets that look inside: what they show, colour and link; drawn pictures and no browser.

In a browser they are drawn by the notebooks that use them.
"""

import base64
import sys
from dataclasses import replace
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from model_cases import small_model

from defectkit.data import Dataset
from defectkit.explain import attention_maps
from defectkit.graphs import GraphConfig, build_graph
from defectkit.plots import style
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.record import DefectRecord
from defectkit.widgets import (
    AttentionExplorer,
    CutoffExplorer,
    DatabaseBrowser,
    HeadGallery,
    StructureView,
    picture,
)

pytestmark = pytest.mark.usefixtures("no_windows", "double_precision")
CONFIG = GraphConfig(cutoff=4.7, angle_cutoff=None)
UNIT = HOSTS["MoS2"].unit_cell()


def record(name: str, dopant: str = "", **fields) -> DefectRecord:
    site = next(s for s in find_sites(UNIT) if s.name == name)
    atoms = make_defect(UNIT, (3, 3, 1), site, dopant).atoms
    kind = {"vac": "vacancy", "ads": "adsorbate", "sub": "substitution"}[name[:3]]
    return DefectRecord(
        uid=f"MoS2_{dopant or 'X'}_{name}",
        atoms=atoms,
        host="MoS2",
        label_source="test",
        dopant=dopant,
        defecttype=kind,
        **fields,
    )


def graph_of(one: DefectRecord, config: GraphConfig = CONFIG):
    import torch

    return build_graph(one, config, UNIT, dtype=torch.float64)


def ghosts(shown: list[dict]) -> list[dict]:
    """What is drawn of vacancies: balls, then their rims."""
    return [s for s in shown if s["type"] == "spacefill" and s.get("radiusType") == "size"]


@pytest.fixture
def vacancy():
    return graph_of(record("vac1"))


@pytest.fixture
def without_nglview(monkeypatch):
    monkeypatch.setitem(sys.modules, "nglview", None)


def representations(view: StructureView) -> list[dict]:
    """What the 3D view was told last."""
    sent = view.view._ngl_msg_archive
    last = max(k for k, m in enumerate(sent) if m["methodName"] == "removeAllRepresentations")
    added = [m for m in sent[last:] if m["methodName"] == "addRepresentation"]
    return [{"type": m["args"][0], **m["kwargs"]} for m in added]


def atoms_of(shown: dict) -> list[int]:
    return [int(k) for k in shown["sele"][1:].split(",")]


def test_atoms_have_the_colour_of_their_value(vacancy):
    values = np.zeros(len(vacancy.z))
    values[[2, 7]] = 1.0
    view = StructureView(vacancy, values, "eV")
    shown = representations(view)
    coloured = {s["color"]: atoms_of(s) for s in shown if s.get("radiusScale") == 0.45}
    assert [2, 7] in coloured.values()
    assert len(coloured) == 2
    assert sum(map(len, coloured.values())) == int((~vacancy.is_vacancy).sum())
    ghost, rim = ghosts(shown)
    assert rim["color"] == style.DEFECT
    assert ghost["color"] in coloured
    assert atoms_of(ghost) == atoms_of(rim) == vacancy.is_vacancy.nonzero()[:, 0].tolist()
    assert not any("opacity" in s for s in shown), "mixed colours are not on the scale"
    # A rim lies around what it marks: its own front is not drawn.
    assert (rim["side"], rim["radiusSize"] > ghost["radiusSize"]) == ("back", True)
    assert view.legend.value.startswith("0 <span")
    assert view.legend.value.endswith("1 &nbsp;eV")


def test_a_value_that_is_not_known_has_no_colour_of_the_scale(vacancy):
    values = np.ones(len(vacancy.z))
    values[vacancy.is_vacancy.numpy()] = np.nan
    view = StructureView(vacancy, values, "Å", limits=(0, 2))
    assert ghosts(representations(view))[0]["color"] == style.VACANCY


def test_a_click_on_an_atom_reads_its_value(vacancy):
    view = StructureView(vacancy, np.arange(len(vacancy.z), dtype=float), "eV")
    view.view.picked = {"atom1": {"index": 4}}
    assert view.selected == 4
    assert "node 4, host" in view.reading.value
    assert "eV: 4" in view.reading.value


def test_a_click_on_a_ghost_says_what_is_missing(vacancy):
    view = StructureView(vacancy)
    view.view.picked = {"atom1": {"index": len(vacancy.z) - 1}}
    assert "vacancy (S is missing)" in view.reading.value
    view.view.picked = {}  # a click beside all atoms
    assert view.selected == len(vacancy.z) - 1


def test_the_picture_goes_when_the_view_stands(vacancy):
    view = StructureView(vacancy, np.ones(len(vacancy.z)), "eV")
    assert view.picture.layout.display != "none"
    view.view.loaded = True
    assert view.picture.layout.display == "none"
    assert view.legend.layout.display != "none"


def test_without_nglview_the_picture_is_the_view(vacancy, without_nglview):
    view = StructureView(vacancy, np.ones(len(vacancy.z)), "eV")
    assert view.view is None
    assert view.children == (view.picture, view.reading)
    before = bytes(view.picture.value)
    view.colour(np.arange(len(vacancy.z)), "eV")
    assert bytes(view.picture.value) != before


def shown_by(widget, monkeypatch) -> list[tuple[dict, dict]]:
    """Data and metadata of the outputs that a notebook keeps of a widget."""
    kept = []

    def display(data, metadata=None, raw=False):
        assert raw
        kept.append((data, metadata or {}))

    monkeypatch.setattr(picture, "display", display)
    widget._ipython_display_()
    return kept


def test_a_notebook_keeps_widget_style_and_picture(vacancy, monkeypatch):
    (widget, _), (line, _), (png, about) = shown_by(StructureView(vacancy), monkeypatch)
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert widget["text/plain"] == "", "pages would show the words"
    assert picture.STILL in line["text/html"]
    assert base64.b64decode(png["image/png"]).startswith(b"\x89PNG")
    assert "x (Å)" in about["image/png"]["alt"]


def test_a_widget_without_picture_keeps_a_sentence(browser, monkeypatch):
    outputs = shown_by(browser, monkeypatch)
    assert len(outputs) == 2
    assert "run the cell" in outputs[1][0]["text/html"]


@pytest.fixture
def explorer(vacancy):
    model = small_model("hybrid", CONFIG)
    return AttentionExplorer(model, [vacancy, graph_of(record("sub0", "W"))])


def test_explorer_shows_the_weights_that_are_chosen(explorer, vacancy):
    n = len(vacancy.z)
    maps = attention_maps(explorer.model, vacancy)
    asking = vacancy.is_defect.nonzero()[:, 0].numpy()
    assert np.allclose(explorer.weights, maps.mean(axis=(0, 1))[asking].mean(axis=0) * n)
    before = bytes(explorer.picture.value)
    explorer.head.value = 1
    assert np.allclose(explorer.weights, maps[:, 1].mean(axis=0)[asking].mean(axis=0) * n)
    assert bytes(explorer.picture.value) != before
    explorer.query.value = 5
    assert np.allclose(explorer.weights, maps[0, 1, 5] * n)
    assert np.allclose(explorer.crystal.values, explorer.weights)


def test_a_click_lets_an_atom_ask(explorer):
    explorer.crystal.view.picked = {"atom1": {"index": 3}}
    assert explorer.query.value == 3


def test_where_only_the_defect_asks_nobody_else_can_be_chosen():
    config = replace(CONFIG, pair_nodes="defects")
    graph = graph_of(record("vac0"), config)
    explorer = AttentionExplorer(small_model("hybrid", config), [graph])
    able = graph.is_defect.nonzero()[:, 0].tolist()
    assert [value for _, value in explorer.query.options] == [-1, *able]
    explorer.crystal.view.picked = {"atom1": {"index": 0}}
    assert explorer.query.value == -1


def test_another_structure_starts_anew(explorer):
    explorer.query.value = 4
    first = explorer.crystal
    explorer.structure.value = "MoS2_W_sub0"
    assert explorer.query.value == -1
    assert explorer.crystal is not first
    assert len(explorer.weights) == len(explorer.graph.z)
    assert explorer.place.children == (explorer.crystal,)
    assert plt.get_fignums() == []


def test_explorer_works_without_nglview(without_nglview, vacancy):
    explorer = AttentionExplorer(small_model("hybrid", CONFIG), [vacancy])
    assert explorer.place.children == ()
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")


def test_gallery_follows_the_structure(vacancy):
    gallery = HeadGallery(small_model("hybrid", CONFIG), [vacancy, graph_of(record("sub0", "W"))])
    before = bytes(gallery.picture.value)
    gallery.structure.value = "MoS2_W_sub0"
    assert bytes(gallery.picture.value) != before


@pytest.fixture
def browser():
    records = [
        record("vac1", eform=2.0),
        record("sub0", "W", eform=0.5),
        record("ads0", "Li", eform=-1.0),
    ]
    moved = records[1].atoms.positions + [0, 0, 0.25]
    records[1] = record("sub0", "W", eform=0.5, unrelaxed=moved)
    return DatabaseBrowser(Dataset("test", "test", records, {"MoS2": UNIT}))


def test_browser_filters_rows(browser):
    assert len(browser.rows.options) == 3
    assert browser.count.value == "3 of 3 rows"
    browser.filters["dopant"].value = "W"
    assert browser.found.index.tolist() == ["MoS2_W_sub0"]
    browser.filters["dopant"].value = "any"
    browser.energy.value = (0.0, 2.0)
    assert set(browser.found.index) == {"MoS2_X_vac1", "MoS2_W_sub0"}
    browser.filters["defecttype"].value = "adsorbate"
    assert browser.count.value == "0 of 3 rows"


def test_browser_shows_the_row_that_is_clicked(browser):
    assert browser.crystal is None  # nothing was clicked yet
    browser.rows.value = "MoS2_W_sub0"
    assert np.allclose(browser.crystal.values, 0.25)
    assert browser.place.children[1:] == (browser.crystal,)
    browser.rows.value = "MoS2_X_vac1"
    assert browser.crystal.values is None
    browser.rows.value = None
    assert browser.place.children == ()


def test_the_list_speaks_the_language_of_the_filters(browser):
    labels = [label for label, _ in browser.rows.options]
    assert labels[1] == "MoS2   W   substitution   0.50 eV"
    for name, control in browser.filters.items():
        values = set(control.options) - {"any"}
        assert all(any(v in label for v in values) for label in labels if name == "host")


@pytest.mark.parametrize(
    ("energies", "shown", "low", "high"),
    [
        ([], False, 0, 1),
        ([np.nan, np.nan], False, 0, 1),
        ([np.inf, -np.inf], False, 0, 1),
        ([2.0], True, 2, 3),
        ([2.0, 2.0, 2.0], True, 2, 3),
        ([0.4], True, 0, 1),
        ([-1.5, np.nan, np.inf, 3.2], True, -2, 4),
    ],
)
def test_a_slider_has_finite_ends_whatever_the_energies(energies, shown, low, high):
    base = record("vac1")
    rows = [replace(base, uid=str(k), eform=energy) for k, energy in enumerate(energies)]
    browser = DatabaseBrowser(Dataset("test", "test", rows, {"MoS2": UNIT}))
    assert (browser.energy.min, browser.energy.max) == (low, high)
    assert (browser.energy.layout.display != "none") == shown
    assert browser.count.value == f"{len(rows)} of {len(rows)} rows"
    if shown:
        browser.energy.value = (high - 0.1, high)  # rows without an energy stay
        unknown = sum(not np.isfinite(e) for e in energies)
        assert len(browser.found) == unknown


HOSTILE = [
    '<img src=x onerror="alert(1)">',
    "</select><script>alert(1)</script>",
    "$x^2$",
    r"a_b^c\frac{1}{0}$",
    "\x1b[31mred\x07\n\u202eevil",
    "x" * 3000,
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:20]))
def test_names_from_data_are_text_in_widgets(name):
    fine, broken = record("vac1", eform=1.0), record("sub0", "W", eform=2.0)
    broken = replace(broken, uid=name, name=name, atoms=broken.atoms[:0], site=name)
    data = Dataset("test", "test", [fine, broken], {"MoS2": UNIT})
    browser = DatabaseBrowser(data)
    browser.rows.value = name
    for widget in browser.place.children:
        assert_harmless(widget.value)
        assert widget.layout.overflow == "auto hidden"
    drawn = replace(fine, uid=name, name=name)
    browser = DatabaseBrowser(Dataset("test", "test", [drawn], {"MoS2": UNIT}))
    browser.rows.value = name
    assert_harmless(browser.place.children[0].value)


def assert_harmless(value: str) -> None:
    """Of a name, only text is left: no markup but ours, no control characters, no formula."""
    assert "<img" not in value
    assert "<script" not in value
    assert all(c.isprintable() for c in value)
    assert "$" not in value or "mathjax_ignore" in value


def test_the_frame_of_the_cutoff_explorer_stands_still(vacancy, monkeypatch):
    frames = []
    draw = CutoffExplorer.paint
    monkeypatch.setattr(
        CutoffExplorer,
        "paint",
        lambda self, figure: (frames.append(figure.axes[0].axis()), draw(self, figure)),
    )
    explorer = CutoffExplorer(vacancy, 0, 4.5)
    before = bytes(explorer.picture.value)
    explorer.slider.value = 4.4
    assert len(set(frames)) == 1
    assert bytes(explorer.picture.value) != before


def test_a_sheet_shows_what_a_new_drawing_would(explorer):
    explorer.head.value = 1
    explorer.query.value = 5
    explorer.query.value = 7
    shown = plt.imread(BytesIO(explorer.picture.value))
    sheet = explorer._sheet
    sheet.canvas.draw()
    anew = np.asarray(sheet.canvas.buffer_rgba()) / 255
    assert shown.shape == anew.shape
    assert np.abs(shown - anew).mean() < 0.002  # legends and ticks may lie over or under points


def test_frames_are_drawn_once_a_structure(explorer, monkeypatch):
    drawn = []
    canvas = explorer._sheet.canvas
    whole = canvas.draw
    monkeypatch.setattr(canvas, "draw", lambda: (drawn.append(1), whole()))
    for head in (0, 1):
        explorer.head.value = head
    assert drawn == []
    explorer.structure.value = "MoS2_W_sub0"
    assert len(drawn) <= 1
