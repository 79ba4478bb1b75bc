"""Predictions that say how far to trust them: an ensemble with its intervals and its guard.

A predictor joins runs that differ by their seed alone. What it must know of the rows they learned
from is stored in one file beside their folders, so that a prediction needs no data set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from ase import Atoms
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from defectkit import DefectkitError
from defectkit.checkpoint import ModelCard, load_model
from defectkit.domain import Guard, Nearness, composition_vectors, predict_with_vectors
from defectkit.graphs.dataset import load_graphs
from defectkit.predict import predict
from defectkit.records import DefectRecord, to_frame
from defectkit.sanity import flags
from defectkit.tabular.models import TABULAR
from defectkit.training.runs import Run, graphs_of, load_data
from defectkit.uncertainty import Conformal, ensemble, mean_and_sigma

MEMBERS = "members"  # names of the run folders, in the file's own header
VALID = ["eform", "eform_pred", "eform_sigma", "latent", "composition"]


@dataclass(frozen=True)
class Predictor:
    """An ensemble of networks that differ by their seed, with what judges its predictions.

    Attributes:
        members: folders of the runs.
        latent: (n, D) latent vectors of the training rows in the first member, half precision.
        composition: (n, C) their `domain.composition_vectors`, half precision.
        valid: columns `VALID` of the validation rows: label, mean prediction and spread (eV), and
            the distances to the training rows.
    """

    members: tuple[Path, ...]
    latent: np.ndarray
    composition: np.ndarray
    valid: pd.DataFrame

    @classmethod
    def fit(cls, runs: Sequence[Run]) -> "Predictor":
        """Join finished runs of a network.

        Args:
            runs: of one configuration and several seeds, with their data set at hand.

        Raises DefectkitError for fewer than two runs, tables' models, or runs that differ by more
        than their seed.
        """
        first = runs[0]
        if any(run.config != first.config for run in runs):
            raise DefectkitError(
                "The runs differ by more than their seed; give runs of one configuration."
            )
        if first.config.model.name in TABULAR:
            raise DefectkitError(
                f"{first.config.model.name} keeps no weights and has no latent vectors; give runs "
                "of a network."
            )
        valid = ensemble([run.part("valid") for run in runs]).dropna(subset=["eform"])
        dataset, split = load_data(first.config)
        graphs = graphs_of(dataset, first.config.graph)
        model, _ = load_model(first.folder)
        _, latent = predict_with_vectors(model, graphs, graphs.select(split.train))
        composition = composition_vectors(dataset.frame.loc[latent.index])
        nearness = _nearness(latent.to_numpy(np.float16), composition.to_numpy(np.float16))
        _, vectors = predict_with_vectors(model, graphs, graphs.select(valid.index))
        valid = valid.join(_distances(nearness, vectors, dataset.frame))
        return cls(
            tuple(run.folder for run in runs),
            latent.to_numpy(np.float16),
            composition.to_numpy(np.float16),
            valid[VALID].astype(np.float32),
        )

    def save(self, path: str | Path) -> None:
        """Write one file; it must lie beside the folders of the members."""
        path = Path(path)
        if any(folder.resolve().parent != path.resolve().parent for folder in self.members):
            raise DefectkitError(f"{path} must lie in the folder that holds its members.")
        arrays = {
            "latent": self.latent,
            "composition": self.composition,
            "valid": self.valid.to_numpy(np.float32),
        }
        # The format knows rows that follow each other only, and tables keep columns.
        arrays = {key: np.ascontiguousarray(values) for key, values in arrays.items()}
        save_file(arrays, path, {MEMBERS: "\n".join(folder.name for folder in self.members)})

    @classmethod
    def load(cls, path: str | Path) -> "Predictor":
        """Read a file of `save`; DefectkitError where it is missing or damaged."""
        path = Path(path)
        try:
            with safe_open(path, "numpy") as file:
                names = file.metadata()[MEMBERS].splitlines()
                arrays = {key: file.get_tensor(key) for key in ("latent", "composition", "valid")}
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise DefectkitError(
                f"{path} is missing or holds no predictor ({error}); make it with `defectkit join`."
            ) from error
        valid = pd.DataFrame(arrays["valid"], columns=VALID)
        members = tuple(path.parent / name for name in names)
        return cls(members, arrays["latent"], arrays["composition"], valid)

    def __call__(
        self,
        records: Sequence[DefectRecord],
        hosts: Mapping[str, Atoms],
        confidence: float = 0.9,
    ) -> pd.DataFrame:
        """Predict, and judge every prediction.

        Args:
            records: structures, in relaxed or unrelaxed positions as the members learned.
            hosts: the pristine host of each by name (`Dataset.hosts`).
            confidence: of the intervals.

        Returns:
            Indexed by uid: `eform` (eV) and `spin` (μB), means of the members, and their spreads
            `eform_sigma` and `spin_sigma`; the conformal interval `eform_lo` to `eform_hi`; the
            distances `latent` and `composition` to the training rows (`domain.Nearness`), and the
            guard's `verdict` (`domain.VERDICTS`) on these and the spread with its `sentence`;
            `impossible`, what is wrong with a value that cannot be (`sanity.flags`), else empty.

        Raises DefectkitError as `graphs.dataset.load_graphs` does.
        """
        graphs = load_graphs(list(records), hosts, self.card.graph)
        (first, _), *others = self._models
        predicted, vectors = predict_with_vectors(first, graphs)
        members = [predicted, *(predict(model, graphs) for model, _ in others)]
        table = pd.DataFrame(index=predicted.index)
        for target in ("eform", "spin"):
            table[target], table[f"{target}_sigma"] = mean_and_sigma(members, target)
        half = self._conformal.half_width(table, confidence)
        signs = _distances(self._nearness, vectors, to_frame(records, hosts))
        signs["spread"] = table.eform_sigma
        atoms = {record.uid: record.atoms for record in records}
        wrong = flags(table, self.card.eform_range, self.card.spin_range, atoms)
        return table.assign(
            eform_lo=table.eform - half,
            eform_hi=table.eform + half,
            **signs[["latent", "composition"]],
            **self.guard.verdict(signs),
            impossible=wrong.apply(lambda row: "; ".join(filter(None, row)), axis=1),
        )

    @property
    def card(self) -> ModelCard:
        """Of the first member."""
        return self._models[0][1]

    @cached_property
    def guard(self) -> Guard:
        """With the thresholds of the validation rows."""
        signs = self.valid.rename(columns={"eform_sigma": "spread"})
        return Guard.fit(signs[["spread", "latent", "composition"]])

    @cached_property
    def _models(self) -> list[tuple[nn.Module, ModelCard]]:
        return [load_model(folder) for folder in self.members]

    @cached_property
    def _conformal(self) -> Conformal:
        return Conformal.fit(self.valid, normalised=True)

    @cached_property
    def _nearness(self) -> dict[str, Nearness]:
        return _nearness(self.latent, self.composition)


def _nearness(latent: np.ndarray, composition: np.ndarray) -> dict[str, Nearness]:
    """To the training rows, by the name of the distance."""
    vectors = {"latent": latent, "composition": composition}
    return {name: Nearness(pd.DataFrame(one.astype(float))) for name, one in vectors.items()}


def _distances(
    nearness: dict[str, Nearness], latent: pd.DataFrame, frame: pd.DataFrame
) -> pd.DataFrame:
    """Of rows with these latent vectors, by uid; `frame` says what they are made of."""
    composition = composition_vectors(frame.loc[latent.index])
    rows = {"latent": latent, "composition": composition}
    return pd.DataFrame({name: measure(rows[name]) for name, measure in nearness.items()})
