"""What documents show: tables and figures of README, and the card of the demo database.

Tables and the oscillation come from `data/benchmarks/`, the other figures from the demo data and
the shipped hybrid, the card from the database itself.
"""

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from ase.db import connect
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from tabulate import tabulate

from defectkit import DefectkitError, explain
from defectkit.bench.measure import BENCHES, shipped
from defectkit.bench.starts import STARTS
from defectkit.data.demo import DOPANTS, MAX_STRAIN, check_demo_database
from defectkit.data.potential import COARSE_FMAX, COARSE_STEPS, FINE_FMAX, FINE_STEPS
from defectkit.data.readers import read_demo
from defectkit.data.sources import CHECKOUT_DATA, SOURCES
from defectkit.graphs.build import CrystalGraph
from defectkit.graphs.geometry import edge_vectors
from defectkit.plots.explain import lattice_map, weight_by_distance
from defectkit.plots.real import oscillation
from defectkit.plots.results import parity
from defectkit.plots.style import BLUE, GREY, LIGHT_GREY, ORANGE
from defectkit.screening.choose import against_random
from defectkit.structures.hosts import HOSTS, MIN_ATOMS, MIN_IMAGE_DISTANCE, VACUUM
from defectkit.structures.record import MOMENT_FLOOR
from defectkit.structures.writing import atomic, make_folder, write_text
from defectkit.teach import exercise_numbers, notebooks
from defectkit.teach.checks import find
from defectkit.training.pretrained import PUBLISHED, ROOT, benchmark, published_2dmd
from defectkit.training.run import Run

README = CHECKOUT_DATA.parent / "README.md"
FOLDER = ROOT / "docs" / "figures"
NAMES = ("oscillation", "route", "parity", "attention_on_a_vacancy", "decay", "folders")
# The import rule of the package, and what leaves each step of the route.
RULE = (
    "structures < data, graphs < models < training < predict < screening, evaluation < explain"
    " < plots, teach < widgets, bench < cli"
)
LEAVES = {
    "structures": "DefectRecord",
    "data": "Dataset, Split",
    "graphs": "CrystalGraph",
    "models": "Output",
    "training": "Run",
    "predict": "table, verdicts",
    "screening": "short list",
    "evaluation": "scores",
    "explain": "weights",
    "plots": "Figure",
    "teach": "Verdict, page",
    "widgets": "view",
    "bench": "CSV, README",
    "cli": "command",
}
TARGETS = {
    "eform": "Formation energy, meV by site of the defect",
    "gap": "Gap between the highest occupied and the lowest empty state, meV",
}
COLUMNS_2DMD = (
    *(f"{density}_{host}" for density in ("low", "high") for host in ("MoS2", "WSe2")),
    *(f"high_{host}" for host in ("InSe", "GaSe", "P", "BN")),
    "mean of 8",
)
REPLAYED = ("demo", "2dmd")  # data sets on which the choice of what to compute was replayed
MODEL = "hybrid"
DPI = 100
QUANTILES = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
LIMITS = """## What CHGNet is good and bad at

* Trained on relaxation paths of bulk crystals (PBE and PBE+U of the Materials Project), it has seen
  few slabs and few defects. Trends between chemically similar defects are useful, single energies
  may be wrong by an electronvolt.
* Its potential-energy surface is softer than DFT's: forces, and with them relaxation energies, come
  out too small in strained surroundings.
* No charge states, no spin polarisation that one could set: its moments are magnitudes without
  sign, so antiferromagnets look like ferromagnets.
* No dispersion forces: physisorbed atoms are bound too weakly.
* Germanene, stanene and graphane are missing: the first two collapse into a denser phase under
  CHGNet, the third costs twenty times more than any other host.

"""
LICENCE = """## Licence and citation

The database: MIT, as the kit. The potential: B. Deng et al., Nat. Mach. Intell.
5, 1031 (2023). The schema follows Imp2d: J. Davidsson et al., npj 2D Mater. Appl. 7, 26 (2023).
"""


def models_table(table: pd.DataFrame) -> str:
    """Markdown: a row a model and input, mean and spread over seeds, best last.

    Args:
        table: `data/benchmarks/models_*.csv`.

    Raises DefectkitError where not all models were tested on the same rows.
    """
    same = ["n_test", "left_out", "data_fingerprint"]
    if not set(same) <= set(table) or len(table[same].drop_duplicates()) > 1:
        raise DefectkitError(
            "The models of the table were tested on different rows; make it again with `defectkit "
            "bench models`."
        )
    rows = []
    groups = table.groupby(["model", "input"], sort=False)
    for (model, place), seeds in sorted(groups, key=lambda item: -item[1].eform_mae.mean()):
        mean = seeds.mean(numeric_only=True)
        spread = f" ± {seeds.eform_mae.std(ddof=1):.3f}" if len(seeds) > 1 else ""
        rows.append(
            {
                "model": model,
                "input": place,
                "MAE (eV)": f"{mean.eform_mae:.3f}{spread}",
                "95 % interval": f"{mean.eform_mae_lo:.3f}–{mean.eform_mae_hi:.3f}",
                "RMSE (eV)": f"{mean.eform_rmse:.3f}",
                "R²": f"{mean.eform_r2:.3f}",
                "spin MAE (μB)": f"{mean.spin_mae:.3f}",
                "magnetic F1": f"{mean.mag_f1:.3f}",
                "parameters": f"{mean.n_params:,.0f}" if mean.n_params else "–",
                "training, s/epoch": f"{mean.train_s_per_epoch:.1f}",
                "prediction, ms": f"{mean.infer_ms_b64:.2f}",
            }
        )
    return f"{_markdown(rows, texts=2)}\n\n{_tested(table)}"


