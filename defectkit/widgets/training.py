"""A picture of a training run that grows while it runs."""

import lightning.pytorch as pl
import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from lightning.pytorch.callbacks import Callback

from defectkit.plots.results import learning_curve
from defectkit.training.engine import History

SHOWN = ("train_loss", "valid_eform_mae")


class LiveCurve(Callback):
    """Draws the loss and the validation error anew after every epoch, in one place of the page.

    For `train(..., progress=False, callbacks=(LiveCurve(),))`. Outside of a notebook nothing is
    drawn. A run that is resumed shows its earlier epochs as well.

    Args:
        baseline: eV, a mean absolute error to compare with, such as that of predicting the mean.

    Attributes:
        metrics: columns train_loss and valid_eform_mae (eV) by epoch, counted from 1.
    """

    def __init__(self, baseline: float | None = None) -> None:
        self.baseline = baseline
        self.metrics = pd.DataFrame(columns=list(SHOWN), dtype=float)
        self.handle = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the metrics of the epoch that ended, and draw them."""
        history = next(c for c in trainer.callbacks if isinstance(c, History))
        self.metrics = pd.DataFrame(history.rows).set_index("epoch")[list(SHOWN)]
        self.metrics.index += 1
        if _in_notebook():
            self._draw(trainer.max_epochs)

    def in_words(self) -> str:
        """Tell where the error falls below the baseline, and its best and last value (eV)."""
        error = self.metrics.valid_eform_mae
        below = error.index[error < self.baseline]
        where = "never below the dashed line"
        if len(below):
            where = f"below the dashed line from epoch {below[0]} on"
        return (
            f"{where} · best in epoch {error.idxmin()}, {error.min():.2f} eV, at the end "
            f"{error.iloc[-1]:.2f} eV"
        )

    def _draw(self, epochs: int) -> None:
        axes = learning_curve(self.metrics, epochs, self.baseline)
        figure = axes[0].figure
        plt.close(figure)  # else the notebook shows it a second time
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)


def _in_notebook() -> bool:
    """Whether pictures can be shown: only a notebook's shell has a kernel."""
    return hasattr(get_ipython(), "kernel")
