"""The search for settings: Optuna over a `TuneConfig`, judged on validation rows alone.

The study lies in `study.db` (SQLite) in its folder, so that a search that was interrupted goes
on where it stopped. Trials that are behind the median of earlier ones are pruned.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
from lightning.pytorch.callbacks import Callback

from defectkit.config import TuneConfig, save_config, with_values
from defectkit.data.dataset import Dataset
from defectkit.data.splits import Split
from defectkit.tabular.models import TABULAR
from defectkit.training.engine import MONITOR
from defectkit.training.runs import train

PRUNE_AFTER = 5  # trials and epochs that are never cut short


class Report(Callback):
    """Tells Optuna the validation error of every epoch and stops where it says so."""

    def __init__(self, trial):
        self.trial = trial

    def on_validation_end(self, trainer, pl_module) -> None:
        """Report; raises `optuna.TrialPruned`."""
        import optuna

        self.trial.report(trainer.callback_metrics[MONITOR].item(), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def tune(
    config: TuneConfig, dataset: Dataset, split: Split, folder: Path, seed: int = 0
) -> pd.DataFrame:
    """Search, and write `best.yaml`, the `RunConfig` of the best trial, and `trials.csv`.

    Args:
        config: what to search.
        dataset: cleaned rows.
        split: of these; its test rows are left out before anything else happens.
        folder: for the study, made where it is missing.
        seed: of the sampler and of every trial.

    Returns:
        a row a trial: number, state, value (validation MAE of eform, eV), settings, seconds.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    blind = replace(split, test=())

    def objective(trial: optuna.Trial) -> float:
        chosen = {name: _suggest(trial, name, choice) for name, choice in config.search.items()}
        run_config = with_values(config.run, chosen)
        callbacks = () if run_config.model.name in TABULAR else (Report(trial),)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            run = train(
                run_config, dataset, blind, Path(place), seed, progress=False, callbacks=callbacks
            )
            rows = run.predictions
        return float((rows.eform_pred - rows.eform).abs().mean())

    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'study.db'}",
        study_name="tune",
        load_if_exists=True,
        sampler=_sampler(config, seed),
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER, PRUNE_AFTER),
    )
    done = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    left = config.trials - len(study.get_trials(states=done))
    if left > 0:
        study.optimize(objective, n_trials=left, show_progress_bar=True)
    save_config(with_values(config.run, study.best_params), folder / "best.yaml")
    trials = study.trials_dataframe(("number", "state", "value", "params", "duration"))
    trials = trials.rename(columns=lambda name: name.removeprefix("params_"))
    trials["seconds"] = trials.pop("duration").dt.total_seconds().round(1)
    trials.to_csv(folder / "trials.csv", index=False)
    return trials


def _suggest(trial, name: str, choice):
    if choice.choices:
        return trial.suggest_categorical(name, choice.choices)
    return trial.suggest_float(name, choice.low, choice.high, log=choice.log)


def _sampler(config: TuneConfig, seed: int):
    import optuna

    if config.sampler == "bayes":
        return optuna.samplers.TPESampler(seed=seed)
    grid = {name: list(choice.choices) for name, choice in config.search.items()}
    return optuna.samplers.GridSampler(grid, seed=seed)
