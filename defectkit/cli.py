"""The command line. What a command needs is imported when it runs, so that `--help` is quick."""

import io
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from defectkit import DefectkitError
from defectkit.structures.names import in_terminal
from defectkit.structures.writing import atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from defectkit.predict.own import Own
    from defectkit.predict.predictor import Predictor

app = typer.Typer(
    help="Learn and use machine learning for point defects in two-dimensional materials.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Look at, fetch, clean and split a data set.", no_args_is_help=True)
demo_app = typer.Typer(help="The bundled demo database (CHGNet labels).", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(demo_app, name="demo")

SHOWN_ROWS = 50  # of a benchmark, in the terminal

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; one per core by default.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler to use instead.")]
DataName = Annotated[str, typer.Argument(help="demo, imp2d, 2dmd, or a folder of structures.")]
DataPath = Annotated[Path | None, typer.Option("--path", help="Where the data lie, if elsewhere.")]
Rules = Annotated[str, typer.Option(help="Cleaning rules: strict or proposal.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail if outdated.")]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything that is drawn at random.")
]


@app.command()
def tour(
    notebooks: Annotated[
        list[str] | None, typer.Argument(help="Which notebooks, such as 01; all by default.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Full data instead of quick mode.")] = False,
    output: Annotated[Path, typer.Option(help="Folder for the pages.")] = Path("build/tour"),
    data: Annotated[
        str, typer.Option(help="Name of a data set, or the path of a folder.")
    ] = "demo",
) -> None:
    """Run the notebooks from top to bottom and make a site of them."""
    from defectkit.teach import notebooks as books
    from defectkit.teach import site

    sources = books.sources(notebooks)
    visits = list(books.run_all(sources, output, full, _show_cell, _where(data)))
    if sys.stdout.isatty():
        print("\r\033[K", end="")
    print("site", flush=True)
    # Docstrings take a minute and a half, too long for one notebook.
    for fault in site.build(visits, output, reference=not notebooks):
        print(fault, file=sys.stderr)
    for visit in visits:
        if visit.error:
            print(f"\n{visit.name}: {visit.error}", file=sys.stderr)
    print()
    _print_table(
        ["notebook", "seconds", "peak MB", "result"],
        [
            (v.name, f"{v.seconds:.1f}", f"{v.peak_mb:.0f}", "FAILED" if v.error else "ran through")
            for v in visits
        ],
    )
    print(f"Pages: {output / site.INDEX}")
    if any(visit.error for visit in visits):
        raise typer.Exit(1)


def _where(data: str) -> str:
    """What a notebook reads, which runs in another folder: a name, or a whole path."""
    from defectkit.data.sources import SOURCES

    return data if data in SOURCES else str(Path(data).resolve())


def _show_cell(name: str, number: int, total: int, heading: str) -> None:
    """One line a cell, rewritten in place where the output is a terminal."""
    line = f"{name}  cell {number}/{total}  {heading}"
    if sys.stdout.isatty():
        print(f"\r\033[K{line[:78]}", end="", flush=True)
    else:
        print(line, flush=True)


@app.command()
def doctor() -> None:
    """Say whether everything works: versions, memory, cores, data sets, widgets."""
    from defectkit.teach.doctor import report

    findings = report()
    print(findings)
    if not findings.healthy:
        raise typer.Exit(1)


@app.command()
def notebooks(check: Check = False) -> None:
    """Write the students' notebooks from their sources."""
    from defectkit.teach import notebooks as books

    if check:
        if outdated := books.outdated():
            print(f"Run `make notebooks`; outdated: {', '.join(outdated)}", file=sys.stderr)
            raise typer.Exit(1)
        print("All notebooks are up to date.")
        return
    for path in books.write_students():
        print(path)


@app.command()
def grade(
    folder: Annotated[Path, typer.Argument(help="A class's notebooks, in any folders below it.")],
    output: Annotated[Path, typer.Option(help="The table.")] = Path("grades.csv"),
    minutes: Annotated[float, typer.Option(min=0.1, help="Longest time of one notebook.")] = 10.0,
    data: Annotated[
        str, typer.Option(help="What the notebooks read: a name, or the path of a folder.")
    ] = "demo",
) -> None:
    """Run the notebooks of a class, each kept in, and write which checks they pass."""
    from defectkit.teach import grading

    walls = grading.find_walls()
    print(walls, flush=True)
    dataset = _where(data)

    def show(number: int, total: int, one: grading.Grade) -> None:
        row = one.row()
        print(
            f"{number}/{total}  {in_terminal(one.file)}: {row['passed']} of {row['exercises']} "
            f"passed, {one.seconds:.0f} s{f' ({one.note})' if one.note else ''}",
            flush=True,
        )

    table = grading.grade(folder, output, walls, minutes, dataset, show)
    print(f"{len(table)} notebooks: {output}")


