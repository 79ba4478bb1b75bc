"""The report on finished runs: one HTML page that holds all of its figures, and a table as CSV.

What takes space, the figures of a model, is drawn for the first seed of each; two seeds or more of
one model are also judged as an ensemble.
"""

import base64
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from tqdm import tqdm

from defectkit import DefectkitError, __version__, plots
from defectkit.bench.judge import Judged, by_model, errors_by_split, judge, left_out_note, metrics
from defectkit.data.dataset import Dataset
from defectkit.evaluation.breakdown import (
    Training,
    described,
    errors_by,
    ranges,
    reasons,
    rule_errors,
    worst,
)
from defectkit.evaluation.coverage import coverage, guard_table, reliability
from defectkit.evaluation.metrics import DOPANT, SITE, choices, confusion, scores, top_k
from defectkit.predict.domain import NEIGHBOURS, Guard, Nearness, composition_vectors
from defectkit.predict.intervals import ensemble
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import atomic, make_folder, write_text
from defectkit.training.pretrained import benchmark
from defectkit.training.run import Run

PAGE, TABLE = "report.html", "report.csv"
WORST_COLUMNS = {
    "host": "host",
    "dopant": "dopant",
    "defecttype": "type",
    "site": "site",
    "eform": "label (eV)",
    "eform_pred": "prediction (eV)",
    "error": "error (eV)",
    "reason": "likely reason",
}
# A part of the page: the element and its text; or "table" and a DataFrame, "figure" and a picture,
# "pictures" and several of them.
Block = tuple[str, object]


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
    models = by_model(judged)
    table = metrics(judged)
    blocks = [*_overview(judged, table), *_decisions(models)]
    for seeds in models:
        if len(seeds) > 1:
            blocks += _ensemble(seeds)
    for seeds in tqdm(models, desc="report", delay=2, leave=False):
        blocks += _details(seeds[0])
    page = _page(
        blocks,
        title=", ".join(dict.fromkeys(one.model for one in judged)),
        source=judged[0].run.summary["label_source"],
        data=judged[0].run.summary["data"],
        part={"test": "test", "valid": "validation"}[part],
        version=__version__,
    )
    with atomic(folder / TABLE) as file:
        table.to_csv(file, index=False, float_format="%.5g")
    write_text(folder / PAGE, page)
    return folder / PAGE


def _overview(judged: Sequence[Judged], table: pd.DataFrame) -> list[Block]:
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
    blocks: list[Block] = [
        ("h2", "Errors"),
        (
            "p",
            "In brackets: bootstrap intervals (95 %), drawn by what was held out together: groups, "
            "where there are any, else rows. Below ten groups take an interval for a lower bound. "
            "A difference is a paired bootstrap on the same rows: below zero the run is better "
            f"than {judged[0].name}, and where the interval holds zero, the rows cannot tell. A "
            "defect is magnetic above 0.5 μB.",
        ),
        ("table", shown.dropna(axis=1, how="all")),
    ]
    if note := left_out_note(judged):
        blocks.append(("p", note))
    kinds = {one.run.config.data.split.kind for one in judged}
    if len(kinds) > 1:
        steps = errors_by_split(judged)
        blocks.append(_drawn("errors by what was held out", plots.studies.ladder, steps, source))
    elif len(table) > 1:
        blocks.append(_drawn("errors of all runs", plots.results.model_errors, table, source))
    costs = _costs(judged[0].run)
    if costs is not None:
        blocks += [
            ("h2", "Cost against accuracy"),
            ("p", "From the benchmark of the kit's models on these data."),
            _drawn("error over prediction time", plots.studies.cost_accuracy, costs, source),
        ]
    return blocks


def _costs(run: Run) -> pd.DataFrame | None:
    """The benchmark of the kit's models on the very data of the run, if there is one."""
    try:
        table = benchmark(f"models_{run.summary['data']}")
    except DefectkitError:
        return None
    same = set(table.get("data_fingerprint", ())) == {run.summary["data_fingerprint"]}
    return table if same else None