def _tested(table: pd.DataFrame) -> str:
    """Which rows all models of the table were tested on."""
    n, missing = int(table.n_test.iloc[0]), table.left_out.fillna("").iloc[0]
    if not missing:
        return f"All models were tested on the same {n:,} rows."
    names = missing.split("; ")
    return (
        f"All models were tested on the same {n:,} of {n + len(names):,} rows. Not every model can "
        f"read the others: {', '.join(f'`{name}`' for name in names)}."
    )


def throughput_table(table: pd.DataFrame) -> str:
    """Markdown: a row a network, slowest first, with its times in those of the hybrid.

    Args:
        table: `data/benchmarks/throughput.csv`.
    """
    own = table.set_index("model").loc["hybrid"]
    rows = [
        {
            "model": row.model,
            "hidden width": row.hidden,
            "parameters": f"{row.n_params:,}",
            "angles a structure": f"{row.angles:,.0f}",
            "training step, ms": f"{row.train_ms:.1f}",
            "prediction, ms": f"{row.infer_ms:.1f}",
            "times the hybrid's": (
                f"{row.train_ms / own.train_ms:.1f} and {row.infer_ms / own.infer_ms:.1f}"
            ),
        }
        for row in table.sort_values("train_ms", ascending=False).itertuples()
    ]
    return _markdown(rows)


def choice_table(demo: pd.DataFrame) -> str:
    """Markdown: a row a strategy, its errors beside those of rows at random, and what it finds.

    Args:
        demo: `data/benchmarks/choice.csv`; the table of 2DMD stands beside it.
    """
    curves = pd.concat([demo, benchmark("choice_2dmd")])
    found = against_random(curves)
    ends = curves[curves.labelled == curves.labelled.max()].groupby(["strategy", "data"])
    worst = found.ratio.groupby(level="strategy").max().sort_values()
    rows = []
    for name in worst.index:
        row = {"strategy": name}
        for data in REPLAYED:
            own = found.loc[data, name]
            row[f"{data}: error / random"] = f"{own.ratio:.2f} ± {own.half:.2f}"
        for data in REPLAYED:
            row[f"{data}: of the lowest found"] = f"{ends.found.mean()[name, data]:.0%}"
        rows.append(row)
    return _markdown(rows)


def interval_table(table: pd.DataFrame) -> str:
    """Markdown: a row a target and calibration, a column a subset, shares of labels inside.

    Args:
        table: `data/benchmarks/intervals_2dmd.csv`.
    """
    words = {"eform": "formation energy", "gap": "gap"}
    order = {subset: place for place, subset in enumerate(COLUMNS_2DMD)}
    table = table.sort_values("subset", key=lambda names: names.map(order))
    ways = {"together": "all rows together", "by_kind": "kind by kind, as shipped"}
    rows = [
        {"target": words[target], "calibrated on": ways[way]}
        | {
            subset.replace("_", " "): f"{share:.0%}"
            for subset, share in own.set_index("subset")[way].items()
        }
        for target, own in table.groupby("target", sort=False)
        for way, words_of_way in ways.items()
    ]
    return _markdown(rows, texts=2)


def screen_table(table: pd.DataFrame) -> str:
    """Markdown: a row a way to an energy, its speed and how it agrees with relaxation.

    Args:
        table: `data/benchmarks/screen.csv`.
    """
    own = table.set_index("method").loc["CHGNet relaxation"]
    rows = [
        {
            "method": row.method,
            "candidates": f"{row.n_candidates:,}",
            "a second": f"{row.candidates_per_s:.1f}",
            "times relaxation": f"{row.candidates_per_s / own.candidates_per_s:,.0f}",
            "Spearman": f"{row.spearman_vs_relaxed:.2f}",
            "MAE (eV)": f"{row.mae_vs_relaxed:.2f}",
            "of the 20 lowest found": f"{row.top20_recall:.0%}",
            "peak memory (MB)": f"{row.peak_mb:,.0f}",
        }
        for row in table.sort_values("candidates_per_s").itertuples()
    ]
    return _markdown(rows)


def vectors_table(table: pd.DataFrame) -> str:
    """Markdown: a row a kind of vectors, a column a property; means over seeds.

    Args:
        table: `data/benchmarks/vectors.csv`.
    """
    score = table.pivot_table(index="vectors", columns="property", values="score", sort=False)
    sizes = table.groupby("vectors").dimensions.first()
    rows = [
        {"vectors": name, "dimensions": f"{sizes[name]}"}
        | {VECTOR_WORDS[key]: f"{values[key]:.2f}" for key in VECTOR_WORDS}
        for name, values in score.iterrows()
    ]
    return _markdown(rows)