@app.command()
def readme(check: Check = False) -> None:
    """Write the tables of README from data/benchmarks."""
    from defectkit.bench.readme import update

    if not update(check=check) and check:
        print("Run `defectkit readme`; the tables of README are outdated.", file=sys.stderr)
        raise typer.Exit(1)
    print("The tables of README are up to date.")


@app.command()
def figures(
    output: Annotated[Path, typer.Option(help="Folder for them.")] = Path("docs/figures"),
) -> None:
    """Make the figures of README."""
    from defectkit.bench.figures import write

    for path in write(output):
        print(path)


@app.command()
def present(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Where the page is served, on this machine.")
    ] = 8866,
) -> None:
    """Serve pages for lectures, one concept each, and for your own files, until Ctrl-C."""
    from defectkit.teach.lecture import serve

    serve(port)


@app.command()
def solutions(
    output: Annotated[Path, typer.Option(help="Folder for them.")] = Path("build/solutions"),
) -> None:
    """Write the notebooks with their solutions."""
    from defectkit.teach import notebooks as books

    for path in books.write_solutions(output):
        print(path)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="What to measure; a wrong name lists all.")],
    seed: Seed = 0,
    data: Annotated[str | None, typer.Option(help="Data set, for models.")] = None,
    path: DataPath = None,
    output: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("data/benchmarks"),
) -> None:
    """Measure speed and memory on this machine and write the table."""
    import pandas as pd

    from defectkit import bench as benches

    file = benches.run(name, seed, output, data, path)
    table = pd.read_csv(file)
    shown = table.drop(columns=["versions", "machine", "command", "seed"], errors="ignore")
    shown = shown.head(SHOWN_ROWS)
    _print_frame(shown.astype(str))
    print(f"{len(shown)} of {len(table)} rows; {table.machine[0]}; table written to {file}")


ConfigFile = Annotated[Path, typer.Argument(help="YAML file, such as configs/cgcnn.yaml.")]
Changes = Annotated[
    list[str] | None, typer.Argument(help="Values to change, such as epochs=5 optimiser.lr=0.001.")
]


@app.command()
def train(
    config: ConfigFile,
    changes: Changes = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; build/runs/NAME-SEED by default.")
    ] = None,
    other_labels: Annotated[
        bool, typer.Option("--other-labels", help="Start from a model of another label source.")
    ] = False,
) -> None:
    """Train a model, or go on with a run that was interrupted."""
    from defectkit.evaluation.metrics import scores
    from defectkit.training.config import load_config, with_values
    from defectkit.training.prepared import prepare
    from defectkit.training.train import train

    chosen = with_values(load_config(config), changes or [])
    folder = output or Path("build/runs") / f"{config.stem}-{seed}"
    run = train(prepare(chosen), folder, seed=seed, other_labels=other_labels)
    valid = scores(run.part("valid"))
    print(f"validation: MAE {valid['eform_mae']:.3f} eV, {valid['spin_mae']:.3f} μB")
    print(f"Run folder: {run.folder}")


@app.command()
def vectors(
    config: Annotated[Path, typer.Argument(help="Such as configs/vectors/invented.yaml.")],
    changes: Changes = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Run folder; build/vectors/NAME-SEED by default.")
    ] = None,
) -> None:
    """Learn vectors of the elements from formulas, or go on with a run that was interrupted.

    For formulas of your own: corpus=FILE, a CSV with a column formula.
    """
    from defectkit.training.config import VectorConfig, load_config, with_values
    from defectkit.training.vectors import learn_vectors

    chosen = with_values(load_config(config, VectorConfig), changes or [])
    run = learn_vectors(chosen, output or Path("build/vectors") / f"{config.stem}-{seed}", seed)
    print(
        f"{run.summary['elements']} elements; a masked one costs "
        f"{run.summary['valid_element']:.2f} nats on formulas kept apart, "
        f"{run.summary['guess']:.2f} by frequency alone"
    )
    print(f"Run folder: {run.folder}")


