# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (defectkit)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · Explore and clean a defect database
#
# **Goals.** Meet a database of point defects as it is, imperfections included; find its traps by
# looking; clean it with rules that say what they remove; split it so that a test result means
# something.
#
# **Prerequisites.** Notebook 00; a little pandas.
#
# **Time.** 60 minutes.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", or a folder of yours
quick = True  # notebooks that train do more when this is False
seed = 0

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import display

from defectkit import plots, teach
from defectkit.data import load
from defectkit.data.cleaning import clean
from defectkit.data.splits import make_split, structure_groups
from defectkit.records import COLUMNS
from defectkit.structures.recognise import recognise
from defectkit.teach import check
from defectkit.widgets import view_defect

sns.set_theme(style="ticks", context="notebook")
data = load(dataset)
teach.use(data)
frame = data.frame
print(f"{data.name}: {len(frame):,} rows, labels from {data.label_source}")

# %% [markdown]
# ## 1 · A table of defects
#
# One row is one relaxed supercell. These are the columns and their units; the first rows follow.

# %%
pd.Series(COLUMNS, name="meaning").to_frame()

# %%
frame[["name", "host", "dopant", "defecttype", "eform", "spin", "converged", "depth"]].head(8)

# %% [markdown]
# **Exercise 01-1.** A formation energy may be missing (`NaN`) when the computation failed. How many
# rows have a finite one?

# %% tags=["solution"]
answer = int(np.isfinite(frame.eform).sum())

# %%
check("01-1", answer)

# %% [markdown]
# ## 2 · Hosts
#
# Which materials stand in the table, how many rows has each, and how far apart do their formation
# energies lie? *Guess first:* does the host or the dopant decide more of the energy?

# %%
hosts = frame.groupby("host").agg(
    rows=("eform", "size"),
    atoms=("natoms", "median"),
    spacegroup=("host_spacegroup", "first"),
    eform_median=("eform", "median"),
    eform_std=("eform", "std"),
    moment_mean=("spin", lambda s: s.abs().mean()),
)
hosts.sort_values("rows", ascending=False).style.format(precision=2).background_gradient(
    subset=["eform_median", "eform_std"], cmap="viridis"
)

# %% [markdown]
# **Exercise 01-2.** Which host has the widest spread (standard deviation) of formation energies,
# among the hosts with at least 20 finite ones?

# %% tags=["solution"]
finite = frame[np.isfinite(frame.eform)].groupby("host").eform
answer = finite.std()[finite.size() >= 20].idxmax()

# %%
check("01-2", answer)

# %% [markdown]
# ## 3 · Dopants
#
# The mean formation energy of each dopant over all hosts and sites. Neighbours in a column of the
# periodic table have like valence electrons: do they have like energies?

# %%
impurities = frame[(frame.dopant != "") & frame.converged & (frame.eform.abs() < 20)]
plots.periodic_table(impurities.groupby("dopant").eform.mean(), f"mean {plots.EFORM}")
plt.title(f"Dopants, mean over hosts and sites. Labels: {data.label_source}");

# %% [markdown]
# The same energies resolved by host. Vertical stripes are the dopant's doing, horizontal ones the
# host's. What neither stripe explains is chemistry between the two, and a model that only knows
# compositions stops here.

# %%
plots.host_dopant_map(impurities);

# %% [markdown]
# **Exercise 01-3.** How much of the variance of `impurities.eform` does the dopant alone explain?
# Answer with $R^2$ of the simplest of all models, which predicts for each row the mean of its
# dopant. (`groupby(...).transform("mean")` gives the prediction.)

# %% tags=["solution"]
guess = impurities.groupby("dopant").eform.transform("mean")
residual = impurities.eform - guess
answer = 1 - (residual**2).sum() / ((impurities.eform - impurities.eform.mean()) ** 2).sum()

# %%
check("01-3", answer)

