"""Attention and attribution: small cases whose answer is known by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from ase import Atoms
from model_cases import CONFIG, graph_of, known_defect, small_model
from torch import nn

from defectkit import DefectkitError, explain
from defectkit.explain.attribution import silenced
from defectkit.graphs import GraphConfig, build_graph
from defectkit.graphs.periodic import minimum_image
from defectkit.models.parts import Output
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.structures.record import DefectRecord, SiteKind
from defectkit.training.config import ModelConfig
from defectkit.training.inference import ModelCard

pytestmark = pytest.mark.usefixtures("double_precision")
LENGTH = 2.5  # Å


@pytest.fixture
def graph():
    """A W on a Mo site, a missing S and a Li on top."""
    return graph_of(*(known_defect()[0], CONFIG, known_defect()[1]))


@pytest.fixture
def vacancy():
    """One S missing in MoS2, nothing moved."""
    unit = HOSTS["MoS2"].unit_cell()
    site = next(s for s in find_sites(unit) if s.name == "vac1")
    atoms = make_defect(unit, (4, 4, 1), site, "").atoms
    return build_graph(atoms, CONFIG, unit, dtype=torch.float64)


class Decaying(nn.Module):
    """Attention that is exp(-d / LENGTH), by the nearest image."""

    def attention(self, graph):
        _, d = minimum_image(graph.pos.numpy(), graph.cell[0].numpy(), [True, True, False])
        weight = np.exp(-d / LENGTH)
        return [torch.tensor(weight / weight.sum(axis=1, keepdims=True))[None]]


class Chosen(nn.Module):
    """The sum of what the first two nodes are told about themselves, times a height."""

    def __init__(self):
        super().__init__()
        self.inputs = Given()

    def forward(self, graph):
        x = self.inputs(graph)
        starts = (graph.ptr[:-1] if "ptr" in graph else torch.tensor([0])).long()
        energy = 2 * x[starts, 0] + graph.pos[starts + 1].square().sum(dim=1)
        return Output(energy, energy)


class Given(nn.Module):
    def forward(self, graph):
        return graph.z[:, None].to(graph.pos.dtype)


# Where nodes lie


def test_a_vacancy_in_mos2_has_three_neighbours(vacancy):
    table = explain.node_table(vacancy)
    assert table.symbol.tolist()[-1] == "V_S"
    assert table.kind.tolist()[-1] == "vacancy"
    assert table.defect.sum() == 1
    near = table[table["shell"] == 1]
    assert near.symbol.tolist() == ["Mo"] * 3
    lengths = np.linalg.norm(near[["dx", "dy", "dz"]], axis=1)
    assert np.allclose(lengths, near.distance)
    # The three directions are 120° apart.
    turns = np.sort(near.direction) - np.sort(near.direction)[0]
    assert np.allclose(turns, [0, 2 * np.pi / 3, 4 * np.pi / 3])


def test_distances_lead_to_the_nearest_image_and_the_nearest_centre():
    atoms = Atoms("C3", [[0.5, 0, 0], [9.5, 0, 0], [4.0, 3.0, 0]], cell=[10, 20, 30], pbc=True)
    table = explain.node_table(
        build_graph(atoms, GraphConfig(cutoff=3.0, angle_cutoff=None)), centre=[0]
    )
    assert np.allclose(table.distance, [0, 1, np.hypot(3.5, 3)])
    assert np.allclose(table.loc[1, ["dx", "dy"]].astype(float), [-1, 0])
    assert table.inside.tolist() == [True, True, True]
    two = explain.node_table(
        build_graph(atoms, GraphConfig(cutoff=3.0, angle_cutoff=None)), centre=[0, 2]
    )
    assert np.allclose(two.distance, [0, 1, 0])


def test_a_pristine_structure_and_a_batch_are_refused(graph):
    plain = build_graph(HOSTS["MoS2"].unit_cell(), CONFIG)
    with pytest.raises(DefectkitError, match="has no defect; name a centre"):
        explain.node_table(plain)
    from torch_geometric.data import Batch

    with pytest.raises(DefectkitError, match="one by one"):
        explain.node_table(Batch.from_data_list([graph, graph]))


# One matrix from many


def test_means_are_taken_over_what_is_asked_for():
    maps = np.arange(2 * 3 * 2 * 2, dtype=float).reshape(2, 3, 2, 2)
    assert np.allclose(explain.combine(maps), maps.mean(axis=(0, 1)))
    assert np.allclose(explain.combine(maps, layer=1), maps[1].mean(axis=0))
    assert np.allclose(explain.combine(maps, layer=1, head=2), maps[1, 2])
    assert np.allclose(explain.combine(maps, head=0), maps[:, 0].mean(axis=0))


def test_rollout_of_identity_is_identity():
    maps = np.tile(np.eye(4), (3, 2, 1, 1))
    assert np.allclose(explain.combine(maps, "rollout"), np.eye(4))


def test_rollout_by_hand():
    first = [[0.0, 1.0], [0.0, 1.0]]  # both look at node 1
    second = [[0.0, 1.0], [1.0, 0.0]]  # each looks at the other
    maps = np.array([[first], [second]])
    # (I + A2) / 2 @ (I + A1) / 2
    expected = np.array([[0.5, 0.5], [0.5, 0.5]]) @ np.array([[0.5, 0.5], [0.0, 1.0]])
    result = explain.combine(maps, "rollout")
    assert np.allclose(result, expected)
    assert np.allclose(result, [[0.25, 0.75], [0.25, 0.75]])


def test_who_asks():
    matrix = np.array([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.0, 0.0, 1.0]])
    assert np.allclose(explain.seen_by(matrix, [0]), [0.5, 0.5, 0.0])
    assert np.allclose(explain.seen_by(matrix, [0, 1]), [0.3, 0.3, 0.4])
    assert np.allclose(explain.seen_by(matrix), [0.2, 0.2, 0.6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "sum"}, "not combined by 'sum'"),
        ({"how": "rollout", "head": 0}, "Rollout takes all"),
        ({"layer": 1}, "no layer 1; they count from 0 to 0"),
        ({"head": -1}, "no head -1"),
    ],
)
def test_other_combinations_are_refused(arguments, message):
    with pytest.raises(DefectkitError, match=message):
        explain.combine(np.ones((1, 2, 3, 3)) / 3, **arguments)


def test_models_without_attention_say_so(graph):
    for model in (small_model("cgcnn"), small_model("hybrid", global_layers=0)):
        with pytest.raises(DefectkitError, match="no attention"):
            explain.attention_maps(model, graph)


def test_attention_of_a_real_model_sums_to_one_over_a_structure(graph):
    table = explain.attention_table(small_model("hybrid"), [graph, graph])
    assert len(table) == 2 * len(graph.z)
    assert table.weight.sum() == pytest.approx(2)
    assert table.relative.mean() == pytest.approx(1)
    everyone = explain.attention_table(small_model("hybrid"), [graph], query="all")
    assert everyone.weight.sum() == pytest.approx(1)
    assert not np.allclose(everyone.weight, table.weight[: len(graph.z)])


def test_untrained_has_other_weights_and_the_same_tables(graph):
    model = small_model("hybrid", seed=3)
    settings = {"hidden": 16, "local_layers": 2, "global_layers": 1, "attention_heads": 2}
    settings |= {"radial": 10, "angular_cutoff": 3.5}
    card = ModelCard(
        ModelConfig("hybrid", settings), CONFIG, (), "demo", "test", "", "", (0, 1), (0, 1)
    )
    before = torch.get_rng_state()
    fresh, again = explain.untrained(model, card, 7), explain.untrained(model, card, 7)
    assert torch.equal(before, torch.get_rng_state())
    maps = [explain.attention_maps(m, graph) for m in (model, fresh, again)]
    assert np.array_equal(maps[1], maps[2])
    assert not np.allclose(maps[0], maps[1])
    assert torch.equal(fresh.heads.eform_scale, model.heads.eform_scale)
    assert torch.equal(fresh.inputs.features, model.inputs.features)


def test_attention_without_any_score_is_uniform(graph):
    model = small_model("hybrid")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flat = explain.without(model, "content", "phi", "psi")
    assert np.allclose(explain.attention_maps(flat, graph), 1 / len(graph.z))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    kinds = explain.without(model, "content", "phi")
    rows = explain.attention_maps(kinds, graph)[0, 0]
    host = (graph.site_kind == SiteKind.HOST).numpy()
    assert np.ptp(rows[np.ix_(host, host)]) < 1e-12  # only kinds are told apart
    assert np.ptp(rows) > 1e-3
    with pytest.raises(DefectkitError, match="no part"):
        explain.without(model, "theta")


# What the prediction depends on


def test_occluding_what_nothing_depends_on_changes_nothing(graph):
    for how in ("mask", "mean"):
        change = explain.occlusion(Chosen(), graph, how)
        assert np.allclose(change[1:], 0)
    # Node 0 is a W; its input becomes the mean atomic number of the host's atoms.
    host = graph.z[~graph.is_defect].double().mean().item()
    assert change[0] == pytest.approx(2 * (host - 74))


def test_a_silenced_node_is_not_heard(graph):
    node = int(graph.is_vacancy.nonzero()[0])
    quiet = silenced(graph, node)
    assert (quiet.edge_index[0] != node).all()
    assert len(quiet.edge_shift) == quiet.edge_index.shape[1]
    assert quiet.angle_index.max() < quiet.edge_index.shape[1]
    assert (quiet.edge_index[1, quiet.angle_index].diff(dim=0) == 0).all()
    weights = explain.attention_maps(small_model("hybrid"), quiet)
    others = np.arange(len(graph.z)) != node
    assert np.all(weights[..., others, node] == 0)
    assert np.allclose(weights.sum(axis=-1), 1)
    assert (graph.edge_index[0] == node).any()  # the graph given stays as it was


@pytest.mark.parametrize("how", ["mask", "mean"])
def test_occlusion_in_batches_equals_one_at_a_time(graph, how, monkeypatch):
    model = small_model("hybrid")
    together = explain.occlusion(model, graph, how)
    monkeypatch.setattr("defectkit.explain.attribution.BATCH", 1)
    assert np.allclose(explain.occlusion(model, graph, how), together, atol=1e-10)
    assert np.abs(together).max() > 1e-6


def test_silencing_in_a_model_that_hears_nothing_changes_nothing(graph):
    deaf = small_model("hybrid", local_layers=0, global_layers=0)
    assert np.allclose(explain.occlusion(deaf, graph), 0)


def test_gradients_by_hand(graph):
    table = explain.gradients(Chosen(), graph)
    assert table.gradient[1] == pytest.approx(2 * graph.pos[1].norm().item())
    assert np.allclose(table.gradient.drop(1), 0)
    assert table.input_gradient[0] == pytest.approx(2 * 74)
    assert np.allclose(table.input_gradient[1:], 0)
    assert not graph.pos.requires_grad


def test_models_of_other_kinds_are_refused(graph):
    with pytest.raises(DefectkitError, match="no module `inputs`"):
        explain.gradients(Decaying(), graph)


def record_of(graph, **fields) -> DefectRecord:
    atoms = known_defect()[0]
    return DefectRecord(uid=graph.uid, atoms=atoms, host="MoS2", label_source="test", **fields)


def test_relaxation_goes_by_the_nearest_image(graph):
    atoms = known_defect()[0]
    unrelaxed = atoms.positions.copy()
    unrelaxed[2] += [0.3, 0.0, 0.4]
    unrelaxed[5] += atoms.cell[0] + atoms.cell[1]  # the same place
    moved = explain.relaxation(record_of(graph, unrelaxed=unrelaxed))
    expected = np.zeros(len(atoms))
    expected[2] = 0.5
    assert np.allclose(moved, expected)
    with pytest.raises(DefectkitError, match="no unrelaxed"):
        explain.relaxation(record_of(graph))


def test_all_scores_stand_side_by_side(graph):
    unrelaxed = known_defect()[0].positions + [0.0, 0.0, 0.2]
    record = record_of(graph, unrelaxed=unrelaxed, defecttype="complex")
    table = explain.score_table(small_model("hybrid"), [graph], {graph.uid: record})
    scores = list(explain.attribution.SCORES)
    assert (table[scores].drop(columns="relaxation") >= 0).all(axis=None)
    assert table.relaxation.isna().tolist() == graph.is_vacancy.tolist()
    assert np.allclose(table.relaxation.dropna(), 0.2)
    assert set(table.defecttype) == {"complex"}


# Is it physics?


def test_the_decay_length_of_a_known_attention_comes_back(vacancy):
    table = explain.attention_table(Decaying(), [vacancy])
    fit = explain.decay_length(table)
    assert fit["length"] == pytest.approx(LENGTH, rel=1e-3)
    assert fit["floor"] == pytest.approx(0, abs=1e-3)
    assert fit["r2"] == pytest.approx(1, abs=1e-6)
    assert fit["near"] > fit["far"] > 0
    assert np.isnan(fit["lo"])  # one structure has no interval


def noisy(rng, structures=20, atoms=40, length=2.0) -> pd.DataFrame:
    d = rng.uniform(2, 10, (structures, atoms))
    score = 5 * np.exp(-d / length) + 0.5 + 0.02 * rng.normal(size=d.shape)
    return pd.DataFrame(
        {
            "uid": np.repeat([f"s{k}" for k in range(structures)], atoms),
            "distance": d.ravel(),
            "defect": False,
            "relative": score.ravel(),
            "defecttype": np.repeat(["a", "b"], structures * atoms // 2),
        }
    )


def test_the_interval_holds_the_truth_and_is_narrow():
    table = noisy(np.random.default_rng(1))
    fit = explain.decay_length(table, resamples=50)
    assert fit["lo"] < 2.0 < fit["hi"]
    assert fit["hi"] - fit["lo"] < 0.5
    assert fit["settled"]
    assert fit["floor"] == pytest.approx(0.5, abs=0.05)
    both = explain.decay_lengths(table, "defecttype", resamples=0)
    assert both.index.tolist() == ["a", "b"]
    assert both.length.tolist() == pytest.approx([2.0, 2.0], abs=0.3)


@pytest.mark.parametrize("score", [np.ones(6), np.full(6, np.nan)])
def test_no_curve_is_no_error(score):
    table = pd.DataFrame(
        {"uid": "a", "distance": np.arange(6.0), "defect": False, "relative": score}
    )
    fit = explain.decay_length(table)
    assert np.isnan(fit["length"])
    assert not fit["settled"]


def test_shares_by_hand():
    table = pd.DataFrame({"uid": "a", "shell": [0, 1, 1, 2, 2], "score": [4.0, 2.0, 1.0, 1.0, 2.0]})
    row = explain.shares(table, "score").loc["a"]
    assert row[["defect", "first_shell", "near"]].tolist() == pytest.approx([0.4, 0.3, 0.7])
    assert row["uniform_near"] == pytest.approx(0.6)
    assert row["gain"] == pytest.approx(0.7 / 0.6)
    flat = explain.shares(table.assign(score=1.0), "score")
    assert flat.gain.tolist() == pytest.approx([1.0])


def ranked(**columns) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    return pd.DataFrame({"uid": "a", "defect": False, "distance": np.arange(n)} | columns)


def test_rank_correlations_by_hand():
    one = np.array([1.0, 2, 3, 4, 5])
    table = ranked(one=one, cube=one**3, swapped=[2.0, 1, 4, 3, 5], flat=np.ones(5))
    rows = explain.rank_correlations(table, ["one"], ["cube", "swapped", "flat"])
    # 1 - 6 * (1 + 1 + 1 + 1 + 0) / (5 * 24)
    assert rows.rho.tolist() == pytest.approx([1.0, 0.8, np.nan], nan_ok=True)
    assert np.isnan(explain.rank_correlations(table[:4], ["one"], ["cube"]).rho[0])
    table.loc[0, "defect"] = True
    assert np.isnan(explain.rank_correlations(table, ["one"], ["cube"], part="host").rho[0])


def test_what_two_scores_owe_to_the_distance_alone_is_taken_away():
    rng = np.random.default_rng(0)
    d = np.arange(400.0)
    table = ranked(one=-d + 40 * rng.normal(size=400), other=-d + 40 * rng.normal(size=400))
    plain = explain.rank_correlations(table, ["one"], ["other"])
    given = explain.rank_correlations(table, ["one"], ["other"], given_distance=True)
    assert plain.rho[0] > 0.8
    assert abs(given.rho[0]) < 0.15


def test_what_elements_explain_by_hand():
    table = pd.DataFrame(
        {
            "uid": list("aaaabb"),
            "defect": False,
            "symbol": ["Mo", "Mo", "S", "S", "C", "C"],
            "one": [1.0, 1, 3, 3, 1, 2],
            "other": [1.0, 3, 1, 3, 1, 2],
            "mixed": [0.0, 1, 1, 2, 1, 2],
        }
    )
    shares = {c: explain.element_shares(table, c) for c in ("one", "other", "mixed")}
    assert [s.element["a"] for s in shares.values()] == pytest.approx([1.0, 0.0, 0.5])
    assert shares["one"].chance["a"] == pytest.approx(1 / 3)
    assert np.isnan(shares["one"].element["b"])  # one element


def test_groups_of_two_columns_explain_what_neither_does_alone():
    table = pd.DataFrame(
        {
            "uid": "a",
            "defect": [False] * 6 + [True],
            "symbol": list("MMSSMSM"),
            "shell": [1, 2, 1, 2, 1, 1, 0],
            "score": [3.0, 0, 1, 0, 3, 1, 99],
        }
    )
    both, element, shell = (
        explain.group_shares(table, "score", by).loc["a"]
        for by in (["symbol", "shell"], ["symbol"], ["shell"])
    )
    assert both.share == pytest.approx(1.0)
    assert both.chance == pytest.approx(3 / 5)
    # Squares about the mean 4/3: 28/3 in all; means 2 and 2/3 of elements, 2 and 0 of shells.
    assert element.share == pytest.approx(6 * (2 / 3) ** 2 / (28 / 3))
    assert shell.share == pytest.approx((4 * (2 / 3) ** 2 + 2 * (4 / 3) ** 2) / (28 / 3))


def test_summary_has_intervals_over_structures():
    table = pd.DataFrame({"kind": ["x"] * 4 + ["y"], "rho": [0.0, 1.0, 0.0, 1.0, np.nan]})
    rows = explain.summary(table, "rho", "kind")
    assert rows["kind"].tolist() == ["x"]
    assert rows["mean"].tolist() == [0.5]
    assert 0 <= rows.lo[0] < 0.5 < rows.hi[0] <= 1
    assert rows.structures.tolist() == [4]


def test_a_score_of_the_distance_alone_prefers_no_direction(vacancy):
    table = explain.attention_table(Decaying(), [vacancy])
    cells = {vacancy.uid: vacancy.cell[0].numpy()}
    rows = explain.anisotropy(table, cells)
    assert rows.direction.tolist() == ["a", "b", "diagonal"]
    assert (rows.nodes > 0).all()
    assert rows.ratio.tolist() == pytest.approx([1.0] * 3, abs=0.1)


def test_a_preferred_direction_is_found():
    turn = np.radians([0, 90, 180, 270])
    table = pd.DataFrame({"direction": turn, "relative": [3.0, 1.0, 3.0, 1.0]})
    table = table.assign(uid="a", defect=False, inside=True, distance=3.0)
    rows = explain.anisotropy(table, {"a": np.diag([10.0, 12.0, 20.0])}).set_index("direction")
    assert rows.ratio["a"] == pytest.approx(1.5)  # 3 against a mean of 2
    assert rows.ratio["b"] == pytest.approx(0.5)
    assert rows.nodes["diagonal"] == 0
    assert np.isnan(rows.ratio["diagonal"])


# A survey


def test_a_survey_keeps_what_was_asked_of_every_score(graph):
    other = graph.clone()
    other.uid = "another"
    table = explain.score_table(small_model("hybrid"), [graph, other])
    found = explain.survey(table)
    assert found.index.tolist() == [graph.uid, "another"]
    shares = explain.shares(table, "occlusion")
    assert np.allclose(explain.near(found)["occlusion"].gain, shares.gain)
    assert "relaxation" not in explain.near(found)  # no record, no relaxation
    rho = explain.rank_correlations(table, ["attention"], ["gradient"])
    kept = explain.correlations(found)
    kept = kept[(kept["first"] == "attention") & (kept["second"] == "gradient")]
    assert np.allclose(kept.rho, rho.rho)
    given = explain.rank_correlations(table, ["attention"], ["gradient"], "host", True)
    assert np.allclose(found["rho given attention gradient"], given.rho)


def test_a_survey_of_attention_alone_holds_nothing_else(graph):
    table = explain.attention_table(small_model("hybrid"), [graph])
    found = explain.survey(table.rename(columns={"weight": "attention"}))
    assert list(explain.near(found)) == ["attention"]
    assert explain.correlations(found).empty


def test_expectations_are_judged_by_their_interval():
    sizes = {"trained": 0.1, "untrained": 1.0, "without phi": 0.1, "without psi": 0.05}
    same = {"defect attention": 0.4, "first_shell attention": 0.2, "label": 0.0}
    same |= {"uniform_defect": 0.1, "uniform_first_shell": 0.2}
    rows = []
    for model, size in (sizes | {"without content": 0.2}).items():
        for k in range(4):
            rho = {f"rho all attention {s}": (-1) ** k for s in ("occlusion", "gradient")}
            rho |= {f"rho given attention {s}": (-1) ** k for s in ("occlusion", "relaxation")}
            rho |= {
                f"rho {c}": 0.5 + k / 10
                for c in ("all attention relaxation", "given attention gradient")
            }
            own = {"model": model, "uid": str(k), "predicted": size * (1 + k / 10)}
            rows.append(own | same | rho)
    lengths = pd.DataFrame({"settled": [True, False]})
    found = explain.expectations(pd.DataFrame(rows), lengths)
    assert found.holds.tolist() == [
        True,
        True,
        False,
        False,
        False,
        True,
        False,
        True,
        False,
        False,
        False,
        True,
        False,
    ]
    assert found.measured.iloc[0] == pytest.approx(0.6)
    assert found.measured.iloc[-1] == 1
