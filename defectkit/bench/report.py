"""A report on finished runs: one page that holds all of its figures, and a table as CSV.

The runs may be of several models, seeds and splits on data with one label source. The first run
is the one that the others are compared with. What takes space, the figures of a model, is drawn
for the first seed of each; two seeds or more of one model are also judged as an ensemble.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectkit import DefectkitError, __version__, plots
from defectkit.data.dataset import Dataset
from defectkit.evaluation import decisions
from defectkit.evaluation.breakdown import described, errors_by, ranges
from defectkit.evaluation.coverage import coverage, guard_table, reliability
from defectkit.evaluation.metrics import common_rows, compare, confusion, mean_interval, scores
from defectkit.evaluation.reasons import Training, reasons, rule_errors, worst
from defectkit.predict.domain import NEIGHBOURS, Guard, Nearness, composition_vectors
from defectkit.predict.intervals import ensemble
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import atomic, make_folder, write_text
from defectkit.training.config import to_dict
from defectkit.training.prepared import learned_from
from defectkit.training.pretrained import benchmark
from defectkit.training.run import Run

PAGE, TABLE = "report.html", "report.csv"
# What the test rows of a split have in common: intervals draw it as one. A block is made of the
# pairs of its hosts and dopants; a split that holds out one host has one unit and no interval.
UNITS = {
    "host": "host",
    "dopant": "dopant",
    "pair": "pair",
    "leave-one-host-out": "host",
    "leave-one-dopant-out": "dopant",
    "block": "pair",
}
WORST_COLUMNS = ["host", "dopant", "defecttype", "site", "eform", "eform_pred", "error", "reason"]


@dataclass(frozen=True)
class Judged:
    """A run with its data.

    Attributes:
        run: finished.
        part: "test" or "valid".
        shared: uids that are judged; all rows of the part where it is not given.
    """

    run: Run
    part: str
    shared: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.run.folder.name

    @property
    def model(self) -> str:
        """Name of the folder without the seed."""
        return self.name.removesuffix(f"-{self.run.summary['seed']}")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Predictions."""
        rows = self.run.part(self.part)
        return rows if self.shared is None else rows[rows.index.isin(self.shared)]

    @property
    def left_out(self) -> int:
        """How many rows of the part are not judged."""
        return len(self.run.part(self.part)) - len(self.rows)

    @cached_property
    def data(self) -> tuple[Dataset, list[str]]:
        """The cleaned data, and the uids that were learned from."""
        return learned_from(self.run)

    @property
    def dataset(self) -> Dataset:
        """The cleaned data."""
        return self.data[0]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Predictions with what is known about each row (`errors.described`)."""
        return described(self.rows, self.dataset.frame)

    @property
    def split(self) -> str:
        """The split in words."""
        split = self.run.config.data.split
        words = [split.kind, split.held_out, None if split.fold is None else f"fold {split.fold}"]
        return " ".join(str(word) for word in words if word is not None)

    @property
    def groups(self) -> pd.Series | None:
        """What was held out together, by uid; None where rows were."""
        unit = UNITS.get(self.run.config.data.split.kind)
        return self.table[unit] if unit else None

    def unit_groups(self, table: pd.DataFrame) -> pd.Series | None:
        """The same for the units of `decisions.choices`; None where each stands for itself."""
        unit = UNITS.get(self.run.config.data.split.kind)
        if unit not in table.index.names:
            return None
        return pd.Series(table.index.get_level_values(unit), table.index)


def judge(runs: Sequence[Run], part: str = "test") -> list[Judged]:
    """Finished runs side by side: those of one split on the rows that all of them predict.

    Not every model can read every structure, and an error without the hardest rows is no rival
    of one with them.

    Args:
        runs: finished ones.
        part: "test" or "valid".

    Raises DefectkitError where a run is not finished or labels are of different sources.
    """
    _check(runs)
    alike: dict[tuple, dict[str, pd.DataFrame]] = {}
    for run in runs:
        split = run.summary["data_fingerprint"], run.summary["split_fingerprint"]
        alike.setdefault(split, {})[str(run.folder)] = run.part(part)
    shared = {
        folder: frozenset(rows.index)
        for tables in alike.values()
        for folder, rows in common_rows(tables).items()
    }
    return [Judged(run, part, shared[str(run.folder)]) for run in runs]


def left_out_note(judged: Sequence[Judged]) -> str:
    """A sentence about rows that not all runs of a split predict; empty where there are none."""
    counts = {one.name: one.left_out for one in judged if one.left_out}
    if not counts:
        return ""
    words = ", ".join(f"{n} of {name}" for name, n in counts.items())
    return f"Left out are rows that not all runs of the split predict: {words}."


def write(runs: Sequence[Run], folder: Path, part: str = "test") -> Path:
    """Write `report.html` and `report.csv` into `folder`, which is made where it is missing.

    Args:
        runs: finished ones, the one to compare with first.
        folder: for both files.
        part: "test" or "valid".

    Returns:
        The path of the page.

    Raises DefectkitError as `judge` does.
    """
    judged = judge(runs, part)
    folder = make_folder(folder)
    models = _by_model(judged)
    table = metrics(judged)
    sections = [
        *_overview(judged, table),
        *_decisions(models),
        *(html for seeds in models if len(seeds) > 1 for html in _ensemble(seeds)),
        *(html for seeds in tqdm(models, desc="report", delay=2, leave=False)
          for html in _details(seeds[0])),
    ]  # fmt: skip
    page = _PAGE.substitute(
        title=escape(", ".join(dict.fromkeys(one.model for one in judged))),
        source=escape(judged[0].run.summary["label_source"]),
        data=escape(judged[0].run.summary["data"]),
        part={"test": "test", "valid": "validation"}[part],
        version=__version__,
        body="\n".join(sections),
    )
    with atomic(folder / TABLE) as file:
        table.to_csv(file, index=False, float_format="%.5g")
    write_text(folder / PAGE, page)
    return folder / PAGE


def metrics(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row a run: its errors, and its paired bootstrap against the first run.

    Intervals are drawn by `groups`, what was held out together; empty where rows were. The columns
    `difference`, `difference_lo` and `difference_hi` (eV) are empty where the rows are not those of
    the first run.
    """
    first, table = judged[0], []
    for one in judged:
        groups = one.groups
        row = {
            "run": one.name,
            "model": one.model,
            "seed": one.run.summary["seed"],
            "split": one.split,
            "rows": int(one.rows.eform.notna().sum()),
            "groups": None if groups is None else groups.nunique(),
            **scores(one.rows, groups=groups),
        }
        if one is not first and set(one.rows.index) == set(first.rows.index):
            found = compare(one.rows, first.rows, groups)
            row |= {"difference": found["difference"], "difference_lo": found["lo"],
                    "difference_hi": found["hi"]}  # fmt: skip
        table.append(row)
    return pd.DataFrame(table).astype({"groups": "Int64"})