# %% [markdown]
# ## 4 · Types of defect, and magnetism
#
# An impurity that starts in the layer may be pushed out of it while relaxing; `defecttype` follows
# the relaxed structure, `site` the start.

# %%
plots.eform_by_type(frame[frame.converged & (frame.eform.abs() < 20)]);

# %% [markdown]
# Which dopants carry a magnetic moment? *Guess three before you look.* Hosts that are magnetic
# themselves are left out of the figure. CHGNet's site moments have no sign, so in the demo data an
# antiferromagnet looks like a ferromagnet; real Imp2d rows may have a negative `spin`, which is
# only a direction.

# %%
host_moment = frame.groupby("host").spin.transform(lambda s: s.abs().median())
print("magnetic hosts:", ", ".join(sorted(frame.host[host_moment > 1].unique())) or "none")
plots.spin_by_dopant(frame[frame.converged & (host_moment <= 1)]);

# %% [markdown]
# **Exercise 01-4.** Call a row magnetic when its moment is larger than 0.5 μB in size. What fraction
# of the rows that have a finite `spin` is magnetic?

# %% tags=["solution"]
spin = frame.spin[np.isfinite(frame.spin)]
answer = float((spin.abs() > 0.5).mean())

# %%
check("01-4", answer)

# %% [markdown]
# ## 5 · One structure
#
# Turn it, zoom, look along the sheet. The red sphere marks the defect. On a page without a running
# kernel the flat picture below shows the same row.

# %%
adsorbates = impurities[impurities.defecttype == "adsorbate"]
record = data[adsorbates.sample(1, random_state=seed).index[0]]
found = recognise(record.atoms, data.hosts[record.host])
view_defect(record.atoms, found.defect_indices, found.vacancy_positions)

# %%
plots.two_views(record.atoms, found.defect_indices, record.name, found.vacancy_positions);

# %% [markdown]
# How did the kit know which atom is the defect? Not by its place in the file: it lays the pristine
# host over the structure and pairs the atoms, nearest periodic images first. What stays unpaired
# was added, what pairs with another element was substituted, and a host site without partner is
# a vacancy.

# %% [markdown]
# ## 6 · The traps
#
# Look at the extremes before you trust the middle.

# %%
extremes = frame.loc[frame.eform.abs().sort_values(ascending=False).index].head(6)
extremes[["name", "defecttype", "eform", "conv1", "conv2", "extension_factor", "depth"]]

# %%
figure, axes = plt.subplots(1, 3, figsize=(14, 3.8), layout="constrained")
sns.histplot(frame.eform.clip(-10, 20), bins=60, ax=axes[0])
axes[0].set(xlabel=f"{plots.EFORM}, clipped to −10 … 20", ylabel="rows")
tiny = 1e-6
axes[1].loglog(frame.conv1.abs() + tiny, frame.conv2.abs() + tiny, ".", ms=3, alpha=0.4)
axes[1].axvline(0.05, color="C3", lw=1)
axes[1].axhline(0.05, color="C3", lw=1)
axes[1].set(xlabel="|conv1| (eV)", ylabel="|conv2| (eV)")
sns.histplot(x=frame.extension_factor.clip(0, 4), bins=60, ax=axes[2])
axes[2].axvline(2, color="C3", lw=1)
axes[2].set(xlabel="extension factor, clipped to 0 … 4", ylabel="rows", yscale="log")
for ax, letter in zip(axes, "abc"):
    ax.set_title(letter, loc="left", weight="bold")
sns.despine(figure)

# %% [markdown]
# * **a** Energies far from the rest: a broken relaxation or a wrong reference energy.
# * **b** `converged` speaks of the *first* relaxation stage only (left of the vertical line). Rows
#   above the horizontal line were still moving when the *last* stage stopped, "converged" or not.
# * **c** An extension factor above 2 means that the sheet fell apart: the row is no longer a point
#   defect.