def scale_page(table: pd.DataFrame) -> str:
    """The plan for a hundred million candidates, its constants from `data/benchmarks/scale.csv`."""
    value = table.set_index("what").value
    count = PLANNED
    # By processor time: the machine that measured may have had other work as well.
    per_core = 1e3 / value[["build_ms", "networks_ms", "judge_ms", "store_ms"]].sum()
    core_hours = count / per_core / 3600
    chunks = count / value.chunk
    return SCALE_TEXT.format(
        machine=table.machine[0],
        command=table.command[0],
        **{name: float(number) for name, number in value.items()},
        per_core=per_core,
        networks_share=value.networks_ms
        / value[["build_ms", "networks_ms", "judge_ms", "store_ms"]].sum(),
        count=count,
        chunks=chunks,
        core_hours=core_hours,
        nodes_hours=core_hours / NODE_CORES,
        nodes=NODES,
        node_cores=NODE_CORES,
        wall_hours=core_hours / NODE_CORES / NODES,
        gigabytes=count * value.bytes_per_row / 1e9,
        slim_gigabytes=count * (value.bytes_per_row - value.vector_bytes) / 1e9,
        sent_gigabytes=chunks * (value.task_bytes + value.result_bytes) / 1e9,
        write_hours=count * value.store_ms / 1e3 / 3600,
        top_megabytes=NODES * NODE_CORES * TOP_K * value.bytes_per_row / 1e6,
        top_k=TOP_K,
        bests_megabytes=HOSTS_PLANNED * STRAINS_PLANNED * len(DOPANTS) * 40 / 1e6,
        hosts=HOSTS_PLANNED,
        strains=STRAINS_PLANNED,
        dopants=len(DOPANTS),
        euros=core_hours * PRICE,
        price=PRICE,
    )


def ladder_table(table: pd.DataFrame) -> str:
    """Markdown: a row a model, a column a step, mean absolute errors with their intervals.

    Args:
        table: `data/benchmarks/ladder.csv`.
    """
    rows = [
        {
            "model": model,
            **{
                row.split: f"{row.eform_mae:.3f} ({row.eform_mae_lo:.3f}–{row.eform_mae_hi:.3f})"
                for row in steps.itertuples()
            },
        }
        for model, steps in table.groupby("model", sort=False)
    ]
    return _markdown(rows)


def starts_table(table: pd.DataFrame) -> str:
    """Markdown: a row a predictor and origin of its structures, all kinds of defects together.

    Args:
        table: `data/benchmarks/starts.csv`.
    """
    rows = [
        {
            "predictor": row.model,
            "input": row.input,
            "starts": row.starts,
            "structures": row.n,
            "unread": row.unread,
            "MAE (eV)": f"{row.eform_mae:.3f}",
            "95 % interval": f"{row.eform_mae_lo:.3f}–{row.eform_mae_hi:.3f}",
            "in the 90 % interval": f"{row.coverage:.0%}",
            "called doubtful": f"{row.flagged:.0%}",
            "of the worst tenth": f"{row.caught:.0%}",
        }
        for row in table[table.kind == "all"].itertuples()
    ]
    return _markdown(rows, texts=3)


def real_table(table: pd.DataFrame) -> str:
    """Markdown: a table a target, a row a model and a column a subset, best last, in meV.

    Means over seeds; the interval is that of the mean of all subsets, its bounds means as well.
    Published errors stand among them, as of another split.

    Args:
        table: `data/benchmarks/models_2dmd.csv`.
    """
    published = published_2dmd()
    texts = []
    for target, title in TARGETS.items():
        ours = table[table.target == target].assign(split="this")
        both = pd.concat([ours, published[published.target == target]])
        rows = [
            _real_row(model, split, seeds.groupby("subset").mean(numeric_only=True))
            for (model, split), seeds in both.groupby(["model", "split"])
        ]
        rows.sort(key=lambda row: row.pop("order"))
        texts.append(f"{title}:\n\n{_markdown(rows, texts=2)}")
    return "\n\n".join(texts)


def _real_row(model: str, split: str, means: pd.DataFrame) -> dict:
    """One model: errors by subset (eV) and cost, as texts, and what it is ordered by."""
    errors = means.mae.reindex(COLUMNS_2DMD)
    row = {"model": model, "split": split}
    row |= {
        subset.replace("_", " "): "–" if np.isnan(error) else f"{1e3 * error:.1f}"
        for subset, error in errors.items()
    }
    known = means.iloc[0] if "n_params" in means else pd.Series(dtype=float)
    whole = means.reindex(COLUMNS_2DMD[-1:]).iloc[0]
    has_bounds = not np.isnan(whole.get("mae_lo", np.nan))
    row["95 % interval"] = (
        f"{1e3 * whole.mae_lo:.1f}–{1e3 * whole.mae_hi:.1f}" if has_bounds else "–"
    )
    for column, name, form in (
        ("n_params", "parameters", ",.0f"),
        ("train_s", "training, s", ",.0f"),
        ("infer_ms", "prediction, ms", ".3f"),
    ):
        value = known.get(column, np.nan)
        missing = np.isnan(value) or (column == "n_params" and not value)
        row[name] = "–" if missing else format(value, form)
    return row | {"order": -np.nan_to_num(whole.mae, nan=np.inf)}


