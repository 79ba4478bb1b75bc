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
# something; and build the model of mere names that every network has to beat.
#
# **Prerequisites.** Notebook 00; a little pandas.
#
# **Time.** 80 minutes for the core, 95 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # notebooks that train do more when this is False
seed = 0

# %%
import seaborn as sns

from defectkit.widgets.lesson import *

# %%
sns.set_theme(style="ticks", context="notebook")
data = load(dataset)
teach.use(data)
frame = data.frame
print(
    f"{data.name}: {len(frame):,} rows, labels from {data.label_source}; "
    f"{frame.host[frame.host != ''].nunique()} hosts, "
    f"{plots.database.each_dopant(frame).dopant.nunique()} dopants"
)

# %% [markdown]
# ## 1 · A table of defects
#
# One row is one supercell with a defect. These are the columns and their units; the first rows follow.

# %%
from defectkit.structures.record import COLUMNS

checks.table(pd.Series(COLUMNS, name="meaning").to_frame())

# %%
frame[["name", "host", "dopant", "defecttype", "eform", "spin", "converged", "depth"]].head(8)

# %% [markdown]
# The column `site` says where the defect was *put*, before anything moved. In Imp2d and in the demo
# data the number tells sites of one host apart, and the letters mean:
#
# | code | the dopant, or the gap, starts |
# |:--|:--|
# | `ads` | on the layer |
# | `int` | in a hollow inside the layer |
# | `sub` | in the place of a host atom, one for each kind of site |
# | `vac` | where a host atom was taken out; no dopant (`X` in the name) |
# | `div` | where two neighbours were taken out; no dopant |
# | `cpx` | in the place of a host atom, with a vacancy beside it |
#
# A percentage behind it is the strain of the host. Other sources have codes of their own, or none. Here:

# %%
if checks.has(frame.site, "sites with a name"):
    codes = frame.site.str.extract("^([A-Za-z]*)", expand=False)
    display(codes.value_counts().rename_axis("code").rename("rows").to_frame().T)

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
teach.guess("01-a", ("host", "dopant"))

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
).format(precision=0, subset=["atoms"])

# %% [markdown]
# **Exercise 01-2.** Which host has the widest spread (standard deviation) of formation energies,
# among the hosts with at least 20 finite ones?

# %% tags=["solution"]
finite = frame[np.isfinite(frame.eform)].groupby("host").eform
spread = finite.std()[finite.size() >= 20]
answer = max(spread.index, key=spread.get, default="")

# %%
check("01-2", answer)

# %% [markdown]
# ## 3 · Dopants
#
# The mean formation energy of each dopant over all hosts and sites. Neighbours in a column of the
# periodic table have like valence electrons: *guess first,* do they have like energies?

# %%
from pymatgen.core import Element

from defectkit.data.cleaning import EFORM_BOUND

impurities = frame[(frame.dopant != "") & frame.converged & (frame.eform.abs() < EFORM_BOUND)]
means = plots.database.each_dopant(impurities).groupby("dopant").eform.mean()
if checks.has(means, "mean energies of dopants", least=3):
    plots.database.periodic_table(means, f"mean {plots.database.EFORM}")
    plt.title(f"Dopants, mean over hosts and sites. Labels: {in_figure(data.label_source)}")
    column = means.index.map(lambda symbol: Element(symbol).group)
    inside = means - means.groupby(column).transform("mean")
    print(
        f"Columns explain {1 - inside.var() / means.var():.0%} of the variance between dopants;\n"
        "as many groups drawn at random would, on average, "
        f"{(column.nunique() - 1) / (len(means) - 1):.0%}."
    )

# %% [markdown]
# The same energies resolved by host. Vertical stripes are the dopant's doing, horizontal ones the
# host's. What do the stripes leave?

# %%
if checks.has(impurities.eform, "energies of impurities"):
    plots.database.host_dopant_map(impurities)