# %% [markdown]
# ## 7 · Cleaning, rule by rule
#
# Each rule has a name and removes rows for a stated reason. A row keeps *all* its reasons, even
# though the waterfall counts it only at the first rule that takes it. Two sets are offered:
# `"proposal"` is the loose filter that published work on Imp2d uses, `"strict"` is ours.

# %%
loose = clean(data, rules="proposal")
strict = clean(data, rules="strict")
print(f"proposal keeps {len(loose.dataset):,} rows, strict keeps {len(strict.dataset):,}")
display(strict.waterfall.style.hide(axis="index"))

# %%
plots.waterfall(strict.waterfall, len(data));

# %% [markdown]
# **Exercise 01-5.** Which rule of the strict set removes the most rows? Answer with its name.

# %% tags=["solution"]
answer = strict.waterfall.set_index("rule").removed.idxmax()

# %%
check("01-5", answer)

# %% [markdown]
# ## 8 · The same structure twice
#
# Two different starting sites may relax into the same structure. If one of the twins is in the
# training set and the other in the test set, the model has seen the answer. So rows of equal
# structure form a *structure group*, and a group never straddles a split.

# %%
groups = structure_groups(strict.dataset)
sizes = groups.value_counts()
print(f"{len(groups):,} rows in {len(sizes):,} groups; {(sizes > 1).sum():,} groups hold twins")
twins = groups[groups.isin(sizes[sizes > 1].index)].sort_values().index[:6]
strict.dataset.frame.loc[twins, ["name", "site", "eform", "spin"]].assign(group=groups[twins])

# %% [markdown]
# **Exercise 01-6.** Somebody shuffles the rows and cuts off the last tenth as a test set, without
# looking at groups. How many test rows then have a twin among the other rows? Use the order given
# below, so that the check can follow.

# %%
shuffled = np.random.default_rng(seed).permutation(groups.index)
careless_test = shuffled[-len(shuffled) // 10 :]
careless_rest = shuffled[: -len(careless_test)]

# %% tags=["solution"]
seen = set(groups[careless_rest])
answer = int(groups[careless_test].isin(seen).sum())

# %%
check("01-6", (seed, answer))

# %% [markdown]
# ## 9 · Splits
#
# The question decides the split. *How well does the model fill gaps in a table I have mostly
# measured?* Random, by structure group. *How well does it do on a material it never saw?* Leave
# hosts out. The second is harder, and honest about screening.

# %%
splits = {
    "random": make_split(strict.dataset, "random", seed=seed, groups=groups),
    "host, fold 0": make_split(strict.dataset, "host", seed=seed, fold=0, groups=groups),
    "dopant, fold 0": make_split(strict.dataset, "dopant", seed=seed, fold=0, groups=groups),
    "pair, fold 0": make_split(strict.dataset, "pair", seed=seed, fold=0, groups=groups),
}
plots.split_sizes(splits);

# %%
clean_frame = strict.dataset.frame
shared = {
    name: {
        column: len(
            set(clean_frame.loc[list(s.test), column]) & set(clean_frame.loc[list(s.train), column])
        )
        for column in ("host", "dopant")
    }
    for name, s in splits.items()
}
pd.DataFrame(shared).T.add_suffix("s in both train and test")

# %% [markdown]
# ## Summary
#
# * Looking at extremes and at the convergence columns shows what a filter must remove; a filter
#   that is a list of named, counted rules can be argued about.
# * `converged` is about the first stage only; the energy identity, the extension factor and the
#   host's own median find the rest.
# * Split before you do anything else with the rows, by structure group, and choose the split that
#   asks your question.
#
# **Further reading.** J. Davidsson et al., npj 2D Mater. Appl. **7**, 26 (2023), on how Imp2d was
# made. S. Kapoor and A. Narayanan, *Leakage and the reproducibility crisis in machine-learning-based
# science*, Patterns **4**, 100804 (2023).
