"""Pages of `docs/` that are counted, not written: a plan at scale, one defect, what is taught."""

import numpy as np
import pandas as pd

from defectkit.bench.tables import markdown
from defectkit.data.demo import DOPANTS
from defectkit.teach import exercise_numbers, notebooks
from defectkit.teach.checks import find
from defectkit.training.pretrained import benchmark

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


def scale_page(table: pd.DataFrame) -> str:
    """The plan for a hundred million candidates, its constants from `data/benchmarks/scale.csv`."""
    value = table.set_index("what").value
    count = PLANNED
    # By processor time: the machine that measured may have had other work as well.
    spent = value[["build_ms", "networks_ms", "judge_ms", "store_ms"]].sum()
    per_core = 1e3 / spent
    core_hours = count / per_core / 3600
    chunks = count / value.chunk
    return SCALE_TEXT.format(
        machine=table.machine[0],
        command=table.command[0],
        **{name: float(number) for name, number in value.items()},
        per_core=per_core,
        networks_share=value.networks_ms / spent,
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
        vacancy=markdown([_answered(row) for row in vacancy.itertuples()]),
        chromium=markdown([_answered(row) for row in added.itertuples()]),
        gap=gap,
        spread=spread,
        settled="settled, if the networks do not err together" if gap > spread else "not settled",
        width=first.eform_hi - first.eform_lo,
        near=pairs.distance.min(),
        far=pairs.distance.max(),
        all_pairs=1000 * pairs.dft.abs().max(),
        beyond=1000 * pairs.dft[pairs.distance > 8].abs().max(),
        networks=markdown(
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


def minutes_table() -> str:
    """Markdown: a row a notebook, its exercises and minutes."""
    rows = []
    for source in notebooks.sources():
        core, every = notebooks.minutes(source)
        row = {"notebook": f"`{source.stem}`", "exercises": len(notebooks.asked(source))}
        rows.append({**row, "minutes of the core": core, "of all": every})
    return markdown(rows)


def mistakes_list() -> str:
    """Markdown: for every exercise what students get wrong."""
    parts = []
    for number in exercise_numbers():
        asked = find(number)
        lines = [f"* {sentence}" for sentence in asked.mistakes]
        parts.append("\n".join([f"**{number}** {asked.title}", "", *lines]))
    return "\n\n".join(parts)