def _ensemble(seeds: Sequence[Judged]) -> list[Block]:
    first = seeds[0]
    rows = ensemble([one.rows for one in seeds])
    mean = scores(rows, groups=first.groups)
    blocks: list[Block] = [
        ("h2", f"{first.model}, {len(seeds)} seeds together"),
        (
            "p",
            f"Mean absolute error of the mean prediction {mean['eform_mae']:.3f} eV "
            f"({mean['eform_mae_lo']:.3f} to {mean['eform_mae_hi']:.3f}).",
        ),
    ]
    if first.part == "valid":
        note = (
            "Intervals and the guard are calibrated on the validation rows, so that these cannot "
            "judge them; a report on test rows does."
        )
        return [*blocks, ("p", note)]
    valid = ensemble([one.run.part("valid") for one in seeds])
    table = coverage(valid, rows, groups=first.groups)
    blocks += [
        ("p", "Conformal intervals are calibrated on the validation rows."),
        _drawn("coverage and width of intervals", plots.evaluation.coverage_width, table),
        _drawn("reliability", lambda: plots.evaluation.reliability(reliability(valid, rows))),
    ]
    if "normalised" in set(table.method):
        blocks.append(_drawn("errors over the spread", plots.evaluation.sigma_errors, rows))
        blocks += _guard(first, valid, rows)
    return blocks


def _guard(first: Judged, valid: pd.DataFrame, rows: pd.DataFrame) -> list[Block]:
    """Both signs that cost no prediction of the training rows: spread and composition."""
    dataset, training = first.data
    vectors = composition_vectors(dataset.frame)
    if len(training) <= NEIGHBOURS:
        return [("p", f"{len(training)} training rows are too few for the guard; it is left out.")]
    nearness = Nearness(vectors.loc[training])
    calibration, signs = (
        pd.DataFrame({"spread": t.eform_sigma, "composition": nearness(vectors.loc[t.index])})
        for t in (valid, rows)
    )
    guard, errors = Guard.fit(calibration), (rows.eform_pred - rows.eform).dropna()
    table = guard_table(guard.verdict(signs).verdict, errors, first.groups)
    return [
        ("h3", "Out-of-domain guard"),
        (
            "p",
            "Thresholds are 95 % quantiles on validation rows, distances those to the "
            f"{len(training):,} training rows. Caught: the share of the largest twentieth of all "
            "errors.",
        ),
        _drawn("spread over distance", plots.evaluation.guard, signs, guard, errors),
        ("table", _readable(table)),
    ]


def _decisions(models: Sequence[Sequence[Judged]]) -> list[Block]:
    """Choices by the models that predict the same rows as the first one."""
    first = models[0][0]
    tables = {}
    for seeds in models:
        if set(seeds[0].rows.index) == set(first.rows.index):
            rows = ensemble([one.rows for one in seeds]) if len(seeds) > 1 else seeds[0].rows
            tables[seeds[0].model] = described(rows, first.dataset.frame)
    blocks: list[Block] = [
        ("h2", "Decisions"),
        (
            "p",
            "Regret: the true energy of what a model would choose, minus that of the best choice "
            "among these rows. Seeds decide by their mean.",
        ),
    ]
    for what, unit, option in (
        ("site of a dopant in a host", SITE, None),
        ("dopant of a host", DOPANT, "dopant"),
    ):
        try:
            chosen = {n: choices(rows, unit, option) for n, rows in tables.items()}
        except DefectkitError as error:  # nothing to choose among these rows
            blocks.append(_left_out(f"choice of a {what}", error))
            continue
        groups = first.unit_groups(next(iter(chosen.values())))
        recalls = {name: top_k(table, groups=groups) for name, table in chosen.items()}
        blocks += [
            _drawn(f"regret, {what}", plots.evaluation.regret, chosen, what, None, groups),
            _drawn(f"recall, {what}", plots.evaluation.recall, recalls, what),
        ]
    return blocks