# %% [markdown]
# Two things are left: the *site*, which a square of the map averages over, and chemistry between the
# two. A model that knows nothing but names can tell how much each is. Every name becomes a column of
# zeros and ones (*one-hot*), and a line is fitted: one number for each name, in eV, and their sum
# is the energy. *host and site* gives each site of each host a name of its own.

# %%
from sklearn.linear_model import Ridge
from sklearn.preprocessing import OneHotEncoder

named = impurities.assign(place=impurities.host + " " + impurities.site)


def explained(*columns):
    """Number of names in these columns, and the share of the variance (R²) that they explain."""
    ones = OneHotEncoder().fit_transform(named[list(columns)])
    return ones.shape[1], Ridge(alpha=0.01).fit(ones, named.eform).score(ones, named.eform)


if checks.has(named.eform, "energies of impurities", least=2):
    shares = pd.DataFrame(
        {
            "host": explained("host"),
            "dopant": explained("dopant"),
            "host, dopant": explained("host", "dopant"),
            "host and site": explained("place"),
            "host and site, dopant": explained("place", "dopant"),
        },
        index=["names", "R²"],
    ).T
    display(shares.style.format({"names": "{:.0f}", "R²": "{:.2f}"}))
    r2 = shares["R²"]
    print(
        f"Host or dopant? The {'host' if r2['host'] > r2['dopant'] else 'dopant'} decides more, "
        "and "
        f"both together {r2['host, dopant']:.0%}.\nWhich site of the host it is adds "
        f"{max(0, r2['host and site, dopant'] - r2['host, dopant']):.0%}; no name explains the "
        "last "
        f"{1 - r2['host and site, dopant']:.0%}."
    )
    display(teach.reveal("01-a", "host" if r2["host"] > r2["dopant"] else "dopant"))

# %% [markdown]
# These shares were measured on the rows that the numbers were fitted to. With as many names as rows
# they would all be 1 and mean nothing; section 10 asks the same of rows that were not fitted.

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
typed = frame[frame.converged & (frame.eform.abs() < EFORM_BOUND) & (frame.defecttype != "")]
if checks.has(typed.defecttype, "energies of rows with a type of defect"):
    plots.database.eform_by_type(typed)

# %% [markdown]
# Which dopants carry a magnetic moment? *Guess three before you look.* Hosts that are magnetic
# themselves are left out of the figure. CHGNet's site moments have no sign, so in the demo data an
# antiferromagnet looks like a ferromagnet; real Imp2d rows may have a negative `spin`, which is
# only a direction.

# %%
host_moment = frame.groupby("host").spin.transform(lambda s: s.abs().median())
print("magnetic hosts:", ", ".join(sorted(frame.host[host_moment > 1].unique())) or "none")
quiet = frame[frame.converged & (host_moment <= 1) & (frame.dopant != "")]
if checks.has(quiet.spin, "moments of dopants in hosts without a moment"):
    plots.database.spin_by_dopant(quiet)
    top = (
        plots.database.each_dopant(quiet)
        .groupby("dopant")
        .spin.agg(lambda s: s.abs().mean())
        .nlargest(3)
    )
    print("largest on average:", ", ".join(f"{name} {size:.1f} μB" for name, size in top.items()))

# %% [markdown]
# **Exercise 01-4.** Call a row magnetic when its moment is larger than 0.5 μB in size. What fraction
# of the rows that have a finite `spin` is magnetic?

# %% tags=["solution"]
spin = frame.spin[np.isfinite(frame.spin)]
answer = float((spin.abs() > 0.5).mean())

# %%
check("01-4", answer)

# %% [markdown]
# ## 5 · One structure (optional)
#
# Turn it, zoom, look along the sheet. A red rim marks the defect. On a page without a running
# kernel the flat picture below shows the same row.

# %%
from defectkit.widgets import view_defect

adsorbates = frame[frame.converged & (frame.defecttype == "adsorbate")]
record = checks.example(data, adsorbates, "adsorbate", seed)
marked, vacant = checks.defect_of(data, record)
view_defect(record.atoms, marked, vacant)