@app.command()
def reproduce(
    name: Annotated[str, typer.Argument(help="demo, imp2d or 2dmd.")] = "imp2d",
    changes: Changes = None,
    path: DataPath = None,
    output: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("build/benchmarks"),
) -> None:
    """Fetch and clean a data set, train every model of the kit on it and compare them."""
    import pandas as pd

    from defectkit import bench as benches
    from defectkit.bench.tables import models_table

    clean(name, path)
    file = benches.run("models", 0, output, name, path, changes or [])
    print(models_table(pd.read_csv(file)))
    print(f"Table written to {file}")


@app.command()
def evaluate(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    part: Annotated[str, typer.Option(help="test or valid.")] = "test",
    report: Annotated[
        Path | None, typer.Option(help="Folder for a report: a page with figures, and a table.")
    ] = None,
) -> None:
    """Show the errors of finished runs; with --report, where they come from and how sure they are.

    In a report, the first run is the one that others are compared with.
    """
    from defectkit.bench.judge import judge, left_out_note, metrics
    from defectkit.training.run import Run

    runs = [Run(folder) for folder in folders]
    judged = judge(runs, part)
    shown = metrics(judged).drop(columns=["model", "seed"]).dropna(axis=1, how="all")
    _print_frame(shown)
    if note := left_out_note(judged):
        print(note)
    if report:
        from defectkit.bench.report import write

        print(f"Report: {write(runs, report, part)}")


@app.command()
def join(
    folders: Annotated[list[Path], typer.Argument(help="Run folders.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Overwrite a predictor of other runs.")
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option(min=10, help="How many training rows the guard keeps; all by default."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            help="FOLDER/NAME of a predictor to hand on: with copies of the runs, without labels."
        ),
    ] = None,
) -> None:
    """Make one predictor of runs that differ by their seed: with intervals, and a guard."""
    from defectkit.predict.predictor import Predictor
    from defectkit.training.run import Run

    predictor = Predictor.fit([Run(folder) for folder in folders], rows)
    if to is not None:
        path = to.with_name(f"{to.name}.safetensors")
        predictor.hand_on(path, replace)
    else:
        first = Run(folders[0])
        name = first.folder.name.removesuffix(f"-{first.summary['seed']}")
        path = first.folder.parent / f"{name}.safetensors"
        predictor.save(path, replace)
    print(f"Predictor written to {path}")


