"""The engine: any model, trained by Lightning on the rows of a split.

Training reads the training and validation rows of the split, never the test rows: normalisation
comes from the first, the choice of the best epoch from the second. Every epoch draws its random
numbers from the seed and its own number, so that a run that was interrupted and resumed ends with
the same weights as one that was not.
"""

import contextlib
import ctypes
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    ProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from torchmetrics import MeanAbsoluteError
from tqdm.auto import tqdm

from defectkit.config import RunConfig
from defectkit.graphs.build import CrystalGraph
from defectkit.training.objectives import loss_terms, make_optimiser, make_schedule

LAST, BEST = "last.ckpt", "best.ckpt"
MONITOR = "valid_eform_mae"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h

Collate = Callable[[list[int]], CrystalGraph]


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


class Learner(pl.LightningModule):
    """A model with its loss, optimiser and schedule.

    Args:
        model: called with a batch of graphs, returns `Output`.
        config: of the run.
        seed: of the random numbers inside an epoch, such as dropout.
        limits: range of the training labels of eform, eV.
    """

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
        terms = loss_terms(output, graph.y_eform, graph.y_spin, self.config.loss, self.limits)
        loss = sum(terms.values())
        # Kept here and logged once an epoch: Lightning's own means cost a tenth of a step.
        values = torch.stack([loss, *terms.values()]).detach()
        self.totals = self.totals + len(graph.y_eform) * torch.cat([values, values.new_ones(1)])
        self.names = ["loss", *(f"{name}_term" for name in terms)]
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the means of the epoch."""
        *totals, count = self.totals.tolist()
        for name, total in zip(self.names, totals):
            self.log(f"train_{name}", total / count)

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
                self.log(f"valid_{name}_mae", error.compute())
            error.reset()

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
        shown = {k: f"{v:.3f}" for k, v in trainer.callback_metrics.items() if "mae" in k}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close it."""
        self.bar.close()


class Stopwatch(Callback):
    """Seconds of training in each epoch, validation left out."""

    def __init__(self):
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start."""
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """The epoch's time so far; the last batch leaves the epoch's."""
        self.so_far = time.perf_counter() - self.begin

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep it."""
        self.seconds.append(self.so_far)

    def state_dict(self) -> dict:
        """For a run that is resumed."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict) -> None:
        """Likewise."""
        self.seconds = state_dict["seconds"]


def fit(
    model: nn.Module,
    config: RunConfig,
    training: tuple[int, Collate],
    validation: tuple[int, Collate],
    limits: tuple[float, float],
    seed: int,
    folder: Path,
    progress: bool = True,
    callbacks: tuple[Callback, ...] = (),
) -> dict[str, float]:
    """Train a model; it ends with the weights of its best epoch.

    Where `folder` holds the state of an interrupted run, that run goes on.

    Args:
        model: changed in place.
        config: of the run.
        training: how many structures, and a function from their numbers to a batch.
        validation: likewise.
        limits: range of the training labels of eform, eV.
        seed: of everything drawn at random.
        folder: for the state, `metrics.csv` and TensorBoard's files.
        progress: whether a bar is shown.
        callbacks: further ones of Lightning.

    Returns:
        `epochs` run, `best_epoch`, `valid_eform_mae` (eV) of the best, and
        `train_s_per_epoch`, the median.
    """
    keep_memory()
    learner = Learner(model, config, seed, limits)
    stopwatch = Stopwatch()
    best = ModelCheckpoint(folder, "best", MONITOR, save_top_k=1, enable_version_counter=False)
    last = ModelCheckpoint(folder, "last", save_top_k=1, enable_version_counter=False)
    chosen = [stopwatch, best, last, *callbacks]
    if config.ema is not None:
        chosen.append(EMAWeightAveraging(decay=config.ema))
    if config.patience is not None:
        chosen.append(EarlyStopping(MONITOR, patience=config.patience))
    if progress:
        chosen.append(EpochBar())
    with _quiet():
        trainer = pl.Trainer(
            max_epochs=config.epochs,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.clip,
            precision=config.precision,
            devices=config.devices,
            callbacks=chosen,
            logger=[CSVLogger(folder, "", ""), TensorBoardLogger(folder, "", "tensorboard")],
            log_every_n_steps=1_000_000,  # once an epoch
            num_sanity_val_steps=0,
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=folder,
        )
        state = folder / LAST
        trainer.fit(
            learner,
            _loader(*training, config.batch_size, Shuffled(training[0], seed)),
            _loader(*validation, 2 * config.batch_size),
            ckpt_path=state if state.is_file() else None,
            weights_only=True,
        )
    checkpoint = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    learner.load_state_dict(checkpoint["state_dict"])
    model.eval()
    return {
        "epochs": trainer.current_epoch,
        "best_epoch": checkpoint["epoch"],
        MONITOR: float(best.best_model_score),
        "train_s_per_epoch": float(np.median(stopwatch.seconds)),
    }


def _loader(n: int, collate: Collate, size: int, sampler: Sampler | None = None) -> DataLoader:
    return DataLoader(range(n), size, sampler=sampler, collate_fn=collate)


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

    def __enter__(self):
        self.level = logging.getLogger("lightning.pytorch").level
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\..*")

    def __exit__(self, *error):
        self.warnings.__exit__(*error)
        logging.getLogger("lightning.pytorch").setLevel(self.level)
