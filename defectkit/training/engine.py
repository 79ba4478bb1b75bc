"""The engine: any model, trained by Lightning on the rows of a split.

Training reads the training and validation rows of the split, never the test rows: normalisation
comes from the first, the choice of the best epoch from the second. Every epoch draws its random
numbers from the seed and its own number, so that a run that was interrupted and resumed ends with
the same weights as one that was not.
"""

import contextlib
import ctypes
import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from torchmetrics import MeanAbsoluteError
from tqdm.auto import tqdm

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph
from defectkit.structures.writing import atomic, not_written
from defectkit.training.config import RunConfig, VectorConfig
from defectkit.training.objectives import loss_terms, make_optimiser, make_schedule
from defectkit.training.run import LAST

BEST = "best.ckpt"
METRICS, TENSORBOARD = "metrics.csv", "tensorboard"
MONITOR = "valid_eform_mae"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h

Collate = Callable[[list[int]], CrystalGraph | Tensor]


class Diverged(DefectkitError):  # noqa: N818 - the name says what happened
    """The loss or the validation error is no longer a number."""


class Part(NamedTuple):
    """What to train on or to validate with: how many, and from numbers to a batch."""

    n: int
    collate: Collate


class Shuffled(Sampler[int]):
    """Numbers 0 to n - 1 in a random order that depends on the seed and the epoch alone."""

    def __init__(self, n: int, seed: int):
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng([self.seed, self.epoch]).permutation(self.n).tolist())


class Teacher(pl.LightningModule):
    """What `fit_learner` trains: a `model`, judged by what it logs as `monitor`, lower is better.

    Every epoch draws from `seed` and its own number alone.
    """

    monitor: str
    model: nn.Module
    seed: int


class Learner(Teacher):
    """A model with its loss, optimiser and schedule.

    Args:
        model: called with a batch of graphs, returns `Output`.
        config: of the run.
        seed: of the random numbers inside an epoch, such as dropout.
        limits: range of the training labels of eform, eV.
    """

    monitor = MONITOR

    def __init__(self, model: nn.Module, config: RunConfig, seed: int, limits: tuple[float, float]):
        super().__init__()
        self.model, self.config, self.seed, self.limits = model, config, seed, limits
        self.errors = nn.ModuleDict({"eform": MeanAbsoluteError(), "spin": MeanAbsoluteError()})

    def on_train_epoch_start(self) -> None:
        """Dropout of an epoch depends on the seed and the epoch alone."""
        torch.manual_seed(self.seed * 100_003 + self.current_epoch)
        self.totals = 0.0

    def training_step(self, graph: CrystalGraph, number: int) -> Tensor:
        """The loss of one batch; its terms are logged."""
        output = self.model(graph)
        terms = loss_terms(
            output,
            graph.y_eform,
            graph.y_spin,
            self.config.loss,
            self.limits,
            graph.get("y_site_spin"),
        )
        loss = sum(terms.values())
        # Kept here and logged once an epoch: Lightning's own means cost a tenth of a step.
        values = torch.stack([loss, *terms.values()]).detach()
        self.totals = self.totals + len(graph.y_eform) * torch.cat([values, values.new_ones(1)])
        self.names = ["loss", *(f"{name}_term" for name in terms)]
        return loss

    def on_train_batch_end(self, outputs: dict, batch: CrystalGraph, batch_idx: int) -> None:
        """Log the means of the epoch with its last batch, in time for the callbacks at its end."""
        if not self.trainer.is_last_batch:
            return
        *totals, count = self.totals.tolist()
        means = {f"train_{name}": total / count for name, total in zip(self.names, totals)}
        self._stop_unless_finite("training loss", means["train_loss"])
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=1)

    def validation_step(self, graph: CrystalGraph, number: int) -> None:
        """Absolute errors of both targets; labels that are NaN are left out."""
        output = self.model(graph)
        for name, predicted, label in (
            ("eform", output.eform, graph.y_eform),
            ("spin", output.spin, graph.y_spin.abs()),
        ):
            known = ~label.isnan()
            if known.any():
                self.errors[name].update(predicted[known], label[known])

    def on_validation_epoch_end(self) -> None:
        """Log the errors in eV and μB."""
        for name, error in self.errors.items():
            if error.update_called:
                value = error.compute()
                self._stop_unless_finite(f"validation error of {name}", float(value))
                self.log(f"valid_{name}_mae", value)
            error.reset()

    def _stop_unless_finite(self, what: str, value: float) -> None:
        if not isfinite(value):
            raise Diverged(
                f"The training diverged: the {what} is {value} in epoch {self.current_epoch + 1}; "
                f"make optimiser.lr ({self.config.optimiser.lr:g}) smaller."
            )

    def configure_optimizers(self) -> dict:
        """Optimiser and schedule of the configuration."""
        optimiser = make_optimiser(self.model, self.config.optimiser)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimiser, self.config.schedule, steps)
        plateau = self.config.schedule.name == "plateau"
        how = {"interval": "epoch" if plateau else "step", "monitor": MONITOR}
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, **how}}