# %%
plots.database.two_views(record.atoms, marked, checks.caption(record), vacant);

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
extremes[["host", "removed", "defecttype", "eform", "conv1", "conv2", "extension_factor"]]

# %% [markdown]
# *Guess first:* is the row on top of this table a broken relaxation, or a defect that really costs so
# much? A broken one stands alone. So set it beside its kin, all rows of that host which lose the same
# atoms:

# %%
if checks.has(frame.eform, "formation energies"):
    top = frame.loc[frame.eform.abs().idxmax()]
    kin = frame[(frame.host == top.host) & (frame.removed == top.removed) & frame.eform.notna()]
    kin = kin.set_index(kin.dopant.where(kin.dopant != "", "none")).eform
    lost = f"{top.host} that lose {top.removed}" if top.removed else f"{top.host} that lose no atom"
    plots.database.series(kin, f"dopants of the {len(kin)} rows of {lost}, by energy")
    beyond = frame[frame.eform.abs() > EFORM_BOUND]
    steps = kin.sort_values().diff().dropna()
    print(
        f"{len(beyond)} rows lie beyond {EFORM_BOUND:.0f} eV, {int(beyond.converged.sum())} of "
        "them converged."
    )
    print(
        "This one has no kin."
        if steps.empty
        else f"The largest step between neighbours in the figure is {steps.max():.1f} eV."
    )

# %% [markdown]
# In the demo data the top three are no accidents: they converged, and they are the upper end of a
# series in which two titanium atoms are missing from TiO$_2$, each step to the next no larger than
# others below. A bound on the energy takes them away all the same. It is a rule of thumb, good against
# wrong reference energies, and it cuts off the dearest of the honest defects too.

# %%
plots.database.traps(frame);

# %% [markdown]
# * **a** Energies far from the rest: a broken relaxation, a wrong reference energy, or a dear defect.
#   Only the rows themselves can tell.
# * **b** `converged` speaks of the *first* relaxation stage only (left of the vertical line). Rows
#   above the horizontal line were still moving when the *last* stage stopped, "converged" or not.
# * **c** An extension factor above 2 means that the sheet fell apart: the row is no longer a point
#   defect.
#
# A letter that has no panel stands for columns that your data do not have.

# %% [markdown]
# ### A last stage above the first
#
# A label may look harmless and still be wrong. Imp2d keeps the total energy after the first stage of
# a relaxation, `en1`, and after the last, `en2`, and makes the label of `en2`. A relaxation goes
# downhill: on one energy surface the last stage may end far below the first, where the atoms found a
# new place, but not above it. *Guess first:* on which side of zero do the points lie?

# %%
teach.guess("01-b", ("below", "above", "on both sides"))

# %%
from defectkit.data.cleaning import RISE_BOUND, energy_rise

rise = energy_rise(frame)[frame.eform.notna()].dropna()
if checks.has(rise, "rows with a formation energy and the total energies of two stages"):
    plots.database.stages(frame)
    print(
        f"{(rise > RISE_BOUND).sum():,} of {len(rise):,} rows end more than {RISE_BOUND:g} eV "
        "above their first "
        f"stage; en2 - en1 runs from {rise.min():.1f} to {rise.max():.1f} eV."
    )
    sides = "below" if rise.max() <= 0 else "above" if rise.min() >= 0 else "on both sides"
    display(teach.reveal("01-b", sides, plt.gca()))
    top = frame.loc[rise.idxmax()]
    print(
        f"{top['name']} is suspect: a relaxation cannot climb {rise.max():.1f} eV on one "
        "surface, and its label, "
        f"{top.eform:.1f} eV, is made of the upper end."
        if rise.max() > RISE_BOUND
        else "No label is suspect for this reason."
    )

