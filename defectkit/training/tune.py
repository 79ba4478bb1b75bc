"""The search for settings: Optuna over a `TuneConfig`, judged on validation rows alone.

The study lies in `study.db` (SQLite) in its folder, so that a search that was interrupted goes
on where it stopped, with the draws that it would have made without the interruption. Trials that
are behind the median of earlier ones are pruned.
"""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from math import ceil, floor, pi, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm.auto import tqdm

from defectkit import DefectkitError
from defectkit.models.tabular.models import TABULAR
from defectkit.structures.writing import atomic
from defectkit.training.config import (
    Choice,
    TuneConfig,
    save_config,
    to_dict,
    with_values,
)
from defectkit.training.engine import MONITOR, Diverged
from defectkit.training.prepared import Prepared, check_config
from defectkit.training.run import STUDY, claim, held
from defectkit.training.train import train

if TYPE_CHECKING:
    import optuna

PRUNE_AFTER = 5  # trials and epochs that are never cut short
BEST, TRIALS = "best.yaml", "trials.csv"
FAULT = "fault"  # why a trial could not be trained


class Report(Callback):
    """Tells Optuna the validation error of every epoch and stops where it says so."""

    def __init__(self, trial: "optuna.Trial"):
        self.trial = trial

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report; raises `optuna.TrialPruned`."""
        import optuna

        self.trial.report(trainer.callback_metrics[MONITOR].item(), trainer.current_epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def tune(config: TuneConfig, prepared: Prepared, folder: Path, seed: int = 0) -> pd.DataFrame:
    """Search, and write `best.yaml`, the `RunConfig` of the best trial, and `trials.csv`.

    A trial whose settings do not fit each other, or whose training diverges, counts as pruned,
    with its reason in the column `fault`.

    Args:
        config: what to search.
        prepared: `config.run` with its data, whose test rows are left out at once.
        folder: for the study, made where it is missing.
        seed: of the sampler and of every trial.

    Returns:
        a row a trial: number, state, value (validation MAE of eform, eV), settings, seconds.

    Raises DefectkitError for a folder that holds another search or is in use, a value that the
    run does not have, or where no trial could be trained.
    """
    folder = Path(folder)
    check_config(config.run, seed)
    what = to_dict(config)
    del what["trials"]  # a search may be made longer
    identity = prepared.identity(seed) | {"search": what}
    blind = replace(prepared.split, test=())
    objective = _Objective(replace(prepared, split=blind), folder, seed)
    with held(folder):
        claim(folder, None, identity, (STUDY, BEST, TRIALS))
        _check_study(folder / STUDY)
        study = _search(config, objective)
        wanted = ("number", "state", "value", "params", "user_attrs", "duration")
        trials = study.trials_dataframe(wanted)
        faults = trials.get(f"user_attrs_{FAULT}", pd.Series(dtype=str)).dropna()
        if trials.value.isna().all() and len(faults):
            raise DefectkitError(f"No trial could be trained. {faults.iloc[0]}")
        save_config(with_values(config.run, study.best_params), folder / BEST)
        names = {f"user_attrs_{FAULT}": FAULT}
        trials = trials.rename(columns=lambda name: names.get(name, name.removeprefix("params_")))
        trials["seconds"] = trials.pop("duration").dt.total_seconds().round(1)
        with atomic(folder / TRIALS) as part:
            trials.to_csv(part, index=False)
    return trials


def _check_study(path: Path) -> None:
    """DefectkitError for a database that is damaged; one that is not there yet is a good one."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as database:
            fault = database.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        fault = str(error)
    if fault != "ok":
        raise DefectkitError(
            f"{path} cannot be read or written ({fault}); name another folder or remove this one."
        )