def _check(runs: Sequence[Run]) -> None:
    for run in runs:
        run.check_finished()
    sources = {run.summary["label_source"] for run in runs}
    if len(sources) > 1:
        raise DefectkitError(
            f"The labels of these runs come from {' and '.join(sorted(sources))}, which cannot be "
            "compared; make a report for each."
        )


def _by_model(judged: Iterable[Judged]) -> list[list[Judged]]:
    """Runs that differ by their seed alone; a run and its copy are no ensemble."""
    models: list[list[Judged]] = []
    for one in judged:
        for seeds in models:
            alike = seeds[0].run.config == one.run.config and seeds[0].model == one.model
            if alike and all(s.run.summary["seed"] != one.run.summary["seed"] for s in seeds):
                seeds.append(one)
                break
        else:
            models.append([one])
    return models


def _overview(judged: Sequence[Judged], table: pd.DataFrame) -> list[str]:
    source = judged[0].run.summary["label_source"]
    shown = pd.DataFrame(
        {
            "run": table.run,
            "split": table.split,
            "rows": table.rows,
            "groups": table.groups,
            "MAE (eV)": _with_interval(table, "eform_mae", "eform_mae_lo", "eform_mae_hi"),
            "RMSE (eV)": table.eform_rmse,
            "R²": table.eform_r2,
            "spin MAE (μB)": table.spin_mae,
            "magnetic, accuracy": table.mag_accuracy,
            "magnetic, F1": table.mag_f1,
        }
    )
    if "difference" in table:
        shown[f"MAE minus that of {judged[0].name} (eV)"] = _with_interval(
            table, "difference", "difference_lo", "difference_hi", "+.3f"
        )
    html = [
        "<h2>Errors</h2>",
        "<p>In brackets: bootstrap intervals (95 %), drawn by what was held out together: groups, "
        "where there are any, else rows. Below ten groups take an interval for a lower bound. A "
        "difference is a paired bootstrap on the same rows: below zero the run is better than "
        f"{escape(judged[0].name)}, and where the interval holds zero, the rows cannot tell. A "
        "defect is magnetic above 0.5 μB.</p>",
        _table(shown.dropna(axis=1, how="all")),
    ]
    if note := left_out_note(judged):
        html.append(f"<p>{escape(note)}</p>")
    kinds = {one.run.config.data.split.kind for one in judged}
    if len(kinds) > 1:
        steps = ladder_table(judged)
        html.append(_drawn("errors by what was held out", plots.studies.ladder, steps, source))
    elif len(table) > 1:
        html.append(_drawn("errors of all runs", plots.results.model_errors, table, source))
    costs = _costs(judged[0].run)
    if costs is None:
        return html
    return [
        *html,
        "<h2>Cost against accuracy</h2>",
        "<p>From the benchmark of the kit's models on these data.</p>",
        _drawn("error over prediction time", plots.studies.cost_accuracy, costs, source),
    ]


