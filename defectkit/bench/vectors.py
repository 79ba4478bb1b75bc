"""Learned vectors of the elements: what they know, and what they are worth.

corpora          formulas by the table that they come from; losses of the runs on them
vectors          probes and arrangement, beside tables of others, one-hot and random vectors
janus            band gaps of Janus monolayers, each formula left out, beside nine published columns
vectors_dopant   few rows of the demo data, dopants never seen: elements as vectors of each kind
vectors_hybrid   the same rung for the hybrid, with the vectors among its features and without
vectors_2dmd     DFT gaps of hosts never seen

Runs of the encoder are shipped in `data/vectors/`: vectors, configuration, losses and summary.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase.formula import Formula
from lightgbm import LGBMRegressor
from sklearn.base import BaseEstimator
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from defectkit.bench.real import place, whole
from defectkit.bench.studies import STEPS, train_without_weights
from defectkit.data.dataset import Dataset
from defectkit.data.formulas import Corpus, corpus_of, invented, library_texts
from defectkit.data.splits import make_split
from defectkit.evaluation.metrics import group_interval
from defectkit.evaluation.vectors import (
    ALPHAS,
    MODELS,
    flipped,
    known_vectors,
    left_out,
    order,
    probe,
    scaled,
)
from defectkit.training.config import VectorConfig, load_config, with_values
from defectkit.training.prepared import prepare
from defectkit.training.pretrained import (
    CONFIGS,
    ROOT,
    VECTORS,
    published_janus,
    read_vectors,
)
from defectkit.training.run import Run
from defectkit.training.vectors import learn_vectors

SEEDS = (0, 1, 2)
ONCE = (0,)
# Of configs/vectors with their seeds; without the second task where they are called alone.
LEARNED = {"invented": ONCE, "libraries": SEEDS, "libraries-alone": SEEDS}
COMPARED = ("invented", "libraries")
FIXED = ("elemental", "magpie", "matscholar", "megnet", "onehot")
RANDOM = "random"
PUBLISHED_COLUMNS = {"rf": "random forest", "krr": "kernel ridge", "svr": "support vectors"}
ROWS = (200, 1500)  # few and many of the rows that a fold may learn from
HYBRID_ROWS, HYBRID_EPOCHS, HYBRID_FOLDS = 300, 10, 2
HYBRID_FEATURES = {
    "elemental, magpie": ["elemental", "magpie"],
    "elemental, magpie, atom_dl": ["elemental", "magpie", "atom_dl"],
}
HYBRID_FOLDER = ROOT / "build" / "runs" / "vectors"
REGRESSORS = ("ridge", "lightgbm")


def vector_runs() -> Iterator[tuple[str, int, Run]]:
    """Configuration, seed and run of all shipped vectors, learned where they are missing."""
    torch.set_num_threads(1)
    for name, seeds in LEARNED.items():
        for seed in seeds:
            config = load_config(CONFIGS / "vectors" / f"{name}.yaml", VectorConfig)
            yield name, seed, learn_vectors(config, VECTORS / f"{name}-{seed}", seed)


def corpus_rows(seed: int) -> list[dict]:
    """Formulas by table: texts read, different formulas among them, skipped, elements; and losses.

    Of a run the losses are those of validation formulas: `element`, nats a masked element, beside
    `guess`, that of always answering with the shares of the corpus; and shares of right guesses.

    Args:
        seed: of the made-up corpus that is counted.
    """
    made = invented(seed=seed)
    rows = [_counted("invented", len(made), made)]
    for table, texts in library_texts().items():
        rows.append(_counted(table, len(texts), corpus_of(texts)))
    for name, k, run in vector_runs():
        summary = run.summary
        losses = pd.read_csv(run.folder / "metrics.csv").set_index("epoch")
        best = losses.loc[summary["best_epoch"]]
        found = {key.removeprefix("valid_"): best[key] for key in best.index if "valid" in key}
        rows.append(
            {
                "table": f"vectors {name}",
                "seed": k,
                "formulas": sum(summary["formulas"].values()),
                "elements": summary["elements"],
                "epochs": summary["epochs"],
                "minutes": round(summary["seconds"] / 60, 1),
                "guess": round(summary["guess"], 4),
                **{key: round(float(value), 4) for key, value in found.items()},
            }
        )
    return rows


def _counted(table: str, texts: int, corpus: Corpus) -> dict:
    elements = len(np.unique(corpus.z[corpus.z > 0]))
    return {
        "table": table,
        "seed": 0,
        "texts": texts,
        "formulas": len(corpus),
        "skipped": corpus.skipped,
        "elements": elements,
    }


def tables(learned: Sequence[str] = tuple(LEARNED)) -> dict[tuple[str, int], pd.DataFrame]:
    """All vectors to compare by name and seed, for the elements that every one of them has."""
    runs = [(name, seed) for name, seed, _ in vector_runs() if name in learned]
    found = {key: read_vectors(*key) for key in runs}
    found |= {(name, 0): known_vectors(name) for name in FIXED}
    found |= {(RANDOM, seed): known_vectors(RANDOM, seed) for seed in SEEDS}
    common = set.intersection(*(set(table.index) for table in found.values()))
    symbols = [symbol for symbol in known_vectors("onehot").index if symbol in common]
    return {key: table.loc[symbols] for key, table in found.items()}


def knowledge_rows(seed: int) -> list[dict]:
    """A row a kind of vectors, its seed and a property: see `evaluation.vectors.probe` and `order`.

    Args:
        seed: of the folds.
    """
    rows = []
    for (name, k), table in tables().items():
        common = {"vectors": name, "seed": k, "dimensions": table.shape[1], "elements": len(table)}
        for found in probe(table, seed).round(4).to_dict("records"):
            rows.append({**common, "test": "probe", **found})
        for what, value in order(table).items():
            rows.append({**common, "test": "order", "property": what, "score": round(value, 4)})
    return rows


def janus_rows(seed: int) -> list[dict]:
    """A row a model and kind of vectors: error of 24 gaps, each formula left out.

    Beside them the nine columns of the paper, whose models were trained otherwise and are no rivals
    of these. Intervals are drawn by formula. `p_mean` and `p_magpie` are of a paired
    permutation test against the mean of the other formulas, and against Magpie with the same model.

    Args:
        seed: of the bootstrap, the permutations and the forest.
    """
    table = published_janus()
    gaps, formulas = table.gap.to_numpy(), table.formula.tolist()
    kinds = tables(COMPARED)
    any_vectors = next(iter(kinds.values()))
    mean = np.abs(left_out(formulas, gaps, any_vectors, "mean") - gaps)
    errors = {("here", "mean", "", 0): mean}
    for (name, k), model in tqdm([(key, m) for key in kinds for m in MODELS], desc="janus"):
        predicted = left_out(formulas, gaps, kinds[name, k], model, seed)
        errors["here", model, name, k] = np.abs(predicted - gaps)
    for short, model in PUBLISHED_COLUMNS.items():
        for name in ("magpie", "atom2vec", "atom_dl"):
            errors["paper", model, name, 0] = (table[f"{short}_{name}"] - gaps).abs().to_numpy()
    rows = []
    for (where, model, name, k), error in errors.items():
        low, high = group_interval(error, np.array(formulas), seed)
        row = {"where": where, "model": model, "vectors": name, "seed": k, "n": len(error)}
        row |= {"mae": error.mean(), "mae_lo": low, "mae_hi": high}
        row["p_mean"] = flipped(error, mean, seed) if model != "mean" else np.nan
        if (where, model, "magpie", 0) in errors and name != "magpie":
            row["p_magpie"] = flipped(error, errors[where, model, "magpie", 0], seed)
        rows.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
    return rows


def row_features(dataset: Dataset, vectors: pd.DataFrame) -> pd.DataFrame:
    """Numbers of every row, by uid, in which elements appear as their vectors alone.

    Means over the atoms of the host's formula, over what was added, and over what was removed; how
    many were removed, how many atoms there are, and the type of the defect.
    """
    frame = dataset.frame
    x = scaled(vectors).to_numpy()
    place = {symbol: k for k, symbol in enumerate(vectors.index)}

    def mean(texts: pd.Series, split: Callable[[str], list[str]]) -> np.ndarray:
        seen = {text: [place[e] for e in split(text) if e in place] for text in texts.unique()}
        means = {t: x[at].mean(axis=0) if at else np.zeros(x.shape[1]) for t, at in seen.items()}
        return np.stack([means[text] for text in texts])

    parts = {
        "host": mean(frame.formula, _atoms_of),
        "added": mean(frame.dopant, _listed),
        "removed": mean(frame.removed, _listed),
    }
    columns = {f"{name} {k}": v for name, part in parts.items() for k, v in enumerate(part.T)}
    table = pd.DataFrame(columns, frame.index)
    counts = frame.removed.map(lambda text: len(_listed(text)))
    kinds = pd.get_dummies(frame.defecttype, prefix="type").astype(float)
    return table.assign(removed=counts.astype(float), atoms=frame.natoms.astype(float)).join(kinds)


def _atoms_of(formula: str) -> list[str]:
    return [x for x, n in Formula(formula).count().items() for _ in range(n)]


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _regressor(name: str, seed: int) -> BaseEstimator:
    if name == "ridge":
        return make_pipeline(StandardScaler(), RidgeCV(ALPHAS))
    return LGBMRegressor(
        n_estimators=150, learning_rate=0.1, random_state=seed, n_jobs=1, verbose=-1
    )


def dopant_rows(seed: int) -> list[dict]:
    """A row a model, kind of vectors and number of training rows: dopants never seen, five folds.

    The demo data, labels CHGNet. Intervals are drawn by dopant.

    Args:
        seed: of the bootstrap and of the rows that are learned from.
    """
    dataset = prepare(load_config(CONFIGS / "lightgbm.yaml")).dataset
    splits = [make_split(dataset, "dopant", fold=fold) for fold in range(len(STEPS["dopant"]))]
    parts = [(split.train, split.test) for split in splits]
    return list(_used(dataset, dataset.frame.eform, parts, "dopant", seed))


def host_rows(seed: int, path: Path | None = None) -> list[dict]:
    """The same for DFT gaps of 2DMD: each of the six hosts left out once, its rows the test.

    Intervals are drawn by host, and there are six.

    Args:
        seed: of the bootstrap and of the rows that are learned from.
        path: the folder of 2DMD; where `defectkit data fetch` put it by default.
    """
    dataset = whole(place(path))
    parts = []
    for formula in sorted(dataset.frame.formula.unique()):
        split = make_split(dataset, "leave-one-formula-out", held_out=formula)
        parts.append((split.train, split.test))
    rows = _used(dataset, dataset.frame.gap, parts, "formula", seed)
    return [{**row, "data_fingerprint": dataset.fingerprint} for row in rows]


def _used(
    dataset: Dataset,
    target: pd.Series,
    parts: list[tuple[Sequence[str], Sequence[str]]],
    unit: str,
    seed: int,
) -> Iterator[dict]:
    """Rows of a table: mean absolute errors of each kind of vectors, and of the mean (eV)."""
    known = target.notna()
    rng = np.random.default_rng(seed)
    drawn = []
    for train, test in parts:
        train = rng.permutation([uid for uid in train if known[uid]])
        drawn.append((train, [uid for uid in test if known[uid]]))
    tested = [uid for _, test in drawn for uid in test]
    groups, label = dataset.frame[unit].loc[tested].to_numpy(), target.loc[tested].to_numpy(float)
    for n in ROWS:
        errors = {("mean", "", 0): np.abs(_means(target, drawn, n) - label)}
        for (name, k), vectors in tqdm(tables(COMPARED).items(), desc=f"{n} rows"):
            features = row_features(dataset, vectors)
            for model in REGRESSORS:
                predicted = []
                for train, test in drawn:
                    few = list(train[:n])
                    fitted = _regressor(model, seed).fit(
                        features.loc[few].to_numpy(), target.loc[few]
                    )
                    predicted.append(fitted.predict(features.loc[test].to_numpy()))
                errors[model, name, k] = np.abs(np.concatenate(predicted) - label)
        for (model, name, k), error in errors.items():
            low, high = group_interval(error, groups, seed)
            row = {"model": model, "vectors": name, "seed": k, "n_train": n, "n_test": len(label)}
            row |= {"mae": error.mean(), "mae_lo": low, "mae_hi": high}
            reference = errors.get((model, "onehot", 0))
            if reference is not None and name != "onehot":
                row["diff_lo"], row["diff_hi"] = group_interval(error - reference, groups, seed)
            yield {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}


def _means(target: pd.Series, drawn: list[tuple], n: int) -> np.ndarray:
    """What the mean of the training rows says of every test row."""
    return np.concatenate(
        [np.full(len(test), target.loc[train[:n]].mean()) for train, test in drawn]
    )


def hybrid_rows(seed: int) -> list[dict]:
    """A row a choice of node features: the hybrid on dopants never seen, from few rows.

    Two folds of the ladder's step, `HYBRID_ROWS` rows and `HYBRID_EPOCHS` epochs; the difference
    from the first choice is paired, and its interval drawn by dopant.

    Args:
        seed: of the bootstrap; trainings have the seed 0.
    """
    values = {"data.train_rows": HYBRID_ROWS, "epochs": HYBRID_EPOCHS}
    config = with_values(load_config(CONFIGS / "hybrid.yaml"), values)
    errors, groups = {}, None
    for name, features in HYBRID_FEATURES.items():
        rows = []
        for fold in range(HYBRID_FOLDS):
            split = {"data.split.kind": "dopant", "data.split.fold": fold, "features": features}
            folder = HYBRID_FOLDER / f"{fold}-{'-'.join(features)}"
            train_without_weights(folder, with_values(config, split), 0)
            rows.append(Run(folder).part("test"))
        tested = pd.concat(rows)
        errors[name] = (tested.eform_pred - tested.eform).abs()
    dopant = prepare(config).dataset.frame.dopant
    first = next(iter(errors.values()))
    groups = dopant.loc[first.index].to_numpy()
    table = []
    for name, error in errors.items():
        low, high = group_interval(error.to_numpy(), groups, seed)
        row = {"features": name, "n_train": HYBRID_ROWS, "epochs": HYBRID_EPOCHS}
        row |= {"folds": HYBRID_FOLDS, "n_test": len(error), "mae": error.mean()}
        row |= {"mae_lo": low, "mae_hi": high}
        if error is not first:
            difference = (error - first).to_numpy()
            row["diff"] = difference.mean()
            row["diff_lo"], row["diff_hi"] = group_interval(difference, groups, seed)
        table.append({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
    return table