def _details(one: Judged) -> list[Block]:
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
    by = {"type": table.defecttype, "formation energy": table.energy, "size": sizes}
    return [
        ("h2", one.name),
        ("p", f"It learned from {len(one.data[1]):,} training rows."),
        *(_drawn(*figure) for figure in figures),
        ("h3", "Errors by type, energy and size"),
        *(
            ("table", _readable(errors_by(table.error, values.rename(name), groups)))
            for name, values in by.items()
        ),
        ("h3", "What large errors go with"),
        (
            "p",
            "Rules on the data, and the errors where each applies. A rule whose ratio is about one "
            "explains nothing.",
        ),
        ("table", _readable(rule_errors(table.error, sentences, groups))),
        *_worst(one, worst(table, sentences)),
    ]


def _worst(one: Judged, rows: pd.DataFrame) -> list[Block]:
    pictures = [
        _image(picture(one.dataset[uid], one.dataset), f"the structure of {uid}", dpi=60)
        for uid in rows.index
    ]
    return [
        ("h3", f"The {len(rows)} worst rows"),
        ("table", rows[list(WORST_COLUMNS)].rename(columns=WORST_COLUMNS).reset_index()),
        ("pictures", pictures),
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
    """A table of errors with each interval in one column, and units."""
    shown = pd.DataFrame(
        {"rows": table.n, "MAE (eV)": _with_interval(table, "mae", "mae_lo", "mae_hi")}
    )
    units = {
        "bias": "mean error (eV)",
        "worst": "largest (eV)",
        "mae_else": "MAE elsewhere (eV)",
        "ratio": "ratio",
        "caught": "caught",
    }
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


def _drawn(text: str, draw: Callable, *arguments: object) -> Block:
    """A figure with its text, or a sentence on why these rows cannot have it."""
    try:
        return "figure", _image(draw(*arguments), text)
    except DefectkitError as error:
        return _left_out(text, error)


def _left_out(text: str, error: DefectkitError) -> Block:
    return "p", f"Left out: {text}. {error}"


def _image(axes: "plt.Axes | np.ndarray", text: str, dpi: int = 90) -> tuple[str, str]:
    """The figure of some axes as a data URL, and its text; the figure is closed."""
    figure = np.ravel(axes)[0].figure
    file = BytesIO()
    figure.savefig(file, dpi=dpi, bbox_inches="tight")
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", text


def _page(blocks: Iterable[Block], **words: str) -> str:
    """The page as HTML; names from data are text in it."""
    template = jinja2.Environment(autoescape=True).from_string(_PAGE)
    return template.render(blocks=blocks, **words)


_PAGE = """\
{% macro image(source, text) %}<img src="{{ source }}" alt="{{ text }}">{% endmacro -%}
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Evaluation: {{ title }}</title>
<style>
body { font-family: system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 90% }
th, td { padding: .3em .7em; border-bottom: 1px solid #ddd; vertical-align: top }
td:not(:last-child) { white-space: nowrap }
img { max-width: 100%; vertical-align: top; margin: .5em }
h2 { margin-top: 2em; border-top: 2px solid #ddd; padding-top: .5em }
.pictures img { width: 47% }
</style></head><body>
<h1>Evaluation: {{ title }}</h1>
<p>Data: {{ data }}, {{ part }} rows. Every error is against labels of {{ source }}. \
defectkit {{ version }}.</p>
{% for kind, content in blocks %}
{%- if kind == "table" -%}
{{ content.to_html(index=False, border=0, float_format="%.3f", na_rep="", justify="left") | safe }}
{%- elif kind == "figure" -%}
{{ image(*content) }}
{%- elif kind == "pictures" -%}
<div class="pictures">{% for picture in content %}{{ image(*picture) }}{% endfor %}</div>
{%- else -%}
<{{ kind }}>{{ content }}</{{ kind }}>
{%- endif %}
{% endfor -%}
</body></html>
"""