def _costs(run: Run) -> pd.DataFrame | None:
    """The benchmark of the kit's models on the very data of the run, if there is one."""
    try:
        table = benchmark(f"models_{run.summary['data']}")
    except DefectkitError:
        return None
    same = set(table.get("data_fingerprint", ())) == {run.summary["data_fingerprint"]}
    return table if same else None


def ladder_table(judged: Sequence[Judged], reference: str = "", seed: int = 0) -> pd.DataFrame:
    """A row a kind of split and model: the error over the rows of all its folds.

    The error of a row is its mean over seeds; the interval is drawn by what was held out. All
    models of a kind of split are judged on the rows that each of them predicts. For
    `evaluation_plots.ladder`. A model is what its settings say, wherever its folders lie; models
    of one kind with different settings go by the names of their folders.

    Args:
        judged: finished runs.
        reference: the model that the others are compared with on each split, if any; the columns
            `difference` (of the mean absolute errors, eV), `difference_lo` and `difference_hi`
            are of the paired bootstrap.
        seed: of the bootstrap.
    """
    alike: dict[tuple, list[Judged]] = {}
    for one in judged:
        settings = {**to_dict(one.run.config), "data": None}
        alike.setdefault((one.run.config.data.split.kind, json.dumps(settings)), []).append(one)
    names = {settings: runs[0].run.config.model.name for (_, settings), runs in alike.items()}
    shared = [name for name, n in Counter(names.values()).items() if n > 1]
    tables = {
        (kind, runs[0].model if names[settings] in shared else names[settings]): pd.concat(
            [one.table for one in runs]
        )
        for (kind, settings), runs in alike.items()
    }
    for kind in dict.fromkeys(kind for kind, _ in tables):
        tables |= common_rows({key: rows for key, rows in tables.items() if key[0] == kind})
    table = []
    for (kind, model), rows in tables.items():
        errors = rows.error.abs().groupby(level=0).mean()
        unit = UNITS.get(kind)
        groups = rows.loc[~rows.index.duplicated(), unit] if unit else None
        low, high = mean_interval(errors, groups, seed)
        row = {"split": kind, "model": model, "rows": len(errors)}
        row |= {"groups": None if groups is None else groups.nunique()}
        row |= {"eform_mae": errors.mean(), "eform_mae_lo": low, "eform_mae_hi": high}
        if reference and model != reference and (kind, reference) in tables:
            found = compare(rows, tables[kind, reference], groups, seed)
            row |= {
                "difference": found["difference"],
                "difference_lo": found["lo"],
                "difference_hi": found["hi"],
            }
        table.append(row)
    return pd.DataFrame(table).astype({"groups": "Int64"})