def _markdown(rows: list[dict], texts: int = 1) -> str:
    """A table whose first columns are texts, to the left, and whose others are numbers."""
    sides = ["left"] * texts + ["right"] * (len(rows[0]) - texts)
    return tabulate(rows, "keys", "pipe", disable_numparse=True, colalign=sides)


TABLES = {
    "models_demo": models_table,
    "starts": starts_table,
    "models_2dmd": real_table,
    "throughput": throughput_table,
    "ladder": ladder_table,
    "intervals_2dmd": interval_table,
    "screen": screen_table,
    "choice": choice_table,
    "vectors": vectors_table,
}
VECTOR_WORDS = {
    "neighbour": "nearest of the same group",
    "clusters": "clusters against groups",
    "pc1": "first component against valence electrons",
    "group": "probe: group",
    "period": "probe: period",
    "electronegativity": "probe: electronegativity, R²",
    "covalent_radius": "probe: radius, R²",
}

PLANNED = 100_000_000  # candidates
NODES, NODE_CORES = 20, 64
HOSTS_PLANNED, STRAINS_PLANNED = 5000, 20
TOP_K = 1000  # rows that each worker keeps
PRICE = 0.03  # EUR a core hour, about what rented cores cost
SCALE_TEXT = """# A hundred million candidates, on paper

Written by `defectkit readme` from `data/benchmarks/scale.csv`, which `{command}` measured on
{machine}. The plan counts with these numbers and assumes that cores are alike; nobody has run it.

## Measured here

A screening of {candidates:,.0f} candidates of the hosts of the demo data, {workers:.0f} worker
processes, three networks, from the first candidate to the short list. It was killed {killed:.0f}
times on the way (SIGKILL, in the middle of a chunk) and given again: its table holds {rows:,.0f}
candidates, each once.

| | |
|:--|--:|
| wall time, starts and lost work included, beside other work of the machine | {seconds:,.0f} s |
| candidates a second, the same included | {candidates_per_s:,.0f} |
| largest memory of a worker | {worker_peak_mb:,.0f} MB |
| largest memory of the process that writes | {parent_peak_mb:,.0f} MB |
| bytes a row on disk, of which the latent vector {vector_bytes:.0f} | {bytes_per_row:,.0f} |
| bytes of a chunk of {chunk:.0f} candidates that is sent to a worker | {task_bytes:,.0f} |
| bytes that come back | {result_bytes:,.0f} |
| ranking and thinning of all | {sieve_s:,.1f} s |

Where the time of one core goes, in ms of processor time a candidate (a sample of
{sampled:,.0f}): {build_ms:.2f} to make structures and graphs, {networks_ms:.2f} in the three
networks, {judge_ms:.2f} for intervals, guard and flags, {store_ms:.2f} to write rows. The networks
take {networks_share:.0%}.

## The plan

{count:,.0f} candidates: about {hosts:,} hosts, {strains} strains, {dopants} dopants, some fifteen
sites.

* **Chunks**: {chunks:,.0f} of {chunk:.0f} candidates, each named by the hash of what it holds. A
  chunk that is done twice is written once; a worker that dies costs one chunk. Names are kept in
  the table of chunks: the run can stop and go on at any moment.
* **Work**: {per_core:,.0f} candidates a second of processor time, {core_hours:,.0f} core hours:
  {wall_hours:,.2f} hours on {nodes} nodes of {node_cores} cores, about {euros:,.0f} EUR at
  {price} EUR a core hour. The address of a Dask scheduler is all that changes, whether its workers
  come from SLURM (dask-jobqueue) or Kubernetes.
* **Memory**: a worker holds one chunk, whatever the number of candidates.
* **Network**: {sent_gigabytes:,.0f} GB both ways.
* **One writer** takes {write_hours:,.1f} hours for all rows. Where that is longer than the work,
  each host gets a folder of its own: chunks never mix hosts, and a dopant competes for sites within
  one host and strain only.
* **Disk**: {gigabytes:,.0f} GB; {slim_gigabytes:,.0f} GB without latent vectors, which only the
  candidates that are ranked need and which can be computed again.
* **Top k without a shuffle**: whether another site is better is asked within one host, strain and
  dopant, all in one folder: {hosts:,} x {strains} x {dopants} lowest energies are
  {bests_megabytes:,.0f} MB if all are wanted in one place. Each worker then keeps its best
  {top_k:,} rows ({top_megabytes:,.0f} MB from all), the union is ranked, and the short list is
  thinned from it: nothing else moves.

What would not scale as it is: `screen` ranks all candidates in one table in memory, as a hundred
thousand need; for more, rank folder by folder and join the short lists.
"""