@app.command()
def predict(
    structures: Annotated[
        list[Path],
        typer.Argument(help="CIF, POSCAR, xyz or extxyz files, ASE databases, or folders."),
    ],
    host: Annotated[
        str | None,
        typer.Option(help="The pristine host: a file, or a name such as MoS2 or hBN."),
    ] = None,
    relaxed: Annotated[
        bool | None,
        typer.Option("--relaxed/--unrelaxed", help="Which they are; told from the atoms else."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.9,
    predictor: Annotated[
        Path | None, typer.Option(help="A file of `defectkit join`; those of the kit by default.")
    ] = None,
    maps: Annotated[
        Path | None, typer.Option("--map", help="Folder for maps of attention and occlusion.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Table to write, .csv or .json.")
    ] = None,
) -> None:
    """Predict formation energy and magnetic moment of structures of your own."""
    from defectkit.predict.answer import (
        all_atom_predictor,
        ask,
        check_table_name,
        read,
        sentences,
        write_table,
    )
    from defectkit.predict.own import read_own, training_hosts
    from defectkit.predict.predictor import Predictor

    if output is not None:
        check_table_name(output)
    if predictor is None:
        own = read(structures, host, relaxed)
        table = ask(own, confidence)
    else:
        chosen = Predictor.load(predictor)
        own = read_own(structures, training_hosts(chosen.card.data), host, relaxed)
        table = chosen.predict_own(own, confidence)
    for line in sentences(table):
        print(in_terminal(line))
    if output is not None:
        write_table(table, output)
        print(f"{len(table):,} rows written to {output}")
    for one in own if maps is not None else ():
        if not one.fault:
            _write_map(one, chosen if predictor else all_atom_predictor(one), maps)


def _write_map(one: "Own", predictor: "Predictor", folder: Path) -> None:
    """PNG and SVG of what the first network looked at."""
    import matplotlib

    from defectkit.plots.explain import prediction_map
    from defectkit.plots.style import save

    matplotlib.use("Agg")  # nobody looks at windows here
    axes = prediction_map(predictor.networks[0], predictor.graph_of(one), one.record.uid)
    for path in save(axes[0].figure, folder / re.sub(r"[^\w.-]+", "_", one.record.uid)):
        print(path)


@app.command()
def screen(
    hosts: Annotated[
        list[str], typer.Argument(help="Pristine hosts: files, names such as MoS2, or all.")
    ],
    dopants: Annotated[
        str, typer.Option(help="Elements with commas between; those of the demo by default.")
    ] = "",
    kinds: Annotated[
        str, typer.Option(help="adsorbate,interstitial,substitution,vacancy,complex or some.")
    ] = "",
    sites: Annotated[str, typer.Option(help="Names such as ads0,sub1, or all.")] = "all",
    strains: Annotated[
        str, typer.Option(help="Biaxial strains of the hosts, such as -0.01,0,0.01.")
    ] = "0",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; what is in it goes on.")
    ] = Path("build/screen"),
    length: Annotated[int, typer.Option(min=1, help="Of the short list.")] = 20,
    width: Annotated[float, typer.Option(help="Widest interval of the energy, eV.")] = 2.0,
    eform: Annotated[float | None, typer.Option(help="Highest formation energy, eV.")] = None,
    spin: Annotated[float, typer.Option(help="Least magnetic moment of the cell, μB.")] = 0.0,
    margin: Annotated[
        float, typer.Option(help="Least advantage over the best other site, eV.")
    ] = 0.0,
    next_: Annotated[
        int, typer.Option("--next", min=0, help="How many to compute next, to learn from them.")
    ] = 0,
    predictor: Annotated[
        Path | None, typer.Option(help="A file of `defectkit join`; that of the kit by default.")
    ] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
) -> None:
    """Predict every defect that could be made in some hosts, and hand over a short list."""
    from defectkit.predict.own import host_cells
    from defectkit.screening.candidates import Space
    from defectkit.screening.choose import write_next
    from defectkit.screening.funnel import Wish
    from defectkit.screening.handover import LIST, hand_over
    from defectkit.screening.store import Engine
    from defectkit.screening.store import screen as screen_space

    chosen = {
        "dopants": _listed(dopants),
        "kinds": _listed(kinds),
        "sites": () if sites == "all" else _listed(sites),
        "strains": tuple(map(_strain, _listed(strains))),
    }
    space = Space(host_cells(hosts), **{name: some for name, some in chosen.items() if some})
    wish = Wish(length, width, eform, spin, margin)
    engine = Engine(predictor, workers, scheduler)
    with _bar("candidates") as show:
        screening = screen_space(space, output, wish, engine, show)
    _print_frame(screening.funnel)
    written = hand_over(screening)
    if next_:
        written.append(write_next(screening, next_, engine.load().training["latent"]))
    shown = ["place", "name", "eform", "eform_lo", "eform_hi", "spin", "margin_site", "margin_bulk"]
    _print_frame(screening.table("chosen")[shown])
    print(f"Why each was chosen stands in {output / LIST}; {len(written)} outputs in {output}.")


@app.command()
def label(
    folder: Annotated[Path, typer.Argument(help="Of `defectkit screen`.")],
    source: Annotated[str, typer.Option("--with", help="What computes: chgnet.")] = "chgnet",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="ASE database; FOLDER/labels.db else.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Compute what `screen --next` chose, else its short list, so that it can be learned from."""
    from defectkit.screening.choose import chosen_keys
    from defectkit.screening.label import label as compute
    from defectkit.screening.store import Screening

    if source != "chgnet":
        raise DefectkitError(
            f"Nothing here computes labels of {source}; say --with chgnet, or hand the folder of "
            "structures to your own programme."
        )
    screening, path = Screening(folder), output or folder / "labels.db"
    keys = chosen_keys(screening)
    with _bar("labels") as show:
        failed = compute(screening, keys, path, workers, show)
    for name, reason in failed.items():
        print(in_terminal(f"{name} could not be computed: {reason}"))
    print(f"{len(keys) - len(failed)} of {len(keys)} labels are in {path}.")


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _strain(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DefectkitError(f"The strain {text} is no number; give one such as 0.01.") from error


@contextmanager
def _bar(what: str) -> "Iterator[Callable[[int, int], None]]":
    """A progress bar for what calls with how many are done, of how many; its rate is from now."""
    from tqdm import tqdm

    with tqdm(desc=what) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:
                bar.reset(total)
                bar.initial = bar.n = done
            bar.update(done - bar.n)

        yield show


@app.command()
def make(
    host: Annotated[str, typer.Argument(help="The pristine host: a file, or a name such as hBN.")],
    vacancy: Annotated[list[str] | None, typer.Option(help="An element that is taken out.")] = None,
    substitute: Annotated[
        list[str] | None, typer.Option(help="An element and what replaces it, as Mo=W.")
    ] = None,
    add: Annotated[str, typer.Option(help="An element that is added.")] = "",
    site: Annotated[
        str, typer.Option(help="ontop, bridge, hollow, inside, or a name such as ads0.")
    ] = "",
    size: Annotated[
        float, typer.Option(min=1, help="Least distance (Å) of a defect from its image.")
    ] = 9.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A structure file, or a folder for all.")
    ] = None,
) -> None:
    """Make structures with a defect, unrelaxed: all distinct sites, or one."""
    from defectkit.predict.own import host_cell
    from defectkit.structures.defects import defects_of, write_defects

    pairs = [tuple(pair.split("=", 1)) for pair in substitute or () if "=" in pair]
    if len(pairs) < len(substitute or ()):
        raise DefectkitError("Name a substitution as Mo=W: what is there, and what replaces it.")
    made = defects_of(host_cell(host), vacancy or (), dict(pairs), add, site, size)
    for name, defect in made.items():
        print(f"{name}: {defect.atoms.symbols.formula:metal}, {len(defect.atoms)} atoms")
    for path in write_defects(made, output) if output is not None else ():
        print(path)


@app.command()
def tune(
    config: ConfigFile,
    changes: Changes = None,
    seed: Seed = 0,
    output: Annotated[Path | None, typer.Option(help="Folder; build/tune/NAME by default.")] = None,
) -> None:
    """Search for settings on validation rows, or go on with a search."""
    from defectkit.training.config import TuneConfig, load_config, with_values
    from defectkit.training.prepared import prepare
    from defectkit.training.tune import tune as search

    chosen = with_values(load_config(config, TuneConfig), changes or [])
    folder = output or Path("build/tune") / config.stem
    trials = search(chosen, prepare(chosen.run), folder, seed)
    print(trials.sort_values("value").to_string(index=False))
    print(f"Best settings: {folder / 'best.yaml'}")


@data_app.command()
def info(name: DataName = "demo", path: DataPath = None) -> None:
    """Describe a data set: rows, hosts, dopants, types, energies, moments, label source."""
    from defectkit.data import load

    dataset = load(name, path)
    frame = dataset.frame
    types = frame.defecttype.value_counts()
    _print_table(
        [dataset.name, ""],
        [
            ("labels", dataset.label_source),
            ("rows", f"{len(frame):,}"),
            ("converged", f"{frame.converged.sum():,}"),
            ("hosts", f"{frame.host.nunique()}"),
            ("dopants", f"{frame.dopant[frame.dopant != ''].nunique()}"),
            *((f"  {kind}", f"{n:,} ({n / len(frame):.1%})") for kind, n in types.items()),
            ("fingerprint", dataset.fingerprint),
        ],
    )
    shares = [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1]
    _print_table(
        ["quantile", "formation energy (eV)", "magnetic moment (μB)"],
        [
            (
                f"{share:.0%}",
                f"{frame.eform.quantile(share):.3f}",
                f"{frame.spin.quantile(share):.3f}",
            )
            for share in shares
        ],
    )


@data_app.command()
def fetch(name: Annotated[str, typer.Argument(help="The data set.")] = "imp2d") -> None:
    """Download a data set, check it and keep it for later."""
    from defectkit.data import load, sources

    path = sources.fetch(name)
    if not sources.SOURCES[name].sha256:  # what is there can only be judged by reading it
        print(f"{len(load(name, path)):,} rows")
    print(path)


@data_app.command()
def clean(
    name: DataName = "demo",
    path: DataPath = None,
    rules: Rules = "strict",
    output: Annotated[Path | None, typer.Option(help="CSV file for the rows that stay.")] = None,
) -> None:
    """Clean a data set and show what each rule removes."""
    from defectkit.data import load
    from defectkit.data.cleaning import clean as clean_dataset

    cleaned = clean_dataset(load(name, path), rules)
    _print_table(
        ["rule", "removed", "left", "what it removes"],
        [
            (step.rule, f"{step.removed:,}", f"{step.left:,}", step.description)
            for step in cleaned.waterfall.itertuples()
        ],
    )
    if output:
        with atomic(output) as file:
            cleaned.dataset.frame.to_csv(file)
        print(f"{len(cleaned.dataset.frame):,} rows written to {output}")


@data_app.command()
def split(
    name: DataName = "demo",
    path: DataPath = None,
    rules: Rules = "strict",
    kind: Annotated[
        str,
        typer.Option(
            help="random, subset, host, dopant, pair, combination, block or leave-one-X-out with X "
            "host, formula, density or dopant."
        ),
    ] = "random",
    seed: Seed = 0,
    fold: Annotated[int | None, typer.Option(min=0, help="Which fold is the test part.")] = None,
    held_out: Annotated[
        list[str] | None, typer.Option(help="Host or dopant; for block, host family and block.")
    ] = None,
    calibration: Annotated[
        float, typer.Option(min=0, max=1, help="Share kept apart for calibration.")
    ] = 0.0,
    output: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("split.json"),
) -> None:
    """Split the cleaned data set into train, valid and test, and save the split."""
    from defectkit.data import load
    from defectkit.data.cleaning import clean as clean_dataset
    from defectkit.data.splits import make_split

    dataset = clean_dataset(load(name, path), rules).dataset
    held = tuple(held_out or ())
    parts = make_split(
        dataset,
        kind=kind,
        seed=seed,
        fold=fold,
        held_out=held if len(held) > 1 else next(iter(held), None),
        calibration=calibration,
    )
    parts.save(output)
    _print_table(
        ["part", "rows"],
        [
            (part, f"{len(getattr(parts, part)):,}")
            for part in ("train", "valid", "test", "calibration")
        ],
    )
    print(f"Split written to {output}")


@demo_app.command()
def build(
    rows: Annotated[
        int, typer.Option(min=1, help="Rows wanted in all; those that are there stay.")
    ] = 8000,
    seed: Seed = 0,
    workers: Workers = None,
    scheduler: Scheduler = None,
    output: Annotated[Path, typer.Option(help="The database.")] = Path("data/demo2d.db"),
    starts_of: Annotated[
        Path | None,
        typer.Option(help="Take hosts from this database; start where no recipe does."),
    ] = None,
) -> None:
    """Compute the demo database with CHGNet, or go on where an earlier run stopped."""
    from tqdm import tqdm

    from defectkit.data.demo import build as build_demo
    from defectkit.data.starts import RandomStarts

    bars: dict[str, tqdm] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = tqdm(desc=what, total=total, initial=done)
        bars[what].update(done - bars[what].n)
        if done >= total:
            bars[what].close()

    other = RandomStarts(starts_of) if starts_of else None
    build_demo(output, rows, seed, workers, scheduler, show, other)
    bar = bars["rows"]
    done, seconds = bar.n - bar.initial, bar.format_dict["elapsed"]
    rate = f", {done / seconds:.2f} rows/s" if done else ""
    print(f"{done:,} rows computed in {seconds:.0f} s{rate}; {output} is complete.")


@demo_app.command()
def card(
    database: Annotated[Path, typer.Option(help="The database.")] = Path("data/demo2d.db"),
    output: Annotated[Path, typer.Option(help="The card.")] = Path("data/README.md"),
) -> None:
    """Write the data card of the demo database from the database itself."""
    from defectkit.bench.card import write_card

    write_card(database, output)
    print(output)


def _print_table(head: list[str], rows: list[tuple[str, ...]]) -> None:
    """Columns as wide as they need to be, numbers to the right: the same on screen and in logs."""
    head, *rows = ([in_terminal(cell) for cell in row] for row in (head, *rows))
    columns = list(zip(head, *rows))
    widths = [max(map(len, column)) for column in columns]
    number = re.compile(r"-?[\d,.]+%?|nan")
    sides = [">" if all(map(number.fullmatch, column[1:])) else "<" for column in columns]
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths)]
        print("  ".join(cells).rstrip())
    print()


def _print_frame(frame: "pd.DataFrame") -> None:
    """The columns of a table, without its index."""
    _print_table(list(frame), [tuple(map(_cell, row)) for row in frame.itertuples(index=False)])


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value).replace("<NA>", "")


def main() -> None:
    """Run the command line; an error that a person can mend is one sentence, not a traceback."""
    _survive_any_console()
    try:
        app()
    except DefectkitError as error:
        print(f"defectkit: {in_terminal(str(error).replace(chr(10), ' '))}", file=sys.stderr)
        sys.exit(1)


def _survive_any_console() -> None:
    """Show a question mark where the encoding of a console, pipe or file lacks μ or Å.

    Progress bars and log lines go through the same two streams.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