def _ensemble(seeds: Sequence[Judged]) -> list[str]:
    first = seeds[0]
    rows = ensemble([one.rows for one in seeds])
    mean = scores(rows, groups=first.groups)
    html = [
        f"<h2>{escape(first.model)}, {len(seeds)} seeds together</h2>",
        f"<p>Mean absolute error of the mean prediction {mean['eform_mae']:.3f} eV "
        f"({mean['eform_mae_lo']:.3f} to {mean['eform_mae_hi']:.3f}).</p>",
    ]
    if first.part == "valid":
        return [
            *html,
            "<p>Intervals and the guard are calibrated on the validation rows, so that these "
            "cannot judge them; a report on test rows does.</p>",
        ]
    valid = ensemble([one.run.part("valid") for one in seeds])
    table = coverage(valid, rows, groups=first.groups)
    html += [
        "<p>Conformal intervals are calibrated on the validation rows.</p>",
        _drawn("coverage and width of intervals", plots.evaluation.coverage_width, table),
        _drawn("reliability", lambda: plots.evaluation.reliability(reliability(valid, rows))),
    ]
    if "normalised" in set(table.method):
        html.append(_drawn("errors over the spread", plots.evaluation.sigma_errors, rows))
        html += _guard(first, valid, rows)
    return html