CHAIN_PAGE = """# One defect all the way

Written by `defectkit readme` from `data/benchmarks/chain.csv` (`defectkit bench chain`) and
`data/benchmarks/pairs_2dmd.csv`. A sulfur atom is taken out of MoS₂, then chromium is added; each
step says where a notebook does it.

## 1. What the energy is counted against

[Notebook 08, section
2](../notebooks/08_predict_your_own.ipynb#2--what-is-its-energy-counted-against): atoms come from
reservoirs and go there. MoS₂ forms from its elements with {heat:.2f} eV ({source}), so sulfur may
be poorer than the element by {poor:.2f} eV at most before the sheet falls apart. All energies
below are against the elements: in the poorest gas a vacancy costs {poor:.2f} eV less.

## 2. From atoms to a graph

[Notebook 02, section 5](../notebooks/02_build_graphs.ipynb#5--a-node-where-nothing-is): the
missing atom is a node too. The cell with the vacancy is a graph of {nodes} nodes and {edges} local
edges.

## 3. The prediction, its interval and the verdict

[Notebook 08, section 3](../notebooks/08_predict_your_own.ipynb#3--the-answer); what an interval
promises and what the guard asks is in [notebook 05, sections 8 and
9](../notebooks/05_evaluate.ipynb#8--how-sure).

{vacancy}

Two sources of labels are two questions: these rows are not to be compared with each other. A
verdict other than inside says that the row is no ordinary one to its networks, and that the
promise of the interval may not hold.

## 4. Chromium, on every site

[Notebook 08, section 4](../notebooks/08_predict_your_own.ipynb#4--chromium-on-every-site).
Unrelaxed starts, the lowest first:

{chromium}

The lowest two lie {gap:.2f} eV apart, and twice the spread of their difference is {spread:.2f} eV:
the order is {settled}. The intervals, which were measured on errors, are {width:.2f} eV wide for
the first alone.

## 5. What the networks looked at

[Notebook 06](../notebooks/06_attention_maps.ipynb) draws the attention of a defect, and asks
whether it means anything. Attention over all pairs has no cutoff. Whether that matters is a
question to a curve that is known:

## 6. The curve of DFT

[Notebook 07, section
5](../notebooks/07_real_dft.ipynb#5--the-oscillation-what-a-cutoff-cannot-see): two vacancies of
MoS₂, {near:.1f} to {far:.1f} Å apart, held out from training. DFT has them interact by up to
{all_pairs:.0f} meV, and by up to {beyond:.0f} meV beyond 8 Å. Mean distance of each network from
DFT, over all its seeds:

{networks}

![Interaction of two vacancies over their distance, DFT and networks](figures/oscillation.png)

A network that sees far is not at once one that is right far away: read the table before the
picture, and [what is not in here](not_in_here.md) before you use a number of this page.
"""


def chain_page(table: pd.DataFrame) -> str:
    """Markdown: one defect from chemical potentials to the DFT curve of a pair."""
    vacancy, added = table[table.defect == "S vacancy"], table[table.defect != "S vacancy"]
    added = added.sort_values("eform")
    first, second = added.iloc[0], added.iloc[1]
    gap, spread = second.eform - first.eform, 2 * np.hypot(first.eform_sigma, second.eform_sigma)
    pairs = benchmark("pairs_2dmd").query("host == 'MoS2' and held_out == 'pair'")
    errors = (pairs.predicted - pairs.dft).abs().groupby(pairs.network).mean().sort_values()
    return CHAIN_PAGE.format(
        heat=vacancy.heat.iloc[0],
        poor=-vacancy.heat.iloc[0] / 2,
        source=vacancy.label_source.iloc[0],
        nodes=vacancy.nodes.iloc[0],
        edges=vacancy.edges.iloc[0],
        vacancy=_markdown([_answered(row) for row in vacancy.itertuples()]),
        chromium=_markdown([_answered(row) for row in added.itertuples()]),
        gap=gap,
        spread=spread,
        settled="settled, if the networks do not err together" if gap > spread else "not settled",
        width=first.eform_hi - first.eform_lo,
        near=pairs.distance.min(),
        far=pairs.distance.max(),
        all_pairs=1000 * pairs.dft.abs().max(),
        beyond=1000 * pairs.dft[pairs.distance > 8].abs().max(),
        networks=_markdown(
            [{"network": name, "from DFT (meV)": f"{1000 * e:.1f}"} for name, e in errors.items()]
        ),
    )


def _answered(row: tuple) -> dict[str, str]:
    """A row of the page's tables: what was asked and what came out."""
    return {
        "defect": row.defect,
        "labels learned": row.label_source,
        "eform (eV)": f"{row.eform:.2f}",
        "90 % interval": f"{row.eform_lo:.2f}–{row.eform_hi:.2f}",
        "moment (μB)": "–" if pd.isna(row.spin) else f"{row.spin:.2f}",
        "verdict": row.verdict,
    }


PAGES = {  # path: the table that it is made of, and how
    "docs/scale.md": ("scale", scale_page),
    "docs/one_defect.md": ("chain", chain_page),
}


def minutes_table() -> str:
    """Markdown: a row a notebook, its exercises and minutes."""
    rows = []
    for source in notebooks.sources():
        core, every = notebooks.minutes(source)
        row = {"notebook": f"`{source.stem}`", "exercises": len(notebooks.asked(source))}
        rows.append({**row, "minutes of the core": core, "of all": every})
    return _markdown(rows)


def mistakes_list() -> str:
    """Markdown: for every exercise what students get wrong."""
    parts = []
    for number in exercise_numbers():
        asked = find(number)
        lines = [f"* {sentence}" for sentence in asked.mistakes]
        parts.append("\n".join([f"**{number}** {asked.title}", "", *lines]))
    return "\n\n".join(parts)