# %% [markdown]
# The demo data cannot fall into this trap, for one potential made both stages. Imp2d can. Two of its
# rows, both `converged` and both below the bound of 20 eV (source: Imp2d, see *Further reading*):
#
# | defect | `en1` (eV) | `en2` (eV) | moment (μB) | label, made of `en2` (eV) | made of `en1` (eV) |
# |:--|--:|--:|--:|--:|--:|
# | ZrSe$_2$ + Cr, `int2` | −182.72 | −168.99 | 4 | 14.6 | 0.84 |
# | WTe$_2$ + Li, `int0` | −175.26 | −164.89 | 5 | 12.3 | 1.90 |
#
# What happened there is not known; another magnetic state or a failed last step would look like this.
# In four other genuine rows the stages agree within 0.4 eV, so the rule `energy_rise` draws its line
# at 1 eV. It looks at the stages, not at the label, because a large label alone is no fault:
# a caesium atom inside MoS$_2$ costs 19.6 eV in Imp2d, and a universal potential confirms it.
#
# What do your data say of the same hosts and dopants, with the dopant inside the layer?

# %%
known = {
    "host": ["ZrSe2", "WTe2", "MoS2"],
    "dopant": ["Cr", "Li", "Cs"],
    "one row of Imp2d (eV)": [14.6, 12.3, 19.6],
}
inside = frame[frame.defecttype == "interstitial"].merge(pd.DataFrame(known), on=["host", "dopant"])
if checks.has(inside.eform, "interstitials of these three kinds with an energy"):
    shown = inside[["host", "dopant", "site", "spin", "eform", "one row of Imp2d (eV)"]]
    display(shown.style.format(precision=2).hide(axis="index"))

# %% [markdown]
# In the demo data, whose potential and reference energies are others and whose starts may be too,
# chromium and lithium go in for less than 1 eV, nearer to what `en1` gives than to the label, and
# caesium is dear.
#
# **Exercise 01-5.** Write `from_first(frame)`. It returns for each row the formation energy that its
# label would be, had it been made of `en1` in place of `en2`; all else is as before. Where one of the
# two is missing, the result is `NaN`. In Imp2d a missing total energy may also stand as 0.

# %% tags=["solution"]
def from_first(frame):
    first, last = frame.en1.replace(0, np.nan), frame.en2.replace(0, np.nan)
    return frame.eform - last + first


assert from_first(pd.DataFrame({"eform": [1.0], "en1": [-7.0], "en2": [-8.0]})).tolist() == [2.0]

# %%
check("01-5", from_first)

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
display(checks.table(strict.waterfall).hide(axis="index"))

# %%
plots.database.waterfall(strict.waterfall, len(data));

# %% [markdown]
# **Exercise 01-6.** Which rule of the strict set removes the most rows? Answer with its name.

# %% tags=["solution"]
answer = strict.waterfall.set_index("rule").removed.idxmax()

# %%
check("01-6", answer)

# %% [markdown]
# ## 8 · The same structure twice
#
# Two different starting sites may relax into the same structure. If one of the twins is in the
# training set and the other in the test set, the model has seen the answer. So rows of equal
# structure form a *structure group*, and a group never straddles a split.

# %%
from defectkit.data.splits import structure_groups

kept = checks.clean_rows(data)
groups = structure_groups(kept)
sizes = groups.value_counts()
print(f"{len(groups):,} rows in {len(sizes):,} groups; {(sizes > 1).sum():,} groups hold twins")
twins = groups[groups.isin(sizes[sizes > 1].index)].sort_values().index[:6]
kept.frame.loc[twins, ["name", "site", "eform", "spin"]].assign(group=groups[twins])

# %% [markdown]
# **Exercise 01-7.** Somebody shuffles the rows and cuts off the last tenth as a test set, without
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
check("01-7", (seed, answer))

# %% [markdown]
# ## 9 · Splits
#
# The question decides the split. *How well does the model fill gaps in a table I have mostly
# measured?* Random, by structure group. *How well does it do on a material it never saw?* Leave
# hosts out. The second is harder, and honest about screening. A split that the data are too few for is
# refused.