class EpochBar(ProgressBar):
    """One bar for the whole run with the latest errors, in a terminal and in a notebook."""

    def __init__(self):
        super().__init__()
        self.bar = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open it, at the epoch where a resumed run goes on."""
        self.bar = tqdm(
            total=trainer.max_epochs, initial=trainer.current_epoch, desc="epochs", unit="epoch"
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One step."""
        shown = {k: f"{v:.3f}" for k, v in trainer.callback_metrics.items() if "valid" in k}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close it."""
        self.bar.close()


class History(Callback):
    """Losses and errors of every epoch, in `metrics.csv` and in the state of the run.

    Attributes:
        rows: one an epoch: epoch (from 0), step, and what the learner logged.
    """

    def __init__(self, folder: Path):
        self.path, self.rows = folder / METRICS, []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One more row."""
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1, **logged}
        self.rows.append(row)
        with atomic(self.path) as part:
            pd.DataFrame(self.rows).to_csv(part, index=False)

    def state_dict(self) -> dict:
        """The rows so far; a resumed run goes on after its last kept epoch."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take the rows of the run that is resumed."""
        self.rows = list(state_dict["rows"])


class Patience(EarlyStopping):
    """Early stopping that stays where it was when a run is resumed after its end."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where patience was at its end already."""
        trainer.should_stop = self.wait_count >= self.patience


class WholeFiles(TorchCheckpointIO):
    """The state of a run is in its folder whole or not at all."""

    def save_checkpoint(
        self, checkpoint: dict, path: str | Path, storage_options: dict | None = None
    ) -> None:
        """Write it beside its place, then rename it."""
        with atomic(path) as part, open(part, "wb") as file:
            torch.save(checkpoint, file)


