"""How shipped predictors hold where no recipe starts: errors, intervals and guard, by origin.

The rows of `data/starts.db` were computed for this (`defectkit demo build --starts-of`) and neither
trained nor tuned anything; beside them stand the test rows of the demo data, from relaxed positions
and from those of the recipe. `chain_rows` follows single structures instead.
"""

import math

import pandas as pd

from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.data.further import groups_together
from defectkit.data.sources import data_folder
from defectkit.data.starts import STARTS
from defectkit.evaluation.metrics import mean_interval
from defectkit.predict.answer import all_atom_predictor, answer, read
from defectkit.predict.own import host_cell
from defectkit.predict.predictor import UNREAD, Predictor
from defectkit.structures.defects import defects_of
from defectkit.training.prepared import Prepared, prepare
from defectkit.training.pretrained import CHECKPOINTS
from defectkit.training.run import Run

PREDICTORS = ("hybrid", "hybrid-unrelaxed")
CONFIDENCE = 0.9
WORST = 0.1  # share of the rows with the largest errors
KINDS = ("all", "adsorbate", "interstitial", "substitution")


def start_rows(seed: int) -> list[dict]:
    """A row a predictor, origin of the rows and kind of defect, on rows that trained nothing.

    Of the random starts, some lead to a structure that a training row relaxed to as well, as a
    candidate of one's own may; "random, new" are those that do not.

    `n` rows of which `unread` could not be read; mean absolute error with its interval (95 %) and
    median, eV; `coverage`, the share of labels in the 90 % interval; `flagged`, the share that the
    guard does not call "inside", and `caught`, that of the tenth with the largest errors.

    Args:
        seed: of the bootstrap.
    """
    rows = []
    for name in PREDICTORS:
        predictor = Predictor.load(CHECKPOINTS / f"{name}.safetensors")
        prepared = prepare(Run(predictor.members[0]).config)
        tested, random = prepared.dataset.subset(prepared.split.test), starts()
        tables = {
            "recipe": judged_rows(predictor, tested),
            "random": judged_rows(predictor, random),
        }
        tables["random, new"] = tables["random"][new_structures(random, prepared)]
        for origin, judged in tables.items():
            for kind in KINDS:
                chosen = judged if kind == "all" else judged[judged.defecttype == kind]
                shown = {"model": name, "input": predictor.card.graph.positions, "starts": origin}
                rows.append(shown | {"kind": kind} | summary(chosen, seed))
    return rows


def starts() -> Dataset:
    """The cleaned rows with random starts."""
    return clean(load("demo", STARTS), "strict").dataset


def new_structures(dataset: Dataset, prepared: Prepared) -> pd.Series:
    """By uid, whether nothing that was learned from relaxed to the structure of a row."""
    further = prepared.further
    beside = [] if further is None else [further.dataset]
    own, groups, *more = groups_together(
        prepared.dataset, dataset, *beside, cache=data_folder() / "groups"
    )
    learned = set(own[list(prepared.split.train)])
    if further is not None:
        learned |= set(more[0][list(further.train)])
    return ~groups.isin(learned)


def judged_rows(predictor: Predictor, dataset: Dataset) -> pd.DataFrame:
    """The predictor's table of all rows, with `label` (eV), `error` (eV) and `defecttype`."""
    table = predictor(dataset.records, dataset.hosts, CONFIDENCE)
    labels = dataset.frame.loc[table.index]
    return table.assign(
        label=labels.eform, error=(table.eform - labels.eform).abs(), defecttype=labels.defecttype
    )


def summary(judged: pd.DataFrame, seed: int) -> dict[str, float]:
    """The numbers of `start_rows` of some rows of `judged_rows`."""
    read = judged[judged.verdict != UNREAD]
    low, high = mean_interval(read.error, seed=seed)
    covered = (read.label >= read.eform_lo) & (read.label <= read.eform_hi)
    flagged = read.verdict != "inside"
    numbers = {
        "eform_mae": read.error.mean(),
        "eform_mae_lo": low,
        "eform_mae_hi": high,
        "eform_median": read.error.median(),
        "coverage": covered.mean(),
        "flagged": flagged.mean(),
        "caught": flagged[read.error >= read.error.quantile(1 - WORST)].mean(),
    }
    counts = {"n": len(judged), "unread": len(judged) - len(read)}
    return counts | {name: round(float(value), 4) for name, value in numbers.items()}


def chain_rows(seed: int) -> list[dict]:
    """The S vacancy and Cr on every site of MoS2, as the shipped networks answer for them.

    Args:
        seed: not used; nothing is drawn.

    Returns:
        a row a structure and network: the answer, the size of the graph of all atoms, and the heat
        of formation of the host (eV), by CHGNet as the labels of the demo data.
    """
    host = host_cell("MoS2")
    made = [*defects_of(host, ["S"]).values(), *defects_of(host, add="Cr").values()]
    graphs = []
    for one in read([defect.atoms for defect in made]):
        graph = all_atom_predictor(one).graph_of(one)
        edges = graph.edge_index.shape[1]
        graphs.append({"uid": one.record.uid, "nodes": len(graph.z), "edges": edges})
    columns = "defect model label_source eform eform_lo eform_hi eform_sigma spin verdict".split()
    table = answer([defect.atoms for defect in made])[columns].rename_axis("uid").reset_index()
    table = table.merge(pd.DataFrame(graphs), on="uid")
    return table.assign(heat=_heat()).to_dict("records")


def _heat() -> float:
    """Formation of MoS2 from its elements, eV, as the demo database has it."""
    frame = load("demo").frame
    rows = frame[(frame.host == "MoS2") & (frame.strain == 0)]
    mu = {x: rows.removed_chemical_potential[rows.removed == x].iloc[0] for x in ("Mo", "S")}
    cells = math.prod(int(digit) for digit in str(rows.supercell.iloc[0]))
    return rows.hostenergy.iloc[0] / cells - mu["Mo"] - 2 * mu["S"]
