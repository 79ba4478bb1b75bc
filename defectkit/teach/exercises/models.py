"""The exercises on models: notebooks 03 and 04."""

import math

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from defectkit.data.dataset import Dataset
from defectkit.structures.hosts import shortest_translation
from defectkit.teach.answers import ANY, row_id
from defectkit.teach.checks import exercise, once
from defectkit.teach.exercises.data import bonds
from defectkit.training.pretrained import benchmark, data_of, shipped_run

NODES, EDGES = 6, 15  # of a made-up graph, whose last node receives nothing


def _made_up() -> tuple[Tensor, Tensor, Tensor]:
    """Edges (2, E), vectors of the nodes (N, 3), weights (E,)."""
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(NODES - 1, (2, EDGES), generator=generator)
    h = torch.randn(NODES, 3, generator=generator)
    return index, h, torch.rand(EDGES, generator=generator)


def _gathered(values: Tensor, receiver: Tensor, n: int = NODES) -> Tensor:
    """The sum at every receiver of what each edge brings."""
    return values.new_zeros(n, values.shape[1]).index_add(0, receiver, values)


@exercise(
    "03-1",
    cases=lambda data: [(_made_up()[1], _made_up()[0], _made_up()[2])],
    takes="h is (N, D), index (2, E), weight (E,).",
    hint="Every edge has a sender, index[0], and a receiver, index[1].",
    way="message = weight[:, None] * h[index[0]], then h plus"
    " torch.zeros_like(h).index_add(0, index[1], message).",
    meaning="That is the heart of every graph network: gather from neighbours, add to what was.",
    mistakes={
        "Sender and receiver are swapped: messages come from index[0], go to index[1].": (
            lambda h, index, weight: h + _gathered(weight[:, None] * h[index[1]], index[0])
        ),
        "What an atom knew before is lost: add the messages to h.": (
            lambda h, index, weight: _gathered(weight[:, None] * h[index[0]], index[1])
        ),
        "Every message has its weight: multiply by weight[:, None].": (
            lambda h, index, weight: h + _gathered(h[index[0]], index[1])
        ),
        "Where two edges end at one atom the second overwrites the first; index_add adds them.": (
            lambda h, index, weight: h.clone().index_put(
                (index[1],), h[index[1]] + weight[:, None] * h[index[0]]
            )
        ),
    },
)
def message_round(h: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """A round of weighted messages."""
    return h + _gathered(weight[:, None] * h[index[0]], index[1])


def _arriving(data: Dataset, uid: str, cutoff: float = 3.5) -> Tensor:
    """How many bonds arrive at each node."""
    return torch.bincount(bonds(data, uid, cutoff)[1])


@exercise(
    "03-2",
    given=row_id("record.uid", "number"),
    hint="Build the graph with cutoff=3.5; count the receivers, edge_index[1].",
    way="n = torch.bincount(graph.edge_index[1]); (n * (n - 1)).sum()",
    meaning="{x:,} edges of the line graph: this many angles each layer has to visit.",
    mistakes={
        "Those are unordered pairs; (a, b) and (b, a) are two.": lambda d, uid: (
            int((_arriving(d, uid) * (_arriving(d, uid) - 1)).sum()) // 2
        ),
        "A bond forms no pair with itself: n (n - 1) in place of n².": lambda d, uid: int(
            (_arriving(d, uid) ** 2).sum()
        ),
        "Those are the bonds; their pairs are wanted.": lambda d, uid: int(_arriving(d, uid).sum()),
        "That is the number for a cutoff of 5 Å.": lambda d, uid: int(
            (_arriving(d, uid, 5.0) * (_arriving(d, uid, 5.0) - 1)).sum()
        ),
        "That takes all bonds as if they met at one atom; square atom by atom, then add.": (
            lambda d, uid: (n := int(_arriving(d, uid).sum())) * (n - 1)
        ),
    },
)
def ordered_bond_pairs(data: Dataset, uid: str) -> int:
    """Pairs of bonds at all atoms of a record."""
    arriving = _arriving(data, uid)
    return int((arriving * (arriving - 1)).sum())


def _gates() -> list[tuple[Tensor, Tensor, Tensor, int]]:
    index, h, weight = _made_up()
    return [(h[:, :2], torch.stack([weight, 1 - weight / 2], dim=1), index, NODES)]


@exercise(
    "03-3",
    cases=lambda data: _gates(),
    takes="value is (N, D), gate (E, D), index (2, E), n a number.",
    hint="Two sums at every receiver: of gate times the sender's value, and of the gates.",
    way="sum gate * value[sender] at the receivers, divide by the sum of gates there plus 1e-6.",
    meaning="A mean whose weights are learned; where all values are equal it cannot tell anything.",
    mistakes={
        "That divides by the number of neighbours; divide by the sum of their gates.": (
            lambda value, gate, index, n: (
                _gathered(gate * value[index[0]], index[1], n)
                / (_gathered(torch.ones_like(gate), index[1], n) + 1e-6)
            )
        ),
        "A sum is not a mean: divide by the sum of the gates.": lambda value, gate, index, n: (
            _gathered(gate * value[index[0]], index[1], n)
        ),
        "Sender and receiver are swapped.": lambda value, gate, index, n: (
            _gathered(gate * value[index[1]], index[0], n) / (_gathered(gate, index[0], n) + 1e-6)
        ),
        "A node without neighbours divides zero by zero: mind the 1e-6.": (
            lambda value, gate, index, n: (
                _gathered(gate * value[index[0]], index[1], n) / _gathered(gate, index[1], n)
            )
        ),
        "That is the receiver's own value; the sender's is offered.": (
            lambda value, gate, index, n: (
                _gathered(gate * value[index[1]], index[1], n)
                / (_gathered(gate, index[1], n) + 1e-6)
            )
        ),
    },
)
def gated_mean(value: Tensor, gate: Tensor, index: Tensor, n: int) -> Tensor:
    """The gated mean of an edge-gated convolution."""
    total = _gathered(gate * value[index[0]], index[1], n)
    return total / (_gathered(gate, index[1], n) + 1e-6)


@exercise(
    "03-4",
    hint="Divide the sum of gate times value by the sum of the gates.",
    way="(0.2 * 3 + 0.5 * 3 + 0.9 * 3) / (0.2 + 0.5 + 0.9)",
    meaning="{x:g}, whatever the gates: a mean of equals cannot see the angles.",
    mistakes={
        "That is the sum; the gates have to be divided out.": 4.8,
        "That divides by three, or is the sum of the gates; divide the one sum by the other.": 1.6,
        "The gate weighs the value; that is the mean of the gates.": 1.6 / 3,
    },
)
def mean_of_equals(data: Dataset) -> float:
    """A gated mean of three equal values."""
    return 3.0


def _constant_error(energy: pd.Series, constant: float) -> float:
    return (energy - constant).abs().mean()


@exercise(
    "03-5",
    hint="For each of the two the mean of |eform - constant|, over all rows.",
    way="[(frame.eform - c).abs().mean() for c in (frame.eform.mean(), frame.eform.median())]",
    meaning=lambda pair: (
        f"{pair[0]:.2f} and {pair[1]:.2f} eV: a network that is no better has learned nothing. "
        "No constant has a smaller absolute error than the median."
    ),
    mistakes={
        "The two are swapped: first with the mean, then with the median.": lambda d: (
            _constant_error(d.frame.eform, d.frame.eform.median()),
            _constant_error(d.frame.eform, d.frame.eform.mean()),
        ),
        "Those are the mean and the median themselves; their errors are wanted.": lambda d: (
            d.frame.eform.mean(),
            d.frame.eform.median(),
        ),
        "The first one is the standard deviation, which squares the errors.": lambda d: (
            d.frame.eform.std(),
            ANY,
        ),
        "Without the absolute value errors of both signs cancel.": lambda d: (
            0.0,
            (d.frame.eform - d.frame.eform.median()).mean(),
        ),
        "The second one is the median of the errors; the mean error of the median is wanted.": (
            lambda d: (ANY, (d.frame.eform - d.frame.eform.median()).abs().median())
        ),
    },
)
def constant_predictions(data: Dataset) -> tuple[float, float]:
    """Errors of predicting the mean, and the median."""
    energy = data.frame.eform
    return _constant_error(energy, energy.mean()), _constant_error(energy, energy.median())


def _opinions() -> tuple[np.ndarray, np.ndarray]:
    """Predictions of three runs, (3, rows), and the labels, eV."""
    parts = [shipped_run("alignn", seed).part("test") for seed in range(3)]
    return np.array([part.eform_pred for part in parts]), parts[0].eform.to_numpy()


@exercise(
    "03-6",
    hint="Average the three predictions first, row by row; then take the absolute error.",
    way='opinions = [shipped_run("alignn", k).part("test").eform_pred for k in range(3)];'
    " (sum(opinions) / 3 - tested.eform).abs().mean()",
    meaning="{x:.3f} eV: the mean of three networks is better than the three on average.",
    mistakes={
        "That is the mean of three errors; the error of the mean is wanted.": lambda d: np.abs(
            _opinions()[0] - _opinions()[1]
        ).mean(),
        "That is the error of the first run alone.": lambda d: np.abs(
            _opinions()[0][0] - _opinions()[1]
        ).mean(),
        "That is the root of the mean square.": lambda d: (
            ((_opinions()[0].mean(axis=0) - _opinions()[1]) ** 2).mean() ** 0.5
        ),
        "Without the absolute value errors of both signs cancel.": lambda d: (
            _opinions()[0].mean(axis=0) - _opinions()[1]
        ).mean(),
        "That is the median error; the mean is wanted.": lambda d: np.median(
            np.abs(_opinions()[0].mean(axis=0) - _opinions()[1])
        ),
    },
)
def three_opinions(data: Dataset) -> float:
    """Error of the mean of three runs."""
    predicted, label = _opinions()
    return float(np.abs(predicted.mean(axis=0) - label).mean())


def _errors_by_host(data: Dataset) -> "pd.core.groupby.SeriesGroupBy":
    run = shipped_run("alignn")
    rows = run.part("test")
    hosts = data_of(run, data).frame.host.loc[rows.index]
    return (rows.eform_pred - rows.eform).abs().groupby(hosts)


@exercise(
    "03-7",
    hint="Group the absolute errors by host, take the median, then idxmax().",
    way="errors.abs().groupby(tested.host).median().idxmax()",
    meaning="{x}: there the ordinary row is hard, not only an outlier or two.",
    mistakes={
        "That host has the largest mean error: a few bad rows can do that.": lambda d: (
            _errors_by_host(d).mean().idxmax()
        ),
        "That host has the smallest median error.": lambda d: _errors_by_host(d).median().idxmin(),
        "That host has the single worst row.": lambda d: _errors_by_host(d).max().idxmax(),
    },
)
def hardest_host(data: Dataset) -> str:
    """The host with the largest median error."""
    return _errors_by_host(data).median().idxmax()


@exercise(
    "03-8",
    hint="Each layer reaches one cutoff further, and there is no part of a layer.",
    way="int(np.ceil(30 / 4))",
    meaning="{x} layers: reach is bought with depth, one cutoff at a time.",
    mistakes={
        "Seven layers end at 28 Å: round up.": 7,
        "There is no half layer: round up.": 7.5,
        "That is for a cutoff of 5 Å.": 6,
    },
)
def layers_for_a_reach(data: Dataset) -> int:
    """Layers that carry news over 30 Å in steps of 4 Å."""
    return 8


@exercise(
    "04-1",
    hint="The exponentials of row A are 1, 2, 1, 4; each ångström halves them, and 4 Å leave 1/16.",
    way="4 / 16 over the sum of 1, 2 / 2, 1 / 4 and 4 / 16.",
    meaning="{x:g} in place of 4/13: whoever forgets the images hears the vacancy too little.",
    mistakes={
        "That is the weight with the nearest image, 2 Å; the careless one takes 4 Å.": 4 / 13,
        "That is the weight without φ.": 4 / 8,
        "Weights sum to one: divide by the sum of the row.": 4 / 16,
        "That one has ψ in it too.": 8 / 16 / (1 + 1 + 1 / 4 + 8 / 16),
    },
)
def careless_distance(data: Dataset) -> float:
    """The weight of D with the distance inside the cell."""
    return 0.1


def _attention_inputs() -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 5, 4, generator=generator)
    return [(query, key, value, torch.randn(5, 5, generator=generator))]


