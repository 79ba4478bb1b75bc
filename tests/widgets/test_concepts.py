"""The apps of one concept: what they show against the library, axes that stay, links that set."""

from fractions import Fraction
from urllib.parse import parse_qsl

import numpy as np
import pandas as pd
import pytest
from torch_geometric.utils import k_hop_subgraph

from defectkit import DefectkitError
from defectkit.data.readers import demo_rows
from defectkit.data.sources import fetch
from defectkit.evaluation.metrics import interval, scores
from defectkit.explain import attention_maps, combine, seen_by
from defectkit.graphs.geometry import edge_vectors, lengths
from defectkit.predict.intervals import Conformal
from defectkit.training.pretrained import benchmark, shipped_run
from defectkit.widgets import concepts, lecture
from defectkit.widgets.lecture import APPS, page

pytestmark = pytest.mark.usefixtures("no_windows")
DRAWN = [name for name in APPS if name != "upload"]
_MADE = {}


@pytest.fixture
def app(request):
    """One app of each kind, as it opens: to make one takes longer than to look at it."""
    name = request.param
    if name not in _MADE:
        made = APPS[name]()
        _MADE[name] = made, lecture.link(name, made)
    made, first = _MADE[name]
    lecture.preset(made, dict(parse_qsl(first.removeprefix("?"))[1:]))
    return made


def of(name):
    return pytest.mark.parametrize("app", [name], indirect=True)


def frames(app):
    return [(ax.get_xlim(), ax.get_ylim(), ax.get_position().bounds) for ax in app._sheet.axes.flat]


def ends(control) -> list:
    """The values at both ends of a control."""
    if hasattr(control, "options"):
        values = [one[1] if isinstance(one, tuple) else one for one in control.options]
        return [values[0], values[-1]]
    return [control.min, control.max]


@pytest.mark.parametrize("app", [n for n in DRAWN if n != "attention"], indirect=True)
def test_every_control_changes_picture_and_words_and_no_axis(app):
    before = frames(app)
    for name, control in app.controls.items():
        seen = set()
        for value in ends(control):
            control.value = value
            assert frames(app) == before, name
            seen.add((bytes(app.picture.value), app.sentence.value))
        assert len(seen) == 2, f"{name} changes nothing"
    assert app.alt


@of("minimum-image")
def test_distances_are_those_of_all_images(app):
    steps = np.array([[i, j] for i in range(-3, 4) for j in range(-3, 4)])
    for angle, a, b in ((120, 0.45, 0.55), (90, 0.7, 0.2), (60, 0.3, 0.35)):
        for name, value in zip(("angle", "a", "b"), (angle, a, b)):
            app.controls[name].value = value
        cell = app.cell(angle)
        every = np.linalg.norm((steps + [a, b]) @ cell, axis=1)
        rounded = np.linalg.norm((np.array([a, b]) - np.rint([a, b])) @ cell)
        assert np.allclose(app.found, (rounded, every.min()))
        assert f"{every.min():.2f} Å" in app.sentence.value
    assert app.shares[app.ANGLES == 90] == 0
    # Of the hexagonal cell a sixth is nearer to another lattice point than to the rounded one.
    assert np.allclose(app.shares[[0, -1]], 1 / 6, atol=0.01)


@of("cutoff")
@pytest.mark.parametrize("cutoff", [2.5, 3.3, 6.0])
def test_hops_are_those_of_the_neighbourhoods(app, cutoff):
    graph = app.graph
    geometry = graph.pos, graph.cell, graph.edge_index, graph.edge_shift
    near = graph.edge_index[:, lengths(edge_vectors(*geometry)) <= cutoff]
    for layers in range(1, app.LAYERS + 1):
        heard = k_hop_subgraph(app.node, layers, near, num_nodes=graph.num_nodes)[0]
        far = concepts.hops(graph, app.node, cutoff)
        assert set(np.flatnonzero(far <= layers)) == set(heard.tolist())
    app.controls["cutoff"].value, app.controls["layers"].value = cutoff, app.LAYERS
    assert f"{len(heard)} of {graph.num_nodes} nodes" in app.sentence.value


@of("chain")
def test_weights_are_those_by_hand(app):
    by_hand = {
        "content": [Fraction(n, 8) for n in (1, 2, 1, 4)],
        "and distance": [Fraction(n, 13) for n in (4, 4, 1, 4)],
        "and kind": [Fraction(n, 17) for n in (4, 4, 1, 8)],
    }
    for name, weights in app.weights.items():
        assert np.allclose(weights, [float(w) for w in by_hand[name]]), name
    assert np.allclose(app.apart, [0, 1, 2, 2])  # D through the border of the cell
    app.controls["place"].value = 3.0
    assert np.isclose(app.apart[3], 3.0)


@of("intervals")
def test_intervals_are_those_of_the_library(app):
    rows = shipped_run("hybrid").part("test")
    for n in (20, 200):
        app.controls["rows"].value = n
        known, others = app.drawn
        assert (len(known), len(others)) == (n, len(rows) - n)
        assert not set(known.index) & set(others.index)
        errors = (known.eform_pred - known.eform).abs().to_numpy()
        assert np.allclose(app.means.loc[n], [errors.mean(), *interval(errors)])
        assert np.isclose(errors.mean(), scores(known)["eform_mae"])
        half = Conformal.fit(known).factor(0.9)
        inside = (others.eform - others.eform_pred).abs() <= half
        assert f"± {half:.2f} eV" in app.sentence.value
        assert f"{inside.mean():.0%} of the other {len(others)} rows" in app.sentence.value
    app.controls["rows"].value, app.controls["confidence"].value = 10, 95
    assert "95% takes 19 known rows at least" in app.sentence.value


