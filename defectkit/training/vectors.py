"""Vectors of the elements, learned from formulas without a label: a corpus becomes a table.

A run folder holds what `training.run` says, with `vectors.csv` in place of predictions: a row an
element of the corpus, a column a dimension.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase.data import chemical_symbols
from safetensors.torch import save_file
from torch import Tensor

from defectkit.data.formulas import Corpus, groups, named
from defectkit.models.formulas import (
    FormulaEncoder,
    Formulas,
    Guess,
    Sentences,
    masked,
    sentences,
    task_losses,
)
from defectkit.structures.writing import atomic, checksum, write_text
from defectkit.training import engine
from defectkit.training.config import VectorConfig, text_of
from defectkit.training.objectives import make_optimiser, make_schedule
from defectkit.training.run import LAST, SETTINGS, SUMMARY, Run, claim, clear, held

VECTORS, WEIGHTS = "vectors.csv", "model.safetensors"
STATE = (LAST, engine.BEST)
FILES = (SUMMARY, *STATE, VECTORS, WEIGHTS, engine.METRICS, engine.TENSORBOARD, SETTINGS)
VALID_SHARE = 0.05  # of the formulas
VALID_SEED = 0  # of their masks and partners, which stay the same in every epoch
ALIKE = 0.5  # share of pairs whose partner is looked for among formulas of the same groups


@dataclass(frozen=True, eq=False)
class Partners:
    """Formulas that are drawn as second ones of pairs.

    Two formulas are alike where the groups of the periodic table that their elements belong to are
    the same, however often: NaCl and K2S are not, NaCl and KBr are, and so are CaTiO3 and SrZrS3.

    Attributes:
        formulas: of one part of a corpus.
        kind: (n,) number of the set of groups of each.
        order, place: formulas sorted by kind, and where each stands there.
        first, count: where the kind of each begins there, and how many are of it.
    """

    formulas: Formulas
    kind: Tensor
    order: Tensor
    place: Tensor
    first: Tensor
    count: Tensor

    @classmethod
    def of(cls, corpus: Corpus) -> "Partners":
        """The formulas of a corpus."""
        held_groups = np.zeros((len(corpus), 19), dtype=bool)
        np.put_along_axis(held_groups, groups()[corpus.z], True, axis=1)
        _, kind, count = np.unique(
            held_groups[:, 1:], axis=0, return_inverse=True, return_counts=True
        )
        kind = kind.ravel()
        order = np.argsort(kind, kind="stable")
        first = np.cumsum(count) - count
        arrays = kind, order, np.argsort(order), first[kind], count[kind]
        formulas = Formulas(*map(torch.as_tensor, (corpus.z, corpus.amount)))
        return cls(formulas, *map(torch.as_tensor, arrays))

    def pairs(self, rows: Tensor, generator: torch.Generator) -> tuple[Sentences, Tensor]:
        """Sentences of pairs whose first formulas these are, and whether they are alike, (B,).

        Half of the partners are drawn from the other formulas of the same groups, where there are
        any, the rest from all.
        """
        chance, where, anywhere = torch.rand((3, len(rows)), generator=generator)
        first, count = self.first[rows], self.count[rows]
        others = (count - 1).clamp(min=1)
        ahead = 1 + (where * others).long()  # in the circle of its kind, and never back to itself
        same = self.order[first + (self.place[rows] - first + ahead) % count]
        partner = (anywhere * len(self.kind)).long()
        partner = torch.where((chance < ALIKE) & (count > 1), same, partner)
        pair = (Formulas(*(values[k] for values in self.formulas)) for k in (rows, partner))
        return sentences(*pair), self.kind[partner] == self.kind[rows]


class VectorLearner(engine.Teacher):
    """The encoder with both tasks; every epoch draws partners and masks anew.

    Args:
        model: the encoder.
        config: of the run.
        partners: formulas of training and of validation.
        seed: of everything drawn at random.
    """

    monitor = "valid_element"

    def __init__(
        self,
        model: FormulaEncoder,
        config: VectorConfig,
        partners: tuple[Partners, Partners],
        seed: int,
    ):
        super().__init__()
        self.model, self.config, self.seed = model, config, seed
        self.training_part, self.validation_part = partners

    def on_train_epoch_start(self) -> None:
        """Draws of an epoch depend on the seed and the epoch alone."""
        self.generator = torch.Generator().manual_seed(self.seed * 100_003 + self.current_epoch)
        self.totals = {}

    def training_step(self, rows: Tensor, number: int) -> Tensor:
        """The loss of one batch."""
        losses = self._judged(self.training_part, rows, self.generator)
        self._add({f"train_{name}": losses[name] for name in ("element", "groups")}, len(rows))
        return losses["element"] + self.config.groups * losses["groups"]

    def on_train_batch_end(self, outputs: dict, batch: Tensor, batch_idx: int) -> None:
        """Log the means of the epoch with its last batch."""
        if self.trainer.is_last_batch:
            self._log_means()

    def on_validation_epoch_start(self) -> None:
        """The same partners and masks in every epoch."""
        self.fixed, self.totals = torch.Generator().manual_seed(VALID_SEED), {}

    def validation_step(self, rows: Tensor, number: int) -> None:
        """Losses, and shares of right guesses."""
        found = self._judged(self.validation_part, rows, self.fixed)
        self._add({f"valid_{name}": value for name, value in found.items()}, len(rows))

    def on_validation_epoch_end(self) -> None:
        """Log the means."""
        self._log_means()

    def configure_optimizers(self) -> dict:
        """Optimiser and schedule of the configuration."""
        optimiser = make_optimiser(self.model, self.config.optimiser)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimiser, self.config.schedule, steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _judged(
        self, part: Partners, rows: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        pairs, alike = part.pairs(rows, generator)
        token, asked = masked(pairs.token, generator)
        guess = self.model(pairs._replace(token=token))
        losses = task_losses(guess, pairs.token, asked, alike)
        return losses | _shares_right(guess, pairs.token, asked, alike)

    def _add(self, values: dict[str, Tensor], weight: int) -> None:
        for name, value in values.items():
            total, count = self.totals.get(name, (0.0, 0))
            self.totals[name] = total + weight * value.detach(), count + weight

    def _log_means(self) -> None:
        means = {name: float(total / count) for name, (total, count) in self.totals.items()}
        for name, value in means.items():
            if not np.isfinite(value):
                raise engine.Diverged(
                    f"The training diverged: {name} is {value} in epoch {self.current_epoch + 1}; "
                    f"make optimiser.lr ({self.config.optimiser.lr:g}) smaller."
                )
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)


def _shares_right(guess: Guess, token: Tensor, asked: Tensor, alike: Tensor) -> dict[str, Tensor]:
    """Share of masked elements and of pairs that are guessed right, and of pairs that are alike."""
    right = guess.element[asked].argmax(dim=-1) + 1 == token[asked]
    return {
        "element_right": right.float().sum() / asked.sum().clamp(min=1),
        "groups_right": ((guess.alike > 0) == alike).float().mean(),
        "alike": alike.float().mean(),
    }


def learn_vectors(
    config: VectorConfig,
    folder: Path,
    seed: int = 0,
    progress: bool = True,
    callbacks: tuple[engine.Callback, ...] = (),
    corpus: Corpus | None = None,
) -> Run:
    """Learn vectors from the corpus of a configuration and write the run folder.

    A folder that holds a finished run is returned as it is; an interrupted one is resumed. Either
    must have been made with the same configuration, corpus and seed. The epoch with the best loss
    of masked elements, on formulas kept apart, is the one whose vectors are written.

    Args:
        config: what is learned, and how long.
        folder: the run folder, made where it is missing.
        seed: of weights, partners and masks; the corpus and its parts are the same for all seeds.
        progress: whether a bar is shown.
        callbacks: further ones of Lightning.
        corpus: formulas, where they are at hand already.

    Raises DefectkitError for a corpus that cannot be had, a folder that holds another run or is in
    use, and for a training that diverges.
    """
    folder = Path(folder)
    corpus = named(config.corpus, config.rows) if corpus is None else corpus
    identity = {
        "seed": seed,
        "corpus_fingerprint": f"{checksum({'z': corpus.z, 'amount': corpus.amount}):08x}",
    }
    with held(folder):
        claim(folder, config, identity, FILES)
        run = Run(folder)
        if run.finished:
            return run
        try:
            _learn(config, corpus, folder, identity, (*_bar(progress), *callbacks))
        except BaseException as error:
            if isinstance(error, engine.Diverged) or not (folder / LAST).exists():
                clear(folder, FILES)
            raise
        for name in STATE:
            with suppress(OSError):
                (folder / name).unlink(missing_ok=True)
    return run


def _bar(progress: bool) -> list[engine.Callback]:
    return [engine.EpochBar()] if progress else []


def _learn(
    config: VectorConfig,
    corpus: Corpus,
    folder: Path,
    identity: dict,
    callbacks: tuple[engine.Callback, ...],
) -> None:
    begin = time.perf_counter()
    seed = identity["seed"]
    halves = corpus.parts(VALID_SHARE, VALID_SEED)
    torch.manual_seed(seed)
    model = FormulaEncoder(config.hidden, config.layers, config.heads)
    learner = VectorLearner(model, config, tuple(map(Partners.of, halves)), seed)
    parts = tuple(engine.Part(len(half), torch.tensor) for half in halves)
    outcome = engine.fit_learner(learner, config, parts, folder, callbacks)
    with atomic(folder / WEIGHTS) as part:
        save_file(model.state_dict(), part)
    table = vector_table(model, corpus)
    with atomic(folder / VECTORS) as part:
        table.to_csv(part, float_format="%.5f")
    summary = {
        **identity,
        **outcome,
        "corpus": config.corpus,
        "formulas": dict(zip(("train", "valid"), map(len, halves))),
        "skipped": corpus.skipped,
        "guess": _loss_of_shares(*halves),
        "elements": len(table),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - begin, 1),
        "versions": {name: version(name) for name in ("torch", "lightning", "pymatgen")},
    }
    write_text(folder / SUMMARY, text_of(summary))


def _loss_of_shares(train: Corpus, valid: Corpus) -> float:
    """Nats a masked element for who knows how frequent each element is, and nothing else."""
    seen, asked = (np.bincount(part.z[part.z > 0], minlength=119)[1:] for part in (train, valid))
    share = (seen + 1) / (seen + 1).sum()
    return float(-(asked * np.log(share)).sum() / asked.sum())


def vector_table(model: FormulaEncoder, corpus: Corpus) -> pd.DataFrame:
    """Vectors of the elements that a corpus has shown: a row a symbol, columns v1, v2, ..."""
    vectors = model.vectors.detach().numpy()
    seen = np.unique(corpus.z[corpus.z > 0])
    names = [f"v{k}" for k in range(1, vectors.shape[1] + 1)]
    symbols = pd.Index([chemical_symbols[z] for z in seen], name="element")
    return pd.DataFrame(vectors[seen - 1], symbols, names)
