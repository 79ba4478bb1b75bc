"""A report on finished runs: one page that holds all of its figures, and a table as CSV.

The runs may be of several models, seeds and splits on data with one label source. The first run
is the one that the others are compared with. What takes space, the figures of a model, is drawn
for the first seed of each; two seeds or more of one model are also judged as an ensemble.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Sequence
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

from defectkit import DefectkitError, __version__, decisions, evaluation_plots, plots, result_plots
from defectkit.config import to_dict
from defectkit.data.dataset import Dataset
from defectkit.domain import NEIGHBOURS, Guard, Nearness, composition_vectors, guard_table
from defectkit.errors import described, errors_by, ranges
from defectkit.evaluate import compare, confusion, mean_interval, scores
from defectkit.reasons import Training, reasons, rule_errors, worst
from defectkit.records import DefectRecord
from defectkit.shipped import benchmark
from defectkit.structures.recognise import recognise
from defectkit.training.runs import Run, load_data
from defectkit.uncertainty import coverage, ensemble, reliability

PAGE, TABLE = "report.html", "report.csv"
# What the test rows of a split have in common: intervals draw it as one.
UNITS = {"host": "host", "dopant": "dopant", "pair": "pair"}
WORST_COLUMNS = ["host", "dopant", "defecttype", "site", "eform", "eform_pred", "error", "reason"]


@dataclass(frozen=True)
class Judged:
    """A run with its data.

    Attributes:
        run: finished.
        part: "test" or "valid".
    """

    run: Run
    part: str

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
        return self.run.part(self.part)

    @property
    def dataset(self) -> Dataset:
        """The cleaned data."""
        return load_data(self.run.config)[0]

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


def write(runs: Sequence[Run], folder: Path, part: str = "test") -> Path:
    """Write `report.html` and `report.csv` into `folder`, which is made where it is missing.

    Args:
        runs: finished ones, the one to compare with first.
        folder: for both files.
        part: "test" or "valid".

    Returns:
        The path of the page.

    Raises DefectkitError where a run is not finished or labels are of different sources.
    """
    judged = [Judged(run, part) for run in runs]
    _check(judged)
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
    try:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PAGE).write_text(page, encoding="utf-8")
        table.to_csv(folder / TABLE, index=False, float_format="%.5g")
    except OSError as error:
        raise DefectkitError(f"{folder} cannot be written: {error}.") from error
    return folder / PAGE


def metrics(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row a run: its errors, and its paired bootstrap against the first run.

    The columns `difference`, `difference_lo` and `difference_hi` (eV) are empty where the rows
    are not those of the first run.
    """
    first, table = judged[0], []
    for one in judged:
        row = {
            "run": one.name,
            "model": one.model,
            "seed": one.run.summary["seed"],
            "split": one.split,
            "rows": len(one.table),
            **scores(one.rows, groups=one.groups),
        }
        if one is not first and set(one.rows.index) == set(first.rows.index):
            found = compare(one.rows, first.rows, one.groups)
            row |= {"difference": found["difference"], "difference_lo": found["lo"],
                    "difference_hi": found["hi"]}  # fmt: skip
        table.append(row)
    return pd.DataFrame(table)


def _check(judged: Sequence[Judged]) -> None:
    for one in judged:
        if not one.run.finished:
            raise DefectkitError(f"{one.run.folder} is no finished run; train it to its end.")
    sources = {one.run.summary["label_source"] for one in judged}
    if len(sources) > 1:
        raise DefectkitError(
            f"The labels of these runs come from {' and '.join(sorted(sources))}, which cannot be "
            "compared; make a report for each."
        )


def _by_model(judged: Iterable[Judged]) -> list[list[Judged]]:
    """Runs that differ by their seed alone."""
    models: list[list[Judged]] = []
    for one in judged:
        same = (m for m in models if m[0].run.config == one.run.config and m[0].model == one.model)
        found = next(same, None)
        if found:
            found.append(one)
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
        "<p>In brackets: bootstrap intervals (95 %), drawn by what was held out together. A "
        "difference is a paired bootstrap on the same rows: below zero the run is better than "
        f"{escape(judged[0].name)}, and where the interval holds zero, the rows cannot tell. A "
        "defect is magnetic above 0.5 μB.</p>",
        _table(shown),
    ]
    kinds = {one.run.config.data.split.kind for one in judged}
    if len(kinds) > 1:
        axes = evaluation_plots.ladder(ladder_table(judged), source)
        html.append(_image(axes, "errors by what was held out"))
    elif len(table) > 1:
        html.append(_image(result_plots.model_errors(table, source), "errors of all runs"))
    try:
        costs = benchmark(f"models_{judged[0].run.summary['data']}")
    except DefectkitError:
        return html
    axes = evaluation_plots.cost_accuracy(costs, source)
    return [
        *html,
        "<h2>Cost against accuracy</h2>",
        "<p>From the benchmark of the kit's models on these data.</p>",
        _image(axes, "error over the time of a prediction"),
    ]