# %%
splits = {}
for kind in ("random", "host", "dopant", "pair"):
    try:
        fold = None if kind == "random" else 0
        splits[kind] = make_split(kept, kind, seed=seed, fold=fold, groups=groups)
    except DefectkitError as refusal:
        print(f"{kind}: {refusal}")
if splits:
    plots.database.split_sizes(splits)

# %%
def shared(one, other):
    """How many hosts and dopants two parts of a split have in common."""
    one, other = kept.frame.loc[list(one)], kept.frame.loc[list(other)]
    return {
        "hosts in train and test": len({*one.host} & {*other.host}),
        "dopants in train and test": len({*one.dopant} & {*other.dopant} - {""}),
    }


pd.DataFrame({kind: shared(split.train, split.test) for kind, split in splits.items()}).T

# %% [markdown]
# ## 10 · A model of names (optional)
#
# Before you train a network, find out what is reached without looking at a single structure. Section 3
# has the recipe: one number for each name, fitted to the training rows, tested on others.
#
# **Exercise 01-8.** Write `names(frame)`. It returns a `pd.DataFrame` with the rows of `frame` and three
# columns of text: host and site joined; the dopant; host and `removed` joined. (`+` joins columns of
# text; put a space between.)

# %% tags=["solution"]
def names(frame):
    return pd.DataFrame(
        {
            "place": frame.host + " " + frame.site,
            "dopant": frame.dopant,
            "loss": frame.host + " " + frame.removed,
        }
    )


assert names(
    pd.DataFrame({"host": ["WS2"], "site": ["top"], "dopant": ["Cr"], "removed": ["S"]})
).iloc[0].tolist() == ["WS2 top", "Cr", "WS2 S"]

# %%
check("01-8", names)

# %% [markdown]
# A name that no training row has is a row of zeros: the model then says what it says of an average one.
# (`Ridge` keeps the numbers of rare names small.) *Guess first:* on which split will names be no better
# than always predicting the mean?

# %%
teach.guess("01-c", tuple(splits))

# %%
from sklearn.pipeline import make_pipeline

energy = kept.frame.eform
if names is not ... and checks.has(energy, "formation energies", least=2):
    table, errors = names(kept.frame), {}
    for kind, split in splits.items():
        train, test = list(split.train), list(split.test)
        model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), Ridge())
        model.fit(table.loc[train], energy[train])
        errors[kind] = {
            "test rows": len(test),
            "always the mean": (energy[test] - energy[train].mean()).abs().mean(),
            "names": (energy[test] - model.predict(table.loc[test])).abs().mean(),
        }
    display(pd.DataFrame(errors).T.style.format({"test rows": "{:.0f}"}, precision=3))
    for kind, mae in errors.items():
        print(
            f"{kind}: names take away {1 - mae['names'] / mae['always the mean']:.0%} of the error"
        )
    left = {kind: mae["names"] / mae["always the mean"] for kind, mae in errors.items()}
    display(teach.reveal("01-c", max(left, key=left.get, default="none")))

# %% [markdown]
# The table holds mean absolute errors in eV. Mind the first line: a network that reads structures and
# does no better on the random split has learned names. And mind the line of the hosts: the name of a
# host never seen says nothing, and only the dopant's is left. That is what structures are for.

# %% [markdown]
# ## Summary
#
# * Looking at extremes and at the convergence columns shows what a filter must remove; a filter
#   that is a list of named, counted rules can be argued about.
# * `converged` is about the first stage only; the energy identity, the extension factor, the
#   host's own median and the energies of the stages find the rest. An extreme value alone is no proof
#   of a fault, and a harmless one no proof of health.
# * Split before you do anything else with the rows, by structure group, and choose the split that
#   asks your question.
# * Know what names alone can do before you praise a model that sees more.
#
# **Further reading.** J. Davidsson et al., npj 2D Mater. Appl. **7**, 26 (2023), on how Imp2d was
# made. S. Kapoor and A. Narayanan, *Leakage and the reproducibility crisis in machine-learning-based
# science*, Patterns **4**, 100804 (2023).