@of("leakage")
def test_errors_are_those_that_were_measured(app):
    table = benchmark("leakage")
    app.controls["copies"].value, app.controls["rows"].value = 3, 200
    wanted = table[(table.copies == 3) & (table.n == 200)]
    means = wanted.groupby("protocol").eform_mae.mean()
    assert set(wanted.seed) == {0, 1, 2}
    for protocol in ("augment, then split", "split, then augment"):
        assert f"<b>{means[protocol]:.2f} eV</b>" in app.sentence.value
    assert "CHGNet" in app.sentence.value
    assert "of 6</b> test copies" in app.sentence.value  # a fifth of ten structures, three copies


@of("leakage")
def test_the_sketch_shows_a_trap_in_one_protocol_only(app):
    left = app._sheet.axes[0, 0]
    for copies in (2, 6):
        app.controls["copies"].value = copies
        sides = {}
        for drawn, side in zip(left.collections, ("training", "test") * 2):
            protocol = "trap" if len(sides) < 2 else "honest"
            sides[protocol, side] = set(drawn.get_offsets()[:, 0].tolist())
        assert sides["trap", "training"] & sides["trap", "test"]
        assert not sides["honest", "training"] & sides["honest", "test"]


@of("attention")
def test_scales_stay_from_head_to_head_and_weights_are_the_models(app):
    def scales():
        return app._sheet.axes[0, 1].get_ylim(), (app._sheet.bar.vmin, app._sheet.bar.vmax)

    first, shown = scales(), set()
    maps = attention_maps(app.model, app.graph)
    asking = np.flatnonzero(app.graph.is_defect.numpy())
    for head in range(maps.shape[1]):
        app.head.value = head
        assert scales() == first
        expected = seen_by(combine(maps, head=head), asking) * len(maps[0, 0])
        assert np.allclose(app.weights, expected, atol=1e-5)
        assert f"{expected.max():.1f} times" in app.sentence.value
        assert expected.max() <= first[1][1] + 1e-6
        shown.add(bytes(app.picture.value))
    assert len(shown) == maps.shape[1]
    app.view.value = lecture.SOLID
    assert app.children[-1] is app.place
    app.view.value = lecture.ABOVE
    assert app.children[-1] is app.picture


def test_some_rows_are_as_among_all(rows):
    uids = list(rows.frame.index[[5, 0]])
    some = demo_rows(fetch("demo"), uids)
    assert list(some.frame.index) == uids
    pd.testing.assert_frame_equal(some.frame, rows.frame.loc[uids])
    for uid in uids:
        assert some[uid].atoms == rows[uid].atoms
    for uid in ("nothing", "1", "id>0", ""):
        with pytest.raises(DefectkitError, match="no row with the id"):
            demo_rows(fetch("demo"), [uid])


@pytest.mark.parametrize("app", DRAWN, indirect=True)
def test_a_link_shows_the_view_again(app):
    name = next(key for key, (made, _) in _MADE.items() if made is app)
    for control in list(app.controls.values())[:3]:
        control.value = ends(control)[-1]
    link = lecture.link(name, app)
    head, again = page(link.removeprefix("?")).children
    assert {k: c.value for k, c in again.controls.items()} == {
        k: c.value for k, c in app.controls.items()
    }
    assert again.picture.value == app.picture.value
    assert lecture.PAGES[name][0] in head.value
    before = head.value
    control = next(iter(again.controls.values()))
    control.value = ends(control)[0]
    assert head.value != before, "the link does not follow"


def test_another_row_may_be_named():
    app = page("app=attention&row=As2_Cu_int0&head=1").children[1]
    assert app.structure.value == "As2_Cu_int0"
    assert app.head.value == 1


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "No page is called ''; there are minimum-image, cutoff"),
        ("app=<b>", "No page is called '&lt;b&gt;'"),
        ("app=chain&angle=3", "no control 'angle'; there are place, distance, kind"),
        ("app=chain&place=9", "place cannot be '9'; choose a number from 2.8 to 5.2"),
        ("app=chain&place=nan", "place cannot be 'nan'"),
        ("app=chain&place=", "place cannot be ''"),
        ("app=cutoff&layers=2.5", "layers cannot be '2.5'; choose a number from 1 to 5"),
        ("app=intervals&rows=7", "rows cannot be '7'; choose from 10, 20, 50"),
        ("app=attention&row=<i>", "no row with the id &lt;i&gt;"),
        ("app=upload&x=1", "no control 'x'; there are none"),
    ],
)
def test_what_is_wrong_in_a_link_is_told(query, said):
    head, told = page(query).children
    assert said in told.value.replace("&#x27;", "'")
    assert 'href="../../"' in head.value


def test_words_of_the_apps_fit_their_line():
    assert concepts.SHARP * concepts.SIZE[0] >= 1800, "blurred on a wide screen"
    assert concepts.LOOK["font.size"] / 72 * 1240 / concepts.SIZE[0] >= 20, "under 20 pixels"