# Blocks of pages that are written by hand.
BLOCKS = {"docs/teaching.md": {"minutes": minutes_table, "mistakes": mistakes_list}}


def update(readme: Path = README, check: bool = False) -> bool:
    """Write tables and `BLOCKS` between their marks, `<!-- NAME -->` and `<!-- /NAME -->`; `PAGES`.

    Args:
        readme: the file.
        check: whether only to compare.

    Returns:
        whether the file was up to date.

    Raises DefectkitError where a mark or a table's file is missing.
    """
    tables = {name: render(_measured(readme, name)) for name, render in TABLES.items()}
    texts = {readme: _filled(readme, tables)}
    for place, blocks in BLOCKS.items():
        if (page := readme.parent / place).is_file():
            texts[page] = _filled(page, {name: render() for name, render in blocks.items()})
    for place, (name, render) in PAGES.items():
        texts[readme.parent / place] = render(_measured(readme, name))
    stale = {
        path: text
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in {} if check else stale.items():
        write_text(path, text)
    return not stale


def _filled(page: Path, blocks: dict[str, str]) -> str:
    """The text of a page with each block between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, content in blocks.items():
        block = f"<!-- {name} -->\n{content}\n<!-- /{name} -->"
        text, found = re.subn(
            f"<!-- {name} -->.*<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL
        )
        if found != 1:
            raise DefectkitError(f"{page} has no place for the table {name}.")
    return text


def _measured(readme: Path, name: str) -> pd.DataFrame:
    """The table of a benchmark in the checkout of `readme`."""
    file = readme.parent / "data" / "benchmarks" / f"{name}.csv"
    if not file.is_file():
        bench = name if name in BENCHES else name.split("_")[0]
        raise DefectkitError(f"{file} is missing; run `defectkit bench {bench}`.")
    return pd.read_csv(file)


def write(folder: Path = FOLDER) -> list[Path]:
    """Write all figures as PNG into a folder, and return their paths, in the order of `NAMES`."""
    make_folder(folder)
    hybrid = shipped(MODEL)
    model, source = hybrid.model, hybrid.card.label_source
    drawn = benchmark("attention").query("model == 'trained'").set_index("uid")
    graphs = {uid: hybrid.graph(hybrid.dataset[uid]) for uid in drawn.index}
    vacancy = next(
        graphs[uid]
        for uid in drawn.index[drawn.defecttype == "vacancy"]
        if graphs[uid].is_vacancy.sum() == 1
    )
    seen = explain.attention_table(model, graphs.values())
    weights = seen[seen.uid == vacancy.uid].relative.to_numpy()
    figures = (
        oscillation(benchmark("pairs_2dmd"), SOURCES["2dmd"].label_source)[0].figure,
        _route(vacancy, weights, model, drawn.label[vacancy.uid], source),
        _parity(hybrid.run, source),
        _attention(vacancy, weights, seen[seen.uid == vacancy.uid], source),
        _decay(seen, source),
        _folders(),
    )
    paths = [folder / f"{name}.png" for name in NAMES]
    for figure, path in zip(figures, paths):
        with atomic(path) as part:
            figure.savefig(part, dpi=DPI, metadata={"Software": None})  # its version is no news
        plt.close(figure)
    return paths


def _route(
    graph: CrystalGraph, weights: np.ndarray, model: torch.nn.Module, label: float, source: str
) -> Figure:
    """One structure on its way from a row of the database to an energy."""
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), width_ratios=[1, 1, 1, 0.6])
    figure.subplots_adjust(left=0.01, right=0.985, bottom=0.03, top=0.86, wspace=0.2)
    titles = (
        "1 · a row of the database",
        "2 · its graph, bonds within the cutoff",
        "3 · attention of the vacancy",
        "4 · formation energy (eV)",
    )
    for ax, values in zip(axes, (None, None, weights)):
        lattice_map(graph, values, "", copies=0, ax=ax)
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    receivers = graph.pos[graph.edge_index[1]].numpy()[:, :2]
    bonds = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift).numpy()[:, :2]
    lines = np.stack([receivers, receivers + bonds], axis=1)
    axes[1].add_collection(LineCollection(lines, colors=GREY, lw=0.6, zorder=2.5))
    with torch.no_grad():
        predicted = model(graph).eform.item()
    axes[3].bar([0, 1], [label, predicted], color=[GREY, BLUE], width=0.6)
    axes[3].set_xticks([0, 1], [f"label,\n{source}", "prediction"])
    axes[3].axhline(0, color="black", lw=0.8)
    axes[3].spines[["top", "right"]].set_visible(False)
    for ax, title in zip(axes, titles):
        ax.set_title(title, size=11)
    axes[3].set_position(axes[3].get_position().shrunk(0.95, 0.82).translated(0.012, 0.12))
    for left, right in pairwise(axes):
        # The bars have their numbers on the left, the arrow stands before them.
        end, begin = left.get_position().x1, right.get_position().x0
        middle = min((end + begin) / 2, end + 0.016)
        figure.text(middle, 0.45, "→", size=20, ha="center", va="center")
    return figure


def _parity(run: Run, source: str) -> Figure:
    """Predictions over labels, test rows."""
    return parity(run.part("test"), source, title="the hybrid on test rows").figure


def _attention(
    graph: CrystalGraph, weights: np.ndarray, table: pd.DataFrame, source: str
) -> Figure:
    """Attention on a vacancy, from above and by distance."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4), width_ratios=[1.2, 1], layout="constrained")
    lattice_map(graph, weights, ax=axes[0])
    weight_by_distance(table, ax=axes[1])
    figure.suptitle(f"{graph.uid}, a test row; the hybrid, trained on labels of {source}", size=11)
    return figure


def _decay(seen: pd.DataFrame, source: str) -> Figure:
    """Weight against distance for many structures."""
    ax = weight_by_distance(seen, fit=explain.decay_length(seen, resamples=100))
    title = f"{seen.uid.nunique()} test rows; the hybrid, trained on labels of {source}"
    ax.set_title(title, size=11)
    return ax.figure


def _folders() -> Figure:
    """The folders of the package in the order of `RULE`, with the imports between them."""
    place = {
        name.strip(): (column, 1.3 * (0.5 * (len(names) - 1) - row))
        for column, text in enumerate(RULE.split("<"))
        for names in [text.split(",")]
        for row, name in enumerate(names)
    }
    figure, ax = plt.subplots(figsize=(14, 4.6), layout="constrained")
    for (user, used), count in _imports().items():
        (x, y), (to_x, to_y) = place[user], place[used]
        look = {"color": LIGHT_GREY, "alpha": 0.55, "lw": 0.3 + 0.12 * count, "zorder": 1}
        bend = {"arrowstyle": "-", "connectionstyle": f"arc3,rad={-0.12 - 0.02 * (x - to_x)}"}
        ax.annotate("", (to_x, to_y - 0.2), (x, y - 0.2), arrowprops=bend | look)
    for name, (x, y) in place.items():
        modules = len(list((ROOT / "defectkit").glob(f"{name}/**/[!_]*.py"))) or 1
        text = f"{name}\n{modules} module{'s' * (modules > 1)}"
        box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": BLUE}
        ax.text(x, y, text, ha="center", va="center", size=10, bbox=box, zorder=3)
        ax.text(x, y + 0.3, f"{LEAVES[name]} →", ha="center", size=9, color=ORANGE)
    ax.set(xlim=(-0.55, 9.55), ylim=(-2.3, 1.25))
    ax.axis("off")
    ax.set_title("the route, left to right, with what leaves each folder; grey lines: imports")
    return figure


def _imports() -> Counter[tuple[str, str]]:
    """How many modules of a folder import from another folder, by (user, used)."""
    found: Counter[tuple[str, str]] = Counter()
    for path in (ROOT / "defectkit").rglob("*.py"):
        user = path.relative_to(ROOT / "defectkit").parts[0].removesuffix(".py")
        text = path.read_text(encoding="utf-8")
        lines = "\n".join(re.findall(r"(?m)^ *from (defectkit[. ].*)", text))
        used = {n for n in LEAVES if re.search(rf"defectkit(\.| import .*\b){n}\b", lines)}
        found.update((user, name) for name in used - {user} if user in LEAVES)
    return found


def write_card(database: Path, path: Path) -> None:
    """Write the card of the demo `database` to the Markdown file `path`.

    Raises DefectkitError where there is no demo database or the card cannot be written.
    """
    check_demo_database(database)
    frame = read_demo(database).frame
    metadata = connect(database, type="db", use_lock_file=False).metadata
    if not metadata["runs"]:
        raise DefectkitError(f"{database} has no rows yet; `defectkit demo build` computes them.")
    write_text(path, _card(frame, metadata, database))


def _card(frame: pd.DataFrame, metadata: dict, database: Path) -> str:
    """The page, in Markdown."""
    return "".join(
        [
            _contents(frame, metadata, database),
            _method(metadata),
            _starts(),
            LIMITS,
            _worth(),
            _references(frame, metadata),
            LICENCE,
        ]
    )


def _contents(frame: pd.DataFrame, metadata: dict, database: Path) -> str:
    """What the rows hold, in numbers."""
    types = frame.groupby("defecttype").agg(
        rows=("eform", "size"),
        converged=("converged", "sum"),
        eform_median=("eform", "median"),
        spin_median=("spin", "median"),
        atoms_median=("natoms", "median"),
    )
    quantiles = frame[["eform", "spin", "depth", "extension_factor", "max_force"]].quantile(
        QUANTILES
    )
    vacancies = frame.defecttype.isin(["vacancy", "complex"]).mean()
    dopants = frame.dopant[frame.dopant != ""].nunique()
    families = {host["family"] for host in metadata["hosts"].values()}
    return f"""# Data card: `{database.name}`

Point defects in two-dimensional hosts, **computed with the universal potential CHGNet, not with
DFT**. Every row carries `label_source = "{metadata["label_source"]}"`. Use it to learn the
methods; do not quote its energies as those of DFT or of an experiment. This page is written by
`defectkit demo card` from the database.

## What is in it

* {len(frame):,} rows, {int(frame.converged.sum()):,} of them `converged`
* {frame.host.nunique()} hosts of {len(families)} prototype families, {dopants} dopants
* {vacancies:.0%} of the rows hold at least one vacancy
* {(frame.strain != 0).mean():.0%} stand on a host strained biaxially by up to {MAX_STRAIN:.0%},
  their energy taken against the equally strained host
* {len(metadata["failed"])} candidates could not be computed
* {database.stat().st_size / 1e6:.1f} MB, an ASE SQLite database

{types.round(2).to_markdown()}

Quantiles (eform in eV, spin in μB, forces in eV/Å):

{quantiles.round(3).to_markdown()}

"""


def _method(metadata: dict) -> str:
    """How the rows were computed, and how long that took."""
    seconds = sum(run["seconds"] for run in metadata["runs"])
    computed = sum(run["rows"] for run in metadata["runs"])
    workers = max(run["workers"] for run in metadata["runs"])
    return f"""## How it was made

`defectkit demo build`, seed {metadata["seed"]}.

1. **Hosts** are built from prototypes and published lattice constants; positions and in-plane cell
   are relaxed with CHGNet, with {VACUUM:g} Å of vacuum along z. The supercell is the smallest
   repetition with at least {MIN_ATOMS} atoms and {MIN_IMAGE_DISTANCE:g} Å between a defect and its
   image.
2. **Sites.** Adsorbates: symmetry-distinct top, bridge and hollow sites from pymatgen, at the
   height where covalent spheres touch, on both sides where these differ. Interstitials: Voronoi
   vertices inside the layer. Substitutions and vacancies: one atom of each sublattice. `div`:
   pairs of near-neighbour vacancies. `cpx`: a vacancy beside a substitution.
3. **Rows** are drawn from all of host x site x dopant, kind by kind in fixed shares. A longer run
   keeps them and adds the first candidates of one seeded order that are not there yet.
4. **Relaxation** at fixed cell with BFGS in two stages, to {COARSE_FMAX} eV/Å (at most
   {COARSE_STEPS} steps) and to {FINE_FMAX} eV/Å (at most {FINE_STEPS} more). `conv1` and `conv2`
   are the energy changes over the last step of each stage; `converged` is |conv1| <= 0.05 eV, as
   in Imp2d. Rows that did not settle, adatoms that flew off and layers that fell apart stay in.
5. **Formation energy** `eform = en2 - hostenergy - dopant_chemical_potential +
   removed_chemical_potential` (eV), with elemental phases computed by the same potential (below).
   `spin` is the sum of CHGNet's unsigned site moments of at least {MOMENT_FLOOR} μB.
6. `depth` is 2 |z - z_mid| / thickness of the relaxed layer, `extension_factor` the thickness of
   the relaxed layer over that of the pristine one, both without unit. An added atom is an
   `interstitial` where depth < 1, else an `adsorbate`: what it relaxed to decides, not where it
   started.

`data` of each row holds `unrelaxed_positions`, `site_magmoms` and `defect_positions` (the ideal
sites: added or replaced atom first, then vacancies). The dopant `X` means that no atom was added.

Timing: {computed:,} rows in {seconds / 60:.0f} minutes with {workers} processes on
{metadata["runs"][-1]["cpus"]} cores that also did other work, {computed / seconds:.2f} rows/s.

"""


def _starts() -> str:
    """What the second database is."""
    frame = read_demo(STARTS).frame
    return f"""## Random starts: `{STARTS.name}`

{len(frame)} further rows of the same hosts and label source, made by
`defectkit demo build --starts-of data/demo2d.db --output data/{STARTS.name}`. Their atoms begin
where no recipe puts them: an added atom anywhere above, below or inside the layer, a substituted
one beside its site. **For tests only:** nothing is trained or tuned on them.

"""


def _worth() -> str:
    """What the labels are worth beside those of DFT and of other potentials."""
    pairs = pd.read_csv(PUBLISHED / "potentials.csv").fillna("")
    defects = pd.read_csv(PUBLISHED / "potential_defects.csv")
    pairs.columns = ["potential", "version", "correlation (Pearson)", "MAE (eV)"]
    return f"""## What a potential's labels are worth

Five universal potentials against real rows of Imp2d, 135 pairs of adsorbates, and against DFT for
three single vacancies (eV), as they were reported to this project:

{pairs.to_markdown(index=False)}

{defects.to_markdown(index=False)}

Substitutions agree within 0.1 eV. None of them is right everywhere, and vacancies of a metal come
out far too cheap: a model that learns these labels perfectly is still that far from DFT.

"""


def _references(frame: pd.DataFrame, metadata: dict) -> str:
    """Tables of the hosts and of the elemental phases."""
    hosts = pd.DataFrame(
        {
            name: {
                "family": HOSTS[name].family,
                "space group": host["spacegroup"],
                "supercell": "x".join(map(str, host["repeat"])),
                "a (Å)": f"{sum(x * x for x in host['cell'][0]) ** 0.5:.3f}",
                "rows": int((frame.host == name).sum()),
            }
            for name, host in metadata["hosts"].items()
        }
    ).T
    phases = pd.DataFrame(metadata["chemical_potentials"]).T
    return f"""## Hosts

{hosts.to_markdown()}

## Elemental reference phases

{phases.to_markdown()}

"""