def _guard(first: Judged, valid: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Both signs that cost no prediction of the training rows: spread and composition."""
    dataset, training = first.data
    vectors = composition_vectors(dataset.frame)
    if len(training) <= NEIGHBOURS:
        return [f"<p>{len(training)} training rows are too few for the guard; it is left out.</p>"]
    nearness = Nearness(vectors.loc[training])
    known, signs = (
        pd.DataFrame({"spread": t.eform_sigma, "composition": nearness(vectors.loc[t.index])})
        for t in (valid, rows)
    )
    guard, errors = Guard.fit(known), (rows.eform_pred - rows.eform).dropna()
    table = guard_table(guard.verdict(signs).verdict, errors, first.groups)
    return [
        "<h3>Out-of-domain guard</h3>",
        "<p>Thresholds are 95 % quantiles on validation rows, distances those to the "
        f"{len(training):,} training rows. Caught: the share of the largest twentieth of all "
        "errors.</p>",
        _drawn("spread over distance", plots.evaluation.guard, signs, guard, errors),
        _table(_readable(table)),
    ]


def _decisions(models: Sequence[Sequence[Judged]]) -> list[str]:
    """Of the models that predict the rows of the first one."""
    first = models[0][0]
    tables = {}
    for seeds in models:
        if set(seeds[0].rows.index) == set(first.rows.index):
            rows = ensemble([one.rows for one in seeds]) if len(seeds) > 1 else seeds[0].rows
            tables[seeds[0].model] = described(rows, first.dataset.frame)
    html = []
    for what, unit, option in (
        ("site of a dopant in a host", decisions.SITE, None),
        ("dopant of a host", decisions.DOPANT, "dopant"),
    ):
        try:
            chosen = {n: decisions.choices(rows, unit, option) for n, rows in tables.items()}
        except DefectkitError as error:  # nothing to choose among these rows
            html.append(f"<p>Left out: choice of a {escape(what)}. {escape(str(error))}</p>")
            continue
        groups = first.unit_groups(next(iter(chosen.values())))
        recalls = {name: decisions.top_k(table, groups=groups) for name, table in chosen.items()}
        html += [
            _drawn(f"regret, {what}", plots.evaluation.regret, chosen, what, None, groups),
            _drawn(f"recall, {what}", plots.evaluation.recall, recalls, what),
        ]
    words = (
        "<h2>Decisions</h2><p>Regret: the true energy of what a model would choose, minus "
        "that of the best choice among these rows. Seeds decide by their mean.</p>"
    )
    return [words, *html]


def _details(one: Judged) -> list[str]:
    table, source, groups = one.table, one.run.summary["label_source"], one.groups
    training = Training(*one.data)
    sentences = reasons(table.index, training)
    sizes = ranges(table.natoms, "atoms")
    figures = [
        ("predictions over labels", plots.results.parity, one.rows, source),
        ("residuals", plots.evaluation.residuals, one.rows, source),
    ]
    if one.rows.spin.notna().any():
        counts = confusion(one.rows)
        figures += [
            ("moments over labels", plots.results.parity, one.rows, source, "spin"),
            ("magnetic or not", plots.evaluation.confusion_matrix, counts),
        ]
    figures += [
        ("errors by dopant", plots.evaluation.error_map, table.error, table.dopant, source),
        ("errors by host", plots.results.error_bars, table.error, table.host, source),
        ("errors over the formation energy", plots.results.error_by_energy, table, source),
        ("errors by size", plots.evaluation.size_errors, table.error, table.natoms, table.host),
    ]
    return [
        f"<h2>{escape(one.name)}</h2>",
        f"<p>It learned from {len(one.data[1]):,} training rows.</p>",
        *(_drawn(*figure) for figure in figures),
        "<h3>Errors by type, energy and size</h3>",
        *(_table(_readable(errors_by(table.error, by.rename(name), groups))) for name, by in (
            ("type", table.defecttype), ("formation energy", table.energy), ("size", sizes))),
        "<h3>What large errors go with</h3>",
        "<p>Rules on the data, and the errors where each applies. A rule whose ratio is about "
        "one explains nothing.</p>",
        _table(_readable(rule_errors(table.error, sentences, groups))),
        *_worst(one, worst(table, sentences)),
    ]  # fmt: skip


def _worst(one: Judged, rows: pd.DataFrame) -> list[str]:
    shown = rows[WORST_COLUMNS].rename(
        columns={
            "defecttype": "type",
            "eform": "label (eV)",
            "eform_pred": "prediction (eV)",
            "error": "error (eV)",
            "reason": "likely reason",
        }
    )
    pictures = [
        _image(picture(one.dataset[uid], one.dataset), f"the structure of {uid}", dpi=60)
        for uid in rows.index
    ]
    return [
        f"<h3>The {len(rows)} worst rows</h3>",
        _table(shown.reset_index()),
        f'<div class="pictures">{"".join(pictures)}</div>',
    ]


def picture(record: DefectRecord, dataset: Dataset) -> np.ndarray:
    """A defect from above and from the side; marked where it can be recognised."""
    marked, vacancies = [], []
    if record.host in dataset.hosts:
        try:
            found = recognised(record, dataset.hosts[record.host])
            marked, vacancies = found.defect_indices, found.vacancy_positions
        except DefectkitError:
            pass  # the picture is of use without rings
    return plots.database.two_views(record.atoms, marked, record.uid, vacancies)


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Tables of errors with an interval in one column, and units."""
    shown = pd.DataFrame(
        {"rows": table.n, "MAE (eV)": _with_interval(table, "mae", "mae_lo", "mae_hi")}
    )
    units = {"bias": "mean error (eV)", "worst": "largest (eV)", "mae_else": "MAE elsewhere (eV)",
             "ratio": "ratio", "caught": "caught"}  # fmt: skip
    for column, name in units.items():
        if column in table:
            shown[name] = table[column]
    return shown.rename_axis(table.index.name).reset_index()


def _with_interval(
    table: pd.DataFrame, value: str, low: str, high: str, fmt: str = ".3f"
) -> list[str]:
    return [
        "" if np.isnan(a) else f"{a:{fmt}}" + (f" ({b:{fmt}} to {c:{fmt}})" if b <= c else "")
        for a, b, c in table[[value, low, high]].itertuples(index=False)
    ]


def _table(table: pd.DataFrame) -> str:
    return table.to_html(
        index=False, border=0, float_format=lambda v: f"{v:.3f}", na_rep="", justify="left"
    )


def _drawn(text: str, draw: Callable, *arguments) -> str:
    """A figure as part of the page, or a sentence on why these rows cannot have it."""
    try:
        return _image(draw(*arguments), text)
    except DefectkitError as error:
        return f"<p>Left out: {escape(text)}. {escape(str(error))}</p>"


def _image(axes, text: str, dpi: int = 90) -> str:
    """The figure of some axes as part of the page; the figure is closed."""
    figure = np.ravel(axes)[0].figure
    file = BytesIO()
    figure.savefig(file, dpi=dpi, bbox_inches="tight")
    plt.close(figure)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(text)}">'


_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation: $title</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 90% }
th, td { padding: .3em .7em; border-bottom: 1px solid #ddd; vertical-align: top }
td:not(:last-child) { white-space: nowrap }
img { max-width: 100%; vertical-align: top; margin: .5em }
h2 { margin-top: 2em; border-top: 2px solid #ddd; padding-top: .5em }
.pictures img { width: 47% }
</style></head><body>
<h1>Evaluation: $title</h1>
<p>Data: $data, $part rows. Every error is against labels of $source. defectkit $version.</p>
$body
</body></html>
""")