@exercise(
    "04-2",
    cases=lambda data: _attention_inputs(),
    takes="query, key and value are (n, d), bias (n, n).",
    hint="Scores over the root of d, plus the bias; softmax; times value.",
    way="(query @ key.T / query.shape[1] ** 0.5 + bias).softmax(dim=1) @ value",
    meaning="Three lines are all of attention; what a network learns is who asks what.",
    mistakes={
        "The scores are too large: they have to be divided by the root of d.": (
            lambda query, key, value, bias: (query @ key.T + bias).softmax(dim=1) @ value
        ),
        "The scores are divided by d; its root is wanted.": lambda query, key, value, bias: (
            (query @ key.T / query.shape[1] + bias).softmax(dim=1) @ value
        ),
        "Softmax over the wrong axis: every receiver, a row, has weights that sum to one.": (
            lambda query, key, value, bias: (query @ key.T / 2 + bias).softmax(dim=0) @ value
        ),
        "Rows of the bias are receivers: do not turn it over.": lambda query, key, value, bias: (
            (query @ key.T / 2 + bias.T).softmax(dim=1) @ value
        ),
        "The bias belongs to the scores, before the softmax.": lambda query, key, value, bias: (
            ((query @ key.T / 2).softmax(dim=1) + bias) @ value
        ),
        "The bias is missing.": lambda query, key, value, bias: (
            (query @ key.T / 2).softmax(dim=1) @ value
        ),
        "The bias is divided by the root of d as well.": lambda query, key, value, bias: (
            ((query @ key.T + bias) / 2).softmax(dim=1) @ value
        ),
        "Query and key are swapped: the receiver asks.": lambda query, key, value, bias: (
            (key @ query.T / 2 + bias).softmax(dim=1) @ value
        ),
        "Without a softmax the weights do not sum to one.": lambda query, key, value, bias: (
            (query @ key.T / 2 + bias) @ value
        ),
        "Those are the weights; they have to be applied to value.": (
            lambda query, key, value, bias: (query @ key.T / 2 + bias).softmax(dim=1)
        ),
    },
)
def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Attention with a bias."""
    return (query @ key.T / query.shape[1] ** 0.5 + bias).softmax(dim=1) @ value


@exercise(
    "04-3",
    hint="One for the atom itself, and 1/8 + 1/64 + ... = (1/8) / (1 - 1/8) on either side.",
    way="1 + 2 * (1 / 8) / (1 - 1 / 8)",
    meaning="{x:.3f}: most of it is the atom itself, and yet no image is left out.",
    mistakes={
        "There are images on both sides.": 8 / 7,
        "The atom itself counts too.": 2 / 7,
        "Images stand every 3 Å, so each step takes a factor of 8.": 3.0,
        "Those are the first images alone; there is no end of them.": 1.25,
    },
)
def chain_of_images(data: Dataset) -> float:
    """The sum of halvings over all images of an atom on a line."""
    return 9 / 7


def _longest(data: Dataset, choose: str = "max") -> float:
    """Distance (Å) to the nearest image, in the largest of all cells by default."""
    cells = (record.atoms.cell.array for record in data.records)
    images = once(data, "images", lambda: pd.Series(list(map(shortest_translation, cells))))
    return getattr(images, choose)()


@exercise(
    "04-4",
    hint="Take the largest of images, over the root of 3, over 5 Å a layer, rounded up.",
    way="math.ceil(images.max() / 3 ** 0.5 / 5)",
    meaning="{x} layers reach everything in every cell: on these data attention has little to add.",
    mistakes={
        "For *every* row: the largest cell decides, not the usual one.": lambda d: math.ceil(
            _longest(d, "median") / 3**0.5 / 5
        ),
        "No point is farther than d over the root of 3.": lambda d: math.ceil(_longest(d) / 5),
        "There is no part of a layer: round up.": lambda d: _longest(d) / 3**0.5 / 5,
        "Rounded down, the last layer is missing.": lambda d: math.floor(_longest(d) / 3**0.5 / 5),
    },
)
def layers_across_a_cell(data: Dataset) -> int:
    """Layers of 5 Å from the defect to the farthest point of the largest cell."""
    return math.ceil(_longest(data) / 3**0.5 / 5)


@exercise(
    "04-5",
    hint="For each l: 1 * 1 + 2 * 2, where P(1) = 1, and 2 * (1 * 2) times P(0).",
    way="P_0(0) = 1, P_1(0) = 0 and P_2(0) = -1/2, so 5 + 4, 5 + 0 and 5 - 2.",
    meaning="The three numbers differ with the angle: a sum sees what a mean cannot.",
    mistakes={
        "The pairs of the two bonds with each other are missing.": (5, 5, 5),
        "(1, 2) and (2, 1) are two pairs.": (7, 5, 4),
        "P_2(0) is -1/2, and not 1/2.": (9, 5, 7),
        "A bond pairs with itself as well, at the angle 0, where P is 1.": (4, 0, -2),
        "Each pair has the product of both weights.": (4, 2, 1),
    },
)
def right_angle(data: Dataset) -> tuple[int, int, int]:
    """P_0, P_1 and P_2 of two bonds of weights 1 and 2 at a right angle."""
    return 9, 5, 3


@exercise(
    "04-6",
    hint="heads * nodes * nodes numbers of 4 bytes each; a matrix has as many rows as columns.",
    way="4 * 1000**2 * 4 / 1e6 megabytes, and 2**2 times as many.",
    meaning="{x[0]:g} MB, and four times that for twice the nodes: attention pays by the square.",
    mistakes={
        "The two are swapped: first the megabytes.": (4, 16),
        "A matrix of twice the rows has twice the columns too.": (ANY, 2),
        "Four heads, and four bytes for every number: one of the two is missing.": (4.0, ANY),
        "A megabyte is a million bytes here.": (4 * 1000**2 * 4 / 2**20, ANY),
        "Those are bytes.": (4 * 1000**2 * 4, ANY),
        "Those are bits: eight of them are a byte.": (128.0, ANY),
    },
)
def size_of_attention(data: Dataset) -> tuple[float, int]:
    """Megabytes of the weights, and their growth."""
    return 16.0, 4


def _variants() -> pd.Series:
    return benchmark("ablation").groupby("variant").eform_mae.mean()


@exercise(
    "04-7",
    hint="Group by variant, take the mean of eform_mae, then idxmax().",
    way='ablation.groupby("variant").eform_mae.mean().idxmax()',
    meaning="“{x}” is missed most: a part that is worth its price even on few rows.",
    mistakes={
        "That variant has the smallest error.": lambda d: _variants().idxmin(),
        "That is the model with all its parts, to compare with.": "full",
        "That one has the single worst run; take the mean over its seeds.": lambda d: (
            table := benchmark("ablation")
        ).variant[table.eform_mae.idxmax()],
        "That one has the largest spread over seeds, not the largest mean.": lambda d: (
            benchmark("ablation").groupby("variant").eform_mae.std().idxmax()
        ),
    },
)
def most_missed(data: Dataset) -> str:
    """The worst variant of the ablation."""
    return _variants().idxmax()


def _model_errors() -> pd.Series:
    table = benchmark("models_demo")
    table = table[(table.input == "relaxed") & table.split.str.startswith("random")]
    return table.groupby("model").eform_mae.mean()


@exercise(
    "04-8",
    hint="Divide the mean error of the other model by that of hybrid.",
    way='mean_error = relaxed.groupby("model").eform_mae.mean(); mean_error["alignn"] / '
    'mean_error["hybrid"], and the same for "lightgbm".',
    meaning="{x[0]:.2f} and {x[1]:.2f} times the hybrid's error. The rival to beat has no network.",
    mistakes={
        "Those are the inverse: other over hybrid.": lambda d: (
            (e := _model_errors())["hybrid"] / e["alignn"],
            e["hybrid"] / e["lightgbm"],
        ),
        "The two are swapped: first ALIGNN, then LightGBM.": lambda d: (
            (e := _model_errors())["lightgbm"] / e["hybrid"],
            e["alignn"] / e["hybrid"],
        ),
        "Those are differences; a factor is a quotient.": lambda d: (
            (e := _model_errors())["alignn"] - e["hybrid"],
            e["lightgbm"] - e["hybrid"],
        ),
        "Those are the errors themselves.": lambda d: (
            (e := _model_errors())["alignn"],
            e["lightgbm"],
        ),
    },
)
def factors(data: Dataset) -> tuple[float, float]:
    """How much smaller the hybrid's error is than two others'."""
    error = _model_errors()
    return error["alignn"] / error["hybrid"], error["lightgbm"] / error["hybrid"]


@exercise(
    "04-9",
    hint="At 2 Å the weights are 4/5 and 1/5, and the gate of the other is 1/4.",
    way="6 * 4/5 + 6 * 1/5 without the gate, and 6 * 4/5 + 6 * 1/5 * 1/4 with it.",
    meaning="Without the gate {x[0]:g} at any distance; with it {x[1]:g}: the distance is heard.",
    mistakes={
        "Without the gate the other one is heard as well: the weights sum to one.": (4.8, ANY),
        "The second one is that of 1 Å.": (ANY, 5.0),
        "With the gate: at 2 Å it is 2⁻² and not 1/2.": (ANY, 5.4),
        "A node hears itself through an open gate: d = 0.": (ANY, 1.5),
        "The two are swapped: first without the gate.": (5.1, 6),
        "The weights do not change with the gate; nothing is divided anew.": (ANY, 6),
    },
)
def like_vacancies(data: Dataset) -> tuple[float, float]:
    """What two like vacancies hear at 2 Å, without and with a gate on the values."""
    return 6.0, 5.1


@exercise(
    "04-12",
    hint="Three of 190 equal weights; then 3 e^psi over (3 e^psi + 187 e^0) shall be 3/4.",
    way="3 / 190, and np.log(3 * 187 / 3): the three have three times the weight of the 187.",
    meaning="From {x[0]:.1%} to three quarters by a head start of {x[1]:.2f}, e to which is 187.",
    mistakes={
        "The defect's nodes are among the 190: 187 are others.": (3 / 187, ANY),
        "The share of all three, not of one.": (1 / 190, ANY),
        "A share is between zero and one.": (300 / 190, ANY),
        "A softmax takes the exponential of a score: its logarithm is wanted.": (ANY, 187.0),
        "The natural logarithm: a softmax is made of e.": (ANY, math.log10(187)),
        "The others are 187, without the three.": (ANY, math.log(190)),
        "Three quarters are three times the remaining quarter.": (ANY, math.log(187 / 3)),
        "Three nodes share the three quarters.": (ANY, math.log(3 * 187)),
        "The three are to have more than the others, not less.": (ANY, -math.log(187)),
        "The two are swapped: first the share.": (math.log(187), 3 / 190),
    },
)
def head_start(data: Dataset) -> tuple[float, float]:
    """Share of three equal nodes among 190, and the score that makes it 3/4."""
    return 3 / 190, math.log(187)


@exercise(
    "04-10",
    cases=[
        (np.array(valid), np.array(test))
        for valid, test in (
            ([0.30, 0.26, 0.34], [0.31, 0.33, 0.28]),
            ([0.50, 0.40, 0.45, 0.41], [0.42, 0.47, 0.52, 0.40]),
        )
    ],
    takes="valid and test are arrays (k,); the result is a number in eV.",
    hint="np.argmin(valid) chooses; which of the two errors took no part in the choice?",
    way="test[np.argmin(valid)]",
    meaning="Chosen on some rows, judged on others: what is printed was not what was chosen for.",
    mistakes={
        "That chooses by the test rows; who does has none left to judge with.": (
            lambda valid, test: test.min()
        ),
        "It was chosen because that error is low: judge it on other rows.": (
            lambda valid, test: valid.min()
        ),
        "Nobody uses the mean of all settings: choose one.": lambda valid, test: test.mean(),
        "That is the number of the setting; its error is wanted.": lambda valid, test: int(
            valid.argmin()
        ),
        "That is the worst on validation rows: argmin, not argmax.": lambda valid, test: test[
            valid.argmax()
        ],
        "Both rows together chose it: then neither can judge.": lambda valid, test: test[
            (valid + test).argmin()
        ],
    },
)
def reported(valid: np.ndarray, test: np.ndarray) -> float:
    """The error that may be printed of a setting that was chosen among several."""
    return test[valid.argmin()]


@exercise(
    "04-11",
    hint="First the chance that none of them looks clear: all twenty have to stay quiet.",
    way="1 - (1 - 1 / 20) ** 20",
    meaning="{x:.0%}: of twenty parts that do nothing, one that looks clear is what to expect.",
    mistakes={
        "That is how many look clear on the average, not how likely one is.": 1.0,
        "That is the chance that none looks clear.": 0.95**20,
        "That is the chance of one alone.": 0.05,
        "That is the chance that all of them look clear.": 0.05**20,
        "That is in percent; a chance lies between 0 and 1.": 100 * (1 - 0.95**20),
        "That is the chance of exactly one; two or more count too.": 20 * 0.05 * 0.95**19,
    },
)
def clear_by_luck(data: Dataset) -> float:
    """The chance that one of twenty changes that do nothing looks clear."""
    return 1 - (1 - 1 / 20) ** 20
