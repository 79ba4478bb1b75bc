"""Whether a row is of the kind that a model learned from: the out-of-domain guard.

Two signs, each blind where the other sees. The spread of an ensemble is large where its members
had nothing to learn from; but members of one kind can agree and be wrong together. Distance to
the training set is large for a new host or dopant; but a familiar structure can be difficult all
the same. The guard asks both, with thresholds that are quantiles on validation rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import torch
from ase.data import atomic_numbers
from ase.formula import Formula
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler
from torch import nn

from defectkit import DefectkitError
from defectkit.graphs.dataset import GraphDataset
from defectkit.graphs.elements import feature_table
from defectkit.training.inference import predict

NEIGHBOURS = 5
QUANTILE = 0.95  # of the validation rows lie inside each threshold
VERDICTS = ("inside", "spread", "unlike", "both")


def predict_with_vectors(
    model: nn.Module, graphs: GraphDataset, numbers: Sequence[int] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions, and the vectors from which the network's heads read them, in one pass.

    A hook on `model.heads` takes the vectors, so any model of the kit will do.

    Args:
        model: of `models.MODELS`.
        graphs: of the configuration that the model was trained with.
        numbers: which of them; all by default.

    Returns:
        What `predict.predict` returns, and the vectors, (B, D); both indexed by uid.
    """
    vectors = []
    hook = model.heads.register_forward_pre_hook(lambda module, args: vectors.append(args[0]))
    try:
        predicted = predict(model, graphs, numbers)
    finally:
        hook.remove()
    return predicted, pd.DataFrame(torch.cat(vectors).numpy(), predicted.index)


def composition_vectors(frame: pd.DataFrame) -> pd.DataFrame:
    """What a defect is made of, (rows, 4 F + 2), indexed by uid.

    Standardised properties of the elements (`graphs.elements.feature_table`, "elemental"), their
    mean and largest over the host, their mean over the dopants and over the removed atoms; zeros
    where there is none, and how many of these there are.

    Args:
        frame: columns formula, dopant and removed of `Dataset.frame`.

    Raises DefectkitError for a host whose cell is not known and whose name is no formula.
    """
    columns = frame[["formula", "dopant", "removed"]]
    rows = [composition_vector(*row) for row in columns.itertuples(index=False)]
    return pd.DataFrame(rows, frame.index)


def composition_vector(formula: str, dopant: str, removed: str) -> np.ndarray:
    """(4 F + 2,), a row of `composition_vectors`."""
    changes = (dopant, removed)
    counts = [len(_symbols(symbols)) for symbols in changes]
    return np.concatenate([_host_vector(formula), *map(_mean_element, changes), counts])


@cache
def _host_vector(formula: str) -> np.ndarray:
    try:
        counts = Formula(formula).count()
        numbers = [atomic_numbers[symbol] for symbol in counts]
    except (ValueError, KeyError) as error:
        raise DefectkitError(
            f"There is no cell of the host {formula}, and its name is no chemical formula; give "
            "its cell, or name it like MoS2."
        ) from error
    values = _elements()[numbers]
    mean = np.average(values, axis=0, weights=list(counts.values()))
    return np.concatenate([mean, values.max(axis=0)])


@cache
def _mean_element(symbols: str) -> np.ndarray:
    unknown = [symbol for symbol in _symbols(symbols) if symbol not in atomic_numbers]
    if unknown:
        raise DefectkitError(f"There is no element {unknown[0]}; mend the symbol.")
    numbers = [atomic_numbers[symbol] for symbol in _symbols(symbols)]
    return _elements()[numbers].mean(axis=0) if numbers else np.zeros(_elements().shape[1])


def _symbols(text: str) -> list[str]:
    return [symbol for symbol in text.split(",") if symbol]


@cache
def _elements() -> np.ndarray:
    """(119, F), columns standardised over the elements up to bismuth."""
    table = feature_table(("elemental",))
    values = table.values[:, ~table.is_flag]
    return (values - values[1:84].mean(axis=0)) / values[1:84].std(axis=0)


class Nearness:
    """Mean distance to the nearest training rows, in units of the training rows' own.

    Args:
        training: (M, D) vectors; columns are brought to one scale.
        k: how many neighbours.

    The unit is the median distance of a training row to its k nearest others.
    """

    def __init__(self, training: pd.DataFrame, k: int = NEIGHBOURS):
        if len(training) <= k:
            raise DefectkitError(f"{len(training)} training rows are too few for {k} neighbours.")
        self.scaler = StandardScaler().fit(training.to_numpy())
        self.neighbours = NearestNeighbors(n_neighbors=k).fit(
            self.scaler.transform(training.to_numpy())
        )
        unit = float(np.median(self.neighbours.kneighbors()[0].mean(axis=1)))
        self.unit = unit or 1.0  # all training rows alike

    def __call__(self, rows: pd.DataFrame) -> pd.Series:
        """(n, D) vectors -> (n,) distances, by uid."""
        distance, _ = self.neighbours.kneighbors(self.scaler.transform(rows.to_numpy()))
        return pd.Series(distance.mean(axis=1) / self.unit, rows.index)


@dataclass(frozen=True)
class Guard:
    """Thresholds of the signs of an unfamiliar row; above any of them it is one.

    Attributes:
        spread: eV, of the ensemble's sigma.
        distances: by name of a distance, such as "latent" and "composition".
    """

    spread: float
    distances: dict[str, float]

    @classmethod
    def fit(cls, signs: pd.DataFrame, quantile: float = QUANTILE) -> "Guard":
        """Thresholds that `quantile` of the validation rows stay below.

        Args:
            signs: columns spread (eV) and any number of distances, a row a validation row.
            quantile: of each sign; with several distances more rows than that are "unlike".
        """
        limits = signs.quantile(quantile)
        return cls(float(limits.spread), limits.drop("spread").astype(float).to_dict())

    def verdict(self, signs: pd.DataFrame) -> pd.DataFrame:
        """One of `VERDICTS` for every row, and a sentence that says why.

        Args:
            signs: as in `fit`; where there is a text in a column `reading`, what makes the
                structure doubtful, the row is never "inside".

        Returns:
            Columns `verdict` and `sentence`, by uid.
        """
        spread = signs.spread > self.spread
        far = pd.DataFrame({name: signs[name] > limit for name, limit in self.distances.items()})
        doubts = signs.get("reading", pd.Series("", signs.index))
        unlike = far.any(axis=1) | (doubts != "")
        verdict = np.select(
            [spread & unlike, spread, unlike], ["both", "spread", "unlike"], "inside"
        )
        sentences = [
            self._sentence(value, [name for name in far if far.loc[uid, name]], doubts[uid])
            for uid, value in signs.spread.items()
        ]
        return pd.DataFrame({"verdict": verdict, "sentence": sentences}, signs.index)

    def _sentence(self, spread: float, far: list[str], doubt: str) -> str:
        wide = spread > self.spread
        if not wide and not far and not doubt:
            return (
                f"The models agree (spread {spread:.2f} eV) and the training set holds similar "
                "defects."
            )
        parts = []
        if wide:
            parts.append(
                f"the models disagree (spread {spread:.2f} eV; usual is less than "
                f"{self.spread:.2f} eV)"
            )
        if far:
            parts.append(f"the training set holds nothing similar in {' or '.join(far)}")
        if doubt:
            parts.append(f"the structure is in doubt ({doubt})")
        text = " and ".join(parts)
        return f"{text[0].upper()}{text[1:]}: do not rely on this value."