def ladder_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """A row a kind of split and model: the error over the rows of all its folds.

    The error of a row is its mean over seeds; the interval is drawn by what was held out. For
    `evaluation_plots.ladder`. A model is what its settings say, wherever its folders lie; models
    of one kind with different settings go by the names of their folders.
    """
    alike: dict[tuple, list[Judged]] = {}
    for one in judged:
        settings = {**to_dict(one.run.config), "data": None}
        alike.setdefault((one.run.config.data.split.kind, json.dumps(settings)), []).append(one)
    names = {settings: runs[0].run.config.model.name for (_, settings), runs in alike.items()}
    shared = [name for name, n in Counter(names.values()).items() if n > 1]
    table = []
    for (kind, settings), runs in alike.items():
        rows = pd.concat([one.table for one in runs])
        errors = rows.error.abs().groupby(level=0).mean()
        unit = UNITS.get(kind)
        groups = rows.loc[~rows.index.duplicated(), unit] if unit else None
        low, high = mean_interval(errors, groups)
        table.append(
            {
                "split": kind,
                "model": runs[0].model if names[settings] in shared else names[settings],
                "rows": len(errors),
                "eform_mae": errors.mean(),
                "eform_mae_lo": low,
                "eform_mae_hi": high,
            }
        )
    return pd.DataFrame(table)


def _ensemble(seeds: Sequence[Judged]) -> list[str]:
    first = seeds[0]
    valid, rows = (ensemble([one.run.part(p) for one in seeds]) for p in ("valid", first.part))
    table = coverage(valid, rows, groups=first.groups)
    mean = scores(rows, groups=first.groups)
    html = [
        f"<h2>{escape(first.model)}, {len(seeds)} seeds together</h2>",
        f"<p>Mean absolute error of the mean prediction {mean['eform_mae']:.3f} eV "
        f"({mean['eform_mae_lo']:.3f} to {mean['eform_mae_hi']:.3f}). Conformal intervals are "
        "calibrated on the validation rows.</p>",
        _image(evaluation_plots.coverage_width(table), "coverage and width of intervals"),
        _image(evaluation_plots.reliability(reliability(valid, rows)), "reliability"),
    ]
    if "normalised" in set(table.method):
        html.append(_image(evaluation_plots.sigma_errors(rows), "errors over the spread"))
        html += _guard(first, valid, rows)
    return html


def _guard(first: Judged, valid: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    """Both signs that cost no prediction of the training rows: spread and composition."""
    dataset, split = load_data(first.run.config)
    vectors = composition_vectors(dataset.frame)
    if len(split.train) <= NEIGHBOURS:
        return []
    nearness = Nearness(vectors.loc[list(split.train)])
    known, signs = (
        pd.DataFrame({"spread": t.eform_sigma, "composition": nearness(vectors.loc[t.index])})
        for t in (valid, rows)
    )
    guard, errors = Guard.fit(known), (rows.eform_pred - rows.eform).dropna()
    table = guard_table(guard.verdict(signs).verdict, errors)
    return [
        "<h3>Out-of-domain guard</h3>",
        "<p>Thresholds are 95 % quantiles on validation rows. Caught: the share of the largest "
        "twentieth of all errors.</p>",
        _image(evaluation_plots.guard(signs, guard, errors), "spread over distance"),
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
        except DefectkitError:  # nothing to choose among these rows
            continue
        recalls = {name: decisions.top_k(table) for name, table in chosen.items()}
        html += [
            _image(evaluation_plots.regret(chosen, what), f"regret, {what}"),
            _image(evaluation_plots.recall(recalls, what), f"recall, {what}"),
        ]
    if html:
        words = (
            "<h2>Decisions</h2><p>Regret: the true energy of what a model would choose, minus "
            "that of the best choice among these rows. Seeds decide by their mean.</p>"
        )
        html.insert(0, words)
    return html


def _details(one: Judged) -> list[str]:
    table, source = one.table, one.run.summary["label_source"]
    training = Training(one.dataset, load_data(one.run.config)[1].train)
    sentences = reasons(table.index, training)
    sizes = ranges(table.natoms, "atoms")
    figures = [
        (result_plots.parity(one.rows, source), "predictions over labels"),
        (evaluation_plots.residuals(one.rows, source), "residuals"),
    ]
    if one.rows.spin.notna().any():
        figures += [
            (result_plots.parity(one.rows, source, "spin"), "moments over labels"),
            (evaluation_plots.confusion_matrix(confusion(one.rows)), "magnetic or not"),
        ]
    figures += [
        (evaluation_plots.error_map(table.error, table.dopant, source), "errors by dopant"),
        (result_plots.error_bars(table.error, table.host, source), "errors by host"),
        (result_plots.error_by_energy(table, source), "errors over the formation energy"),
        (evaluation_plots.size_errors(table.error, table.natoms, table.host), "errors by size"),
    ]
    return [
        f"<h2>{escape(one.name)}</h2>",
        *(_image(axes, text) for axes, text in figures),
        "<h3>Errors by type, energy and size</h3>",
        *(_table(_readable(errors_by(table.error, by.rename(name)))) for name, by in (
            ("type", table.defecttype), ("formation energy", table.energy), ("size", sizes))),
        "<h3>What large errors go with</h3>",
        "<p>Rules on the data, and the errors where each applies. A rule whose ratio is about "
        "one explains nothing.</p>",
        _table(_readable(rule_errors(table.error, sentences))),
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
            found = recognise(record.atoms, dataset.hosts[record.host])
            marked, vacancies = found.defect_indices, found.vacancy_positions
        except DefectkitError:
            pass  # the picture is of use without rings
    return plots.two_views(record.atoms, marked, record.uid, vacancies)


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
        "" if np.isnan(a) else f"{a:{fmt}} ({b:{fmt}} to {c:{fmt}})"
        for a, b, c in table[[value, low, high]].itertuples(index=False)
    ]


def _table(table: pd.DataFrame) -> str:
    return table.to_html(
        index=False, border=0, float_format=lambda v: f"{v:.3f}", na_rep="", justify="left"
    )


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