class Stopwatch(Callback):
    """Seconds of training in each epoch, validation left out."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.begin = time.perf_counter()

    def on_train_batch_end(self, *step: object) -> None:
        """The epoch's time so far; the last batch leaves the epoch's."""
        self.so_far = time.perf_counter() - self.begin

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep it."""
        self.seconds.append(self.so_far)

    def state_dict(self) -> dict:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take the seconds of the run that is resumed."""
        self.seconds = state_dict["seconds"]


def fit(
    model: nn.Module,
    config: RunConfig,
    parts: tuple[Part, Part],
    limits: tuple[float, float],
    seed: int,
    folder: Path,
    callbacks: tuple[Callback, ...] = (),
) -> dict[str, float]:
    """Train a model; it ends with the weights of its best epoch.

    Where `folder` holds the state of an interrupted run, that run goes on.

    Args:
        model: changed in place; it trains in training mode, whatever mode it comes in.
        config: of the run.
        parts: for training, and for validation.
        limits: range of the training labels of eform, eV.
        seed: of everything drawn at random.
        folder: for the state, `metrics.csv` and TensorBoard's files.
        callbacks: further ones of Lightning.

    Returns and raises what `fit_learner` does, with `valid_eform_mae` in eV.
    """
    chosen = [*callbacks]
    if config.ema is not None:
        chosen.append(EMAWeightAveraging(decay=config.ema))
    if config.patience is not None:
        chosen.append(Patience(MONITOR, patience=config.patience, check_finite=False))
    settings = {
        "accumulate_grad_batches": config.accumulate,
        "precision": config.precision,
        "devices": config.devices,
    }
    learner = Learner(model, config, seed, limits)
    return fit_learner(learner, config, parts, folder, chosen, **settings)


def fit_learner(
    learner: Teacher,
    config: RunConfig | VectorConfig,
    parts: tuple[Part, Part],
    folder: Path,
    callbacks: Sequence[Callback] = (),
    **settings: Any,
) -> dict[str, float]:
    """Train the model of a learner; it ends with the weights of its best epoch.

    Where `folder` holds the state of an interrupted run, that run goes on.

    Args:
        learner: with the model, which trains in training mode, whatever mode it comes in.
        config: how long, how many a batch, and the largest norm of a gradient.
        parts: for training, and for validation.
        folder: for the state, `metrics.csv` and TensorBoard's files.
        callbacks: further ones of Lightning.
        settings: further ones of its trainer.

    Returns:
        `epochs` run, `best_epoch`, its value of the learner's `monitor`, and `train_s_per_epoch`,
        the median.

    Raises `Diverged` at the first loss or error that is not finite, and DefectkitError for a
    damaged state or a folder that cannot be written to.
    """
    keep_memory()
    training, validation = parts
    learner.train()
    stopwatch, monitor = Stopwatch(), learner.monitor
    best = ModelCheckpoint(folder, "best", monitor, save_top_k=1, enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", save_top_k=1, enable_version_counter=False)
    chosen = [stopwatch, History(folder), best, last, *callbacks]
    with _quiet(), _interruptible(), _writing_errors(folder):
        trainer = pl.Trainer(
            max_epochs=config.epochs,
            gradient_clip_val=config.clip,
            callbacks=chosen,
            plugins=[WholeFiles()],
            logger=TensorBoardLogger(folder, "", TENSORBOARD),
            log_every_n_steps=1_000_000,  # once an epoch
            num_sanity_val_steps=0,
            enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in chosen),
            enable_model_summary=False,
            default_root_dir=folder,
            **settings,
        )
        trainer.fit(
            learner,
            _loader(training, config.batch_size, Shuffled(training.n, learner.seed)),
            _loader(validation, 2 * config.batch_size),
            ckpt_path=folder / LAST if _state(folder / LAST) else None,
            weights_only=True,
        )
    checkpoint = _state(folder / BEST)
    learner.load_state_dict(checkpoint["state_dict"])
    learner.model.eval()
    return {
        "epochs": trainer.current_epoch,
        "best_epoch": checkpoint["epoch"],
        monitor: float(best.best_model_score),
        "train_s_per_epoch": float(np.median(stopwatch.seconds)),
    }


def _state(path: Path) -> dict | None:
    """Read a file of the run's state; None where there is none."""
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    # torch has no error of its own for a damaged file: zip, pickle and key errors come up.
    except Exception as error:
        raise DefectkitError(
            f"{path} is damaged and the run cannot go on from it; remove {path.parent} to begin "
            "anew."
        ) from error


def _loader(part: Part, size: int, sampler: Sampler | None = None) -> DataLoader:
    return DataLoader(range(part.n), size, sampler=sampler, collate_fn=part.collate)


@contextlib.contextmanager
def _writing_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the system, while Lightning or TensorBoard writes, into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # raised by a callback, not by the system
            raise
        raise not_written(folder, error) from error


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays a KeyboardInterrupt, where Lightning ends the process and stays deaf to more."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from error
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGINT, handler)


def keep_memory() -> None:
    """Let the allocator of Linux keep large arrays for the next step.

    By default glibc returns every array above 32 MiB to the system, and each step pays for
    fresh pages: with ALIGNN a third of the processor's time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system, another allocator
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class _quiet:  # noqa: N801 - used like a function
    """Lightning's remarks on workers and hardware are not for the reader of a notebook."""

    def __enter__(self) -> None:
        self.level = logging.getLogger("lightning.pytorch").level
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\..*")

    def __exit__(self, *error: object) -> None:
        self.warnings.__exit__(*error)
        logging.getLogger("lightning.pytorch").setLevel(self.level)