class _Objective:
    """The validation MAE of eform (eV) of a run with the settings of a trial."""

    def __init__(self, prepared: Prepared, folder: Path, seed: int):
        self.prepared, self.folder, self.seed = prepared, folder, seed

    def __call__(self, trial: "optuna.Trial", settings: dict[str, Any]) -> float:
        import optuna

        place = self.folder / "trial"
        shutil.rmtree(place, ignore_errors=True)  # of a process that was killed
        try:
            config = with_values(self.prepared.config, settings)
            check_config(config, self.seed)
        except DefectkitError as error:
            trial.set_user_attr(FAULT, str(error))
            raise optuna.TrialPruned from error
        reports = () if config.model.name in TABULAR else (Report(trial),)
        try:
            found = train(
                replace(self.prepared, config=config),
                place,
                self.seed,
                False,
                callbacks=reports,
            )
            rows = found.predictions
        except Diverged as error:
            trial.set_user_attr(FAULT, str(error))
            raise optuna.TrialPruned from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return float((rows.eform_pred - rows.eform).abs().mean())


def _search(config: TuneConfig, objective: _Objective) -> "optuna.Study":
    """The study with all its trials: those that are there, and those that were missing.

    Every trial has a sampler of its own, whose seed is the number of trials done: a search that
    was killed draws again what it had drawn, and then goes on.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    states = optuna.trial.TrialState
    study = optuna.create_study(
        storage=f"sqlite:///{objective.folder / STUDY}",
        study_name="tune",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER, PRUNE_AFTER),
    )
    for trial in study.get_trials(states=(states.RUNNING,)):  # of a process that was killed
        study.tell(trial.number, state=states.FAIL)
    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    whole = whole_numbers(config, objective.seed)
    size = prod(len(choice.choices) for choice in config.search.values())
    total = config.trials if config.sampler == "bayes" else min(config.trials, size)
    for number in tqdm(range(done, total), "trials", unit="trial", disable=done >= total):
        study.sampler = _sampler(config, objective.seed, number)

        def trial_value(trial: "optuna.Trial") -> float:
            chosen = {
                name: _suggest(trial, name, choice, name in whole)
                for name, choice in config.search.items()
            }
            return objective(trial, chosen)

        study.optimize(trial_value, n_trials=1)
    return study


def whole_numbers(config: TuneConfig, seed: int) -> set[str]:
    """Names of ranges whose values must be whole; DefectkitError for a value that is none."""

    def fault(name: str, value: Any) -> DefectkitError | None:
        try:
            check_config(with_values(config.run, {name: value}), seed)
        except DefectkitError as error:
            return error
        return None

    whole = set()
    for name, choice in config.search.items():
        if choice.choices:
            if len(config.search) == 1 and all(fault(name, value) for value in choice.choices):
                raise fault(name, choice.choices[0])
            continue
        between = choice.low + (choice.high - choice.low) / pi
        if wrong := fault(name, between):
            if fault(name, ceil(between)) and fault(name, floor(between)):
                raise wrong
            whole.add(name)
    return whole


def _suggest(trial: "optuna.Trial", name: str, choice: Choice, whole: bool) -> Any:
    if choice.choices:
        return trial.suggest_categorical(name, choice.choices)
    if whole:
        return trial.suggest_int(name, ceil(choice.low), floor(choice.high), log=choice.log)
    return trial.suggest_float(name, choice.low, choice.high, log=choice.log)


def _sampler(config: TuneConfig, seed: int, number: int) -> "optuna.samplers.BaseSampler":
    """What draws the settings of trial `number`, counted from 0."""
    import optuna

    if config.sampler == "bayes":
        own = np.random.SeedSequence([seed, number]).generate_state(1)
        return optuna.samplers.TPESampler(seed=int(own[0]))
    sizes = [len(choice.choices) for choice in config.search.values()]
    point = np.random.default_rng(seed).permutation(prod(sizes))[number]
    places = np.unravel_index(point, sizes)
    chosen = {
        name: [choice.choices[place]]
        for (name, choice), place in zip(config.search.items(), places)
    }
    return optuna.samplers.GridSampler(chosen)
