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
# # 05 · Evaluate, without fooling yourself
#
# **Goals.** Give an error its error bar; compare two models on the same rows; fall into two famous
# traps and climb out; take a model from rows like its own to hosts it has never seen; find where it
# fails; ask what an error costs you; make intervals that keep their promise, see them break it, and
# build the guard that warns you.
#
# **Prerequisites.** Notebooks 00 to 04.
#
# **Time.** 85 minutes for the core, 110 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # False: the traps of section 3 use more rows
seed = 0
remake = False  # True: predict all test rows anew from the checkpoints instead of reading them

# %%
from defectkit.widgets.lesson import *

# %%
torch.set_num_threads(1)  # these graphs are small: a second thread costs more than it gains
data = clean(load(dataset), "strict").dataset
teach.use(data)
names = ("hybrid", "lightgbm", "alignn")
runs = {name: [shipped_run(name, k) for k in range(3)] for name in names}
known = data_of(runs["hybrid"][0], data)  # the data that these were trained on
source = known.label_source
tested = {name: [run.part("test") for run in runs[name]] for name in names}
print(
    f"{len(data):,} clean rows, labels from {data.label_source}. {about(runs['hybrid'][0], data)}"
)
print(
    f"The models were tested on {len(tested['hybrid'][0])} of {len(known):,} rows, labels from "
    f"{source}"
)

# %% [markdown]
# Trained models are judged on the rows that they were not trained on, those of the demo set; the traps of
# section 3 and the guard of section 9 take the rows of `dataset`.
#
# The predictions were stored by the run that made them. With `remake = True` they come from the weights:

# %%
from defectkit.training.inference import predict
from defectkit.training.prepared import graphs_of

if remake:
    for name in ("hybrid", "alignn"):
        for k, run in enumerate(runs[name]):
            model, card = load_model(run.folder)
            graphs = graphs_of(known, card.graph)
            again = predict(model, graphs, graphs.select(tested[name][k].index)).add_suffix("_pred")
            print(
                name,
                k,
                "largest change, eV:",
                (again.eform_pred - tested[name][k].eform_pred).abs().max(),
            )
            tested[name][k] = tested[name][k].assign(**again)

# %% [markdown]
# ## 1 · An error needs an error bar
#
# The test rows were drawn once, before anything was trained, and were used for nothing else: not to
# choose a setting, not to stop a training, not to pick a seed. Had other rows been drawn, the error
# would be another. The **bootstrap** plays that through: draw as many rows *with replacement* from
# those we have, take the mean absolute error, do it again two thousand times; the middle 95 % of these
# errors are an interval.
#
# **Exercise 05-1.** Write `bootstrap(errors, draws, seed)`: `errors` is an array of absolute errors.
# Return the 2.5 and 97.5 % quantiles (`np.quantile`) of the means of `draws` samples.

# %% tags=["solution"]
def bootstrap(errors, draws, seed):
    rng = np.random.default_rng(seed)
    means = [rng.choice(errors, len(errors)).mean() for _ in range(draws)]
    return tuple(np.quantile(means, [0.025, 0.975]))


assert bootstrap(np.array([2.0, 2.0, 2.0]), 10, 0) == (2.0, 2.0)

# %%
check("05-1", bootstrap)

# %%
from defectkit.evaluation.metrics import scores

table = pd.DataFrame(
    {f"{name}, seed {k}": scores(rows) for name in names for k, rows in enumerate(tested[name])}
)
table.T.style.format("{:.3f}")

# %% [markdown]
# Two kinds of luck: in the draw of the test rows (the interval, `eform_mae_lo` to `eform_mae_hi`), and
# in the seed of the training (three rows a model). A table that shows neither shows too little.
# *Guess first:* are large errors where energies are large? Are they too high or too low?

# %%
teach.guess("05-a", ("not where energies are high", "there, too high", "there, too low"))

# %%
first = tested["hybrid"][0]
plots.results.parity(first, source, title="hybrid, seed 0, test rows");

# %%
plots.evaluation.residuals(first, source);

# %%
error = (first.eform_pred - first.eform).dropna()
high = first.eform[error.index].nlargest(len(error) // 20).index
for name, part in (
    ("the 5 % with the highest energies", error[high]),
    ("all others", error.drop(high)),
):
    print(
        f"{name}: mean absolute error {part.abs().mean():.2f} eV, mean of prediction − label "
        f"{part.mean():+.2f} eV"
    )
larger = error[high].abs().mean() > error.drop(high).abs().mean()
sign = "too high" if error[high].mean() > 0 else "too low"
teach.reveal("05-a", f"there, {sign}" if larger else "not where energies are high")

# %% [markdown]
# Errors are largest where energies are highest, and there predictions are too low: such rows are rare, and a
# model that knows little of a row is drawn towards the mean.
#
# A few rows are far off: the histogram needs a logarithmic axis to show them. How much of the mean absolute
# error is theirs? Exercise 05-5 counts. For the moment, the question is often only whether there is one:

# %%
from defectkit.evaluation.metrics import confusion

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for ax, name in zip(axes, ("hybrid", "alignn")):
    plots.evaluation.confusion_matrix(confusion(tested[name][0]), ax).set_title(f"{name}, seed 0")

# %% [markdown]
# ## 2 · Two models, the same rows
#
# The intervals of section 1 overlap. Does that mean that the models are equally good? No: some rows are
# hard for every model and some easy, and the interval of each model is wide because of that. Compare
# *row by row* and this common part drops out. The **paired bootstrap** draws the differences.

# %%
from defectkit.evaluation.metrics import compare

# the error of a row is the mean over its seeds
together = {name: pd.concat(parts) for name, parts in tested.items()}
pairs = {f"hybrid − {other}": compare(together["hybrid"], together[other]) for other in names[1:]}
pd.DataFrame(pairs).T.style.format("{:.3f}", subset=["difference", "lo", "hi", "better"])

# %% [markdown]
# Below zero the hybrid is better; an interval that holds zero is no result. `better` is the share of
# rows on which it is: a model can win the mean and lose most rows.
#
# **Exercise 05-2.** Answer with `True` or `False`, from the table: may we claim that the hybrid's test
# error is smaller than (ALIGNN's, LightGBM's)? A pair.

# %% tags=["solution"]
answer = tuple(pairs[f"hybrid − {other}"]["hi"] < 0 for other in ("alignn", "lightgbm"))

# %%
check("05-2", answer)

# %% [markdown]
# ## 3 · Two traps
#
# A paper on this very task once reported 0.206 eV. Checked honestly, the same model had 0.54 eV. Nobody
# lied. Every structure had been copied with small distortions to have more of them, and *then* the rows
# were split: most test rows had copies of themselves in the training set. Here is the same mistake,
# made on the spot, on rows of `dataset`, with a model that trains in seconds. *Guess first:* how much does
# it "gain"?

# %%
from defectkit.evaluation import leakage

atoms = 5_000 if quick else 45_000  # in all: a large cell costs as much as many small ones
n, copies = min(int(atoms / data.frame.natoms.mean()), len(data)), 3
tables = []  # of the traps that these data hold
try:
    tables.append(leakage.augmentation_before_split(data, n, copies, seed))
    print(
        f"false gain {tables[0].gain[0]:.2f} eV: the honest error is "
        f"{tables[0].eform_mae[1] / tables[0].eform_mae[0]:.1f} times as large"
    )
except DefectkitError as reason:
    print(reason)

# %% [markdown]
# The second trap needs no copying at all. Relaxations that start at different sites often end in the
# same structure, and databases hold the same crystal twice under two names. Drawn row by row, one twin
# lands in the training set and the other in the test set. Here are the rows of our data that have such a
# twin, and no others, so the gain is that of a set of twins; in the whole set it is diluted.

# %%
from defectkit.data.sources import data_folder
from defectkit.data.splits import structure_groups

try:
    tables.append(
        leakage.duplicates_in_split(data, structure_groups(data, data_folder() / "groups"), seed)
    )
except DefectkitError as reason:  # most small sets have no twins
    print(reason)
if tables:
    plots.evaluation.traps(tables, data.label_source)

# %%
pd.concat(tables or [pd.DataFrame()]).round(3)

# %% [markdown]
# The rule is simple. **Split first; then augment the training rows, and no others.** And what is the
# same structure goes to the same side: `structure_groups` finds it, `make_split` keeps it together.
#
# **Exercise 05-3.** Every row has a parent, the structure that it was made from. Write
# `leaks(part, parent)`: two lists of equal length, `part` holds "train" or "test". Return how many test
# rows have a training row with the same parent.

# %% tags=["solution"]
def leaks(part, parent):
    trained_on = {p for where, p in zip(part, parent) if where == "train"}
    return sum(where == "test" and p in trained_on for where, p in zip(part, parent))


assert leaks(["train", "test"], ["a", "b"]) == 0

# %%
check("05-3", leaks)

# %% [markdown]
# ## 4 · The ladder: how far from home?
#
# "Blind" test rows still look like the training rows: the same hosts, the same dopants, often the same
# pair at another site. Will you use the model on a *new* host? Then a new host must be the test. Five
# steps: rows at random; pairs of host and dopant never seen; hosts, then dopants never seen (five folds
# each, so that each is held out once); and, as a block, all 3d dopants in hosts of one family. All models
# learn from equally many rows, fewer than the shipped ones, and networks for half their epochs, otherwise as
# they are shipped. Where `names` stands in the table, remember that it knows a row by its label only: a host
# that it has not seen is nothing to it.
# *Guess first:* which step hurts most? Is every step harder than the one before?

# %%
teach.guess("05-b", ("random", "pair", "host", "dopant", "block"))

# %%
ladder = benchmark("ladder")
ladder_axes = plots.studies.ladder(ladder, source)

# %% [markdown]
# The intervals draw what was held out as a whole: thirty hosts are thirty pieces of evidence about new
# hosts, however many rows they have. Drawn by rows, they would be far too narrow. Paired differences
# from the hybrid, below zero where the other model is better:

# %%
columns = ["split", "model", "difference", "difference_lo", "difference_hi"]
rivals = ladder.loc[ladder.model != "hybrid", columns]
rivals.set_index(["split", "model"]).style.format("{:+.3f}")

# %%
# np.select takes the text of the first condition that holds, else the last text
clear = np.select(
    [rivals.difference_hi < 0, rivals.difference_lo > 0], ["better", "worse"], "no clear difference"
)
steps = list(ladder.split.unique())
print("compared with the hybrid:")
rivals.assign(verdict=clear).pivot(index="model", columns="split", values="verdict")[steps]

# %% [markdown]
# Mind the rows: with this few of them, trees that read good features keep up with an attention network. Where
# no step shows a clear difference, none may be claimed. And the steps? An error has to be seen beside how much
# there is to know: beside the error of always saying the mean of these very rows.

# %%
from defectkit.training.pretrained import ladder_runs

by_step = ladder.pivot(index="split", columns="model", values="eform_mae").loc[steps]
held = {
    step: pd.concat([fold[0].part("test") for fold in ladder_runs(step, "hybrid")])
    for step in steps
}
spread = pd.Series(
    {step: (rows.eform - rows.eform.mean()).abs().mean() for step, rows in held.items()}
)
pd.concat(
    {
        "error (eV)": by_step.assign(**{"always the mean": spread}),
        "share of that": by_step.div(spread, axis=0),
    },
    axis=1,
).style.format("{:.2f}")

# %%
for name, values in (("error", by_step), ("share", by_step.div(spread, axis=0))):
    most, least = values.idxmax().value_counts(), values.idxmin().value_counts()
    print(f"largest {name}: {most.index[0]}, for {most.iloc[0]} of {values.shape[1]} models; "
          f"smallest: {least.index[0]}, for {least.iloc[0]}")
teach.reveal("05-b", by_step.idxmax().value_counts().index[0], ladder_axes)

# %% [markdown]
# A new host hurts most. And what sounds furthest from home need not be hard: the block has the smallest
# errors in eV, since the energies of 3d dopants in one family of hosts lie close together, and every host
# and every dopant of it has been seen in other company. As a share of what there is to know it is no
# longer the easiest. What counts is not how far a rung sounds but whether it is *your* question.

# %% [markdown]
# For scale, public results on Imp2d, of the repository chimeraHHH/2d-defect-dast (protocol v2): DFT labels,
# 10,224 rows. These are other data and another budget; what can be compared is the *way* from step to step. Its
# hybrid is a mean of three networks on new hosts, dopants and the block; one alone does worse
# (`eform_mae_single`). The additive network sums a number for each atom, and falls apart on new hosts.

# %%
from defectkit.training.pretrained import published_ladder

published_ladder().pivot(index="model", columns="split", values="eform_mae")[
    ["random", "pair", "host", "dopant", "block"]
]

# %% [markdown]
# **Exercise 05-4.** By which factor does the error of each model grow from the random split to unseen
# hosts? Answer with a dictionary: name of the model → factor.

# %% tags=["solution"]
errors_by_step = ladder.pivot(index="model", columns="split", values="eform_mae")
answer = (errors_by_step.host / errors_by_step.random).to_dict()

# %%
check("05-4", answer)

# %% [markdown]
# The last rung is another source of labels. The table `transfer` of notebook 04b has it: 200 structures of
# 2DMD, real DFT, learned from few of them, with and without the weights learned here. The error is
# judged on 20 rows only.

# %%
plots.studies.transfer(benchmark("transfer"), SOURCES["2dmd"].label_source);

# %% [markdown]
# ## 5 · Where are the errors?
#
# One number hides much. The mean of three seeds is our best model, so that is what we look into:

# %%
from defectkit.evaluation import breakdown
from defectkit.predict import intervals

rows = intervals.ensemble(tested["hybrid"])
table = breakdown.described(rows, known.frame)
print(f"one seed {np.mean([scores(part)['eform_mae'] for part in tested['hybrid']]):.3f} eV,",
      f"the mean of three {scores(rows)['eform_mae']:.3f} eV")
plots.evaluation.error_map(table.error, table.dopant, source);

# %%
plots.results.error_bars(table.error, table.defecttype, source);

# %%
plots.results.error_bars(table.error, table.host, source);

# %%
pd.concat({
    "energy": breakdown.errors_by(table.error, table.energy),
    "cell": breakdown.errors_by(table.error, breakdown.ranges(table.natoms, "atoms")),
}).style.format("{:.2f}", subset=["mae", "mae_lo", "mae_hi", "bias", "worst"])

# %% [markdown]
# The ten worst, each with what is unusual about it. A reason here is a rule that applies to the row *and*
# goes with larger errors among all rows: likely, not proven.

# %%
training = breakdown.Training(
    known, tuple(known.frame.index.difference(runs["hybrid"][0].predictions.index))
)
sentences = breakdown.reasons(table.index, training)
worst = breakdown.worst(table, sentences)
worst[["host", "dopant", "site", "eform", "eform_pred", "error", "reason"]].style.format(
    precision=2
)

# %%
breakdown.rule_errors(table.error, sentences).style.format(precision=2)

# %% [markdown]
# **Exercise 05-5.** Which share of the sum of all absolute errors comes from the worst 5 % of the rows
# in `table` (rounded down to whole rows)?

# %% tags=["solution"]
sizes = table.error.abs().sort_values(ascending=False)
answer = float(sizes[: len(sizes) // 20].sum() / sizes.sum())

# %%
check("05-5", answer)

# %%
if answer is not ...:
    rest = table.error.abs().sort_values()[: len(table) - len(table) // 20]
    print(
        f"the worst 5 % carry {answer:.0%} of the error, {20 * answer:.0f} times their share; "
        f"without them the mean would be {rest.mean():.3f} instead of "
        f"{table.error.abs().mean():.3f} eV"
    )

# %% [markdown]
# So a mean absolute error is about both: a few rows weigh far more than theirs, and yet most of it comes from
# ordinary rows. (A root mean square error would be mostly about the few: there errors count squared.)

# %% [markdown]
# **Moments, atom by atom.** The hybrid gives every atom a moment, and the cell's is their sum. Here is the
# magnetic test row with the median error: does the moment sit where it should? *Guess first.*

# %%
from defectkit.evaluation import metrics

magnetic = rows[rows.spin > metrics.MAGNETIC]
shown = (magnetic.spin_pred - magnetic.spin).abs().sort_values().index[len(magnetic) // 2]
model, card = load_model(runs["hybrid"][0].folder)
graph = build_graph(known[shown], card.graph, known.hosts[known[shown].host])
with torch.no_grad():
    moment = model(graph).site_spin.numpy()
plots.explain.score_maps(
    graph, {f"{source} (μB)": graph.y_site_spin.numpy(), "hybrid (μB)": moment}
)
print(
    f"{shown}: the atoms of {source} sum up to {graph.y_site_spin.sum():.2f} μB, those of the "
    f"hybrid to {moment.sum():.2f}"
)

# %% [markdown]
# **Magnetic or not?** Networks that learn an absolute error say "no moment" where they doubt, and disagree
# there. So a moment above 0.5 μB is a poor test, and its spread over the seeds knows more. Three numbers
# (`intervals.Magnetism`), fitted to the validation rows, make of both a chance. Is it met on test rows?

# %%
magnetism = intervals.Magnetism.fit(
    intervals.ensemble([run.part("valid") for run in runs["hybrid"]])
)
chance, is_magnetic = (
    magnetism.chance(rows.spin_pred, rows.spin_sigma),
    rows.spin > metrics.MAGNETIC,
)
for name, called in {"moment": rows.spin_pred > metrics.MAGNETIC, "chance": chance > 0.5}.items():
    print(f"called by its {name}: F1 {metrics.f1_score(is_magnetic, called):.2f}")
told = pd.DataFrame({"chance told": chance, "share that is magnetic": is_magnetic})
parts = pd.cut(chance, [0, 0.1, 0.5, 0.9, 1])
told.groupby(parts, observed=True).mean().assign(rows=parts.value_counts())

# %% [markdown]
# ## 6 · Is a formation energy extensive? (optional)
#
# The energy of a crystal doubles with the crystal. The formation energy of *one defect* does not: set
# into a larger sheet it stays what it was, but for what its periodic images do to it. A read-out that sums
# over atoms must learn to cancel everything but the defect, and fails where a cell is larger than those it
# learned from. Four read-outs, trained alike (the ablation of notebook 04b), on validation rows and on the
# same defects in larger cells:

# %%
readouts = benchmark("readouts")
shown = readouts.groupby("readout")[
    ["natoms", "natoms_larger", "eform_mae", "eform_mae_larger", "change", "slope"]
].mean()
shown.sort_values("eform_mae_larger").style.format(precision=3).format(
    "{:.0f}", subset=["natoms", "natoms_larger"]
)

# %% [markdown]
# `slope` is what the signed error grows by with each atom, eV. The shipped hybrid on its test rows, with
# the interval drawn by hosts, since a host comes in one size mostly:

# %%
plots.evaluation.size_errors(table.error, table.natoms, table.host);

# %% [markdown]
# **Exercise 05-6.** What would the slope be of a model that predicts *zero* for every row of `table`?
# Answer in eV per atom (`np.polyfit(x, y, 1)[0]` fits a line). Would you have called that model extensive?

# %% tags=["solution"]
answer = float(np.polyfit(table.natoms, 0 - table.eform, 1)[0])

# %%
check("05-6", answer)

# %% [markdown]
# ## 7 · What is an error worth? (optional)
#
# You will not use an energy for itself. You ask: *which site will this dopant take? Which dopant goes
# in most easily?* The model picks the lowest energy. **Regret** is the true energy of its pick minus the
# lowest true energy. An error that all options share costs nothing.

# %%
described = {
    name: breakdown.described(intervals.ensemble(parts), known.frame)
    for name, parts in tested.items()
}
sites = {name: metrics.choices(part, metrics.SITE) for name, part in described.items()}
dopants = {
    name: metrics.choices(part, metrics.DOPANT, "dopant") for name, part in described.items()
}
figure, axes = plt.subplots(2, 1, figsize=(9, 5.2), layout="constrained")
plots.evaluation.regret(sites, "site of a dopant in a host", axes[0])
plots.evaluation.regret(dopants, "dopant of a host", axes[1]);

# %%
plots.evaluation.recall(
    {name: metrics.top_k(part) for name, part in dopants.items()}, "dopant of a host"
);

# %% [markdown]
# **Exercise 05-7.** Four sites of a dopant have the true energies 1.2, 0.4, 0.9 and 0.5 eV. A model says
# 2.2, 1.5, 1.9 and 1.4 eV. What is its regret, and what is its mean absolute error? A pair, in eV.

# %% tags=["solution"]
truth, said = np.array([1.2, 0.4, 0.9, 0.5]), np.array([2.2, 1.5, 1.9, 1.4])
answer = (float(truth[said.argmin()] - truth.min()), float(np.abs(said - truth).mean()))

# %%
check("05-7", answer)

# %% [markdown]
# ## 8 · How sure?
#
# Three seeds are three opinions. Where they differ, the prediction may be bad. Does their spread
# *rank* the errors? And is it the size of an error bar?

# %%
plots.evaluation.sigma_errors(rows);

# %% [markdown]
# The line shows what the mean error would be, if the spread were the standard deviation of a normal
# error. The points lie above: seeds agree on what none of them could know. A **conformal** interval
# needs no such belief. Take the absolute errors of $n$ rows that were not trained on, sort them, and take
# the one at rank $\lceil (n + 1) c \rceil$: prediction ± that covers a new row with confidence $c$, if it
# is drawn like those $n$.
#
# **Exercise 05-8.** Write `half_width(errors, confidence)`.

# %% tags=["solution"]
def half_width(errors, confidence):
    rank = int(np.ceil((len(errors) + 1) * confidence))
    return float(np.sort(errors)[rank - 1])


assert half_width(np.array([3.0, 1.0, 2.0]), 0.5) == 2.0

# %%
check("05-8", half_width)

# %% [markdown]
# **Your function draws** its interval: few rows that are known, then many; is the promise kept at every level?

# %%
try_out("05-8", half_width)

# %%
from defectkit.evaluation import coverage

valid = intervals.ensemble([run.part("valid") for run in runs["hybrid"]])
figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
plots.evaluation.reliability(coverage.reliability(valid, rows), axes[0])
unseen = [[intervals.ensemble([run.part(part) for run in fold]) for part in ("valid", "test")]
          for fold in ladder_runs("host", "hybrid")]
broken = pd.concat([coverage.reliability(*pair) for pair in unseen]).groupby(level=0).mean()
plots.evaluation.reliability(broken, axes[1])
axes[0].set_title("test rows like the training rows")
axes[1].set_title("hosts never seen");

# %% [markdown]
# Left, the promise is kept. Right, it is broken, and no calibration on familiar rows can mend that: new
# hosts are *not* drawn like the validation rows. The numbers, at three confidences:

# %%
levels = {
    "familiar": coverage.coverage(valid, rows),
    "unseen hosts": pd.concat([coverage.coverage(*pair) for pair in unseen]),
}
pd.concat(
    {
        name: part.groupby(["method", "level"])[["coverage", "width_mean"]].mean()
        for name, part in levels.items()
    },
    axis=1,
).style.format("{:.2f}")

# %% [markdown]
# Also on familiar rows the promise holds *on average* only. By host it may be far off:

# %%
coverage.coverage_by(valid, rows, known.frame.host).style.format(
    "{:.2f}", subset=["coverage", "width"]
)

# %% [markdown]
# ## 9 · A guard
#
# So we must notice when a row is *not* of the kind that the model knows. Two signs: the seeds disagree;
# or nothing in the training set is near, in the vector from which the model reads its answer, in what
# the defect is made of, or in how its atoms stand to their neighbours. Each misses what the others see; so
# the validation rows say which *error is to be expected* where the signs are what they are, by a straight line
# through logarithms. A row is not "inside" if that error is large (as of the worst 13 % of the validation rows),
# or if one sign alone is farther out than on 99 % of them (dashed). Intervals are as wide as that error in
# proportion. Every prediction of a `Predictor` carries the verdict:

# %%
from defectkit.predict.predictor import Predictor
from defectkit.training.pretrained import CHECKPOINTS

predictor = Predictor.load(CHECKPOINTS / "hybrid.safetensors")
some = rows.index if not quick else rows.sample(min(250, len(rows)), random_state=seed).index
judged = predictor([known[uid] for uid in some], known.hosts)
judged[["eform", "eform_lo", "eform_hi", "spin", "verdict", "sentence"]].head().style.format(
    precision=2
)

# %%
off = rows.eform_pred.sub(rows.eform).loc[some]
plots.evaluation.guard(predictor.signs(judged), predictor.guard, off);

# %%
from defectkit.evaluation.coverage import guard_table

guard_table(judged.verdict, off).style.format(precision=2)

# %% [markdown]
# And rows of another data set? The predictor says what *its* labels would be, so its energies must not be
# compared with labels of another kind; but its guard can say how far a row is from all it has learned.

# %%
if known is data:
    print(
        "`dataset` is the set that these models learned from; name another one to see its rows "
        "judged"
    )
else:
    own = data.subset(data.frame.sample(n, random_state=seed).index)
    try:
        foreign = predictor(own.records, own.hosts)
        print(
            f"{n} rows of '{data.name}', predictions as {source} would give, verdicts of the guard:"
        )
        print(foreign.verdict.value_counts().to_string())
    except DefectkitError as reason:
        print(reason)

# %% [markdown]
# `caught` is the share of the largest 5 % of the errors. Rows that the guard lets pass are better; some
# bad ones pass all the same. On hosts never seen, with the nearness in composition alone:

# %%
from defectkit.predict.domain import Nearness, composition_vectors

far, pieces = {}, composition_vectors(known.frame)
for fold, pair in zip(ladder_runs("host", "hybrid"), unseen):
    learned = known.frame.index.difference(
        fold[0].predictions.index
    )  # and what was left out by its size
    nearness = Nearness(pieces.loc[learned])
    limit = nearness(pieces.loc[pair[0].index]).quantile(0.95)
    far |= (nearness(pieces.loc[pair[1].index]) > limit).to_dict()
out = pd.concat([pair[1] for pair in unseen])
missed = (out.eform_pred - out.eform).abs()
missed.groupby(pd.Series(far).map({True: "warned", False: "not warned"})).agg(
    ["size", "mean"]
).style.format("{:.2f}", subset=["mean"])

# %% [markdown]
# ## 10 · Does it behave like physics? (optional)
#
# A crystal does not know how we write it down: turned, moved, with its atoms in another order, it must
# get the same answer. *Guess first:* how many digits will agree, in 32-bit numbers?

# %%
teach.guess("05-c", (2, 5, 7, 15))

# %%
from defectkit.predict import physics

model, card = load_model(runs["hybrid"][0].folder)
few = [known[uid] for uid in first.index[:: max(1, len(first) // 12)]]
equal = physics.equal_crystals(model, card.graph, few, known.hosts, seed)
plots.evaluation.equal_crystals(equal);

# %%
alike = equal[~equal.ambiguous]
relative = (alike.difference / alike.eform).abs().max()
print(
    f"largest difference {alike.difference.abs().max():.0e} eV; at least "
    f"{int(-np.log10(relative))} digits agree, "
    f"and a 32-bit number has about {-np.log10(np.finfo(np.float32).eps):.0f}"
)
teach.reveal("05-c", int(-np.log10(relative)))

# %% [markdown]
# A small push must change the answer a little. Here an added atom is lifted off its layer, neighbours
# pass the cutoff, and energy, slope and curvature are drawn. A jump would be a fault; wiggles are not, but
# they say that this model has never seen a force.

# %%
lifted = next(known[uid] for uid in first.index if known[uid].defecttype == "adsorbate")
curve = physics.displacement_curve(model, card.graph, lifted, known.hosts, np.linspace(0, 2.5, 251))
plots.evaluation.displacement(curve, card.graph.cutoff, source);

# %% [markdown]
# And chemistry has trends. Along the 3d elements on one site the energy rises and falls; these predictions
# were all made by models that had *never seen the dopant*:

# %%
unseen_dopants = pd.concat([fold[0].part("test") for fold in ladder_runs("dopant", "hybrid")])
plots.evaluation.dopant_series(physics.dopant_series(unseen_dopants, known.frame), source);

# %% [markdown]
# Values that cannot be, such as an energy far outside the training labels or a moment with more spins
# than there are electrons, are named in the column `impossible` of every prediction:

# %%
impossible = judged.impossible[judged.impossible != ""]
print(f"{len(impossible)} of {len(judged)} predictions", *impossible.head(5), sep="\n")

# %% [markdown]
# ## 11 · What does accuracy cost? (optional)
#
# More rows, for as long as the curve falls (validation rows, equal number of rows for both, three seeds):

# %%
plots.studies.transfer(benchmark("learning"), source);

# %%
models = benchmark("models_demo")
plots.studies.cost_accuracy(models[models.input == "relaxed"], source);

# %% [markdown]
# Could fewer digits make the network faster? Matrix products in numbers of 16 bits (bf16), or weights as
# whole numbers of 8 (INT8), on the same test rows; `change` is the paired change of the error.

# %%
precision = benchmark("precision").set_index("precision")
precision[
    ["eform_mae", "change", "change_lo", "change_hi", "infer_ms_b1", "infer_ms_b64", "weights_kb"]
].style.format(precision=3).format("{:.1f}", subset=["infer_ms_b1", "infer_ms_b64"])

# %%
same = precision.index[precision.change_lo <= 0]  # no worse, as far as the rows can tell
print(
    "the kit computes with",
    precision.loc[same].infer_ms_b1.idxmin(),
    "- the fastest without a larger error",
)

# %% [markdown]
# ## 12 · For your report
#
# `plots.save` writes any figure as PNG, for slides, and as SVG, whose letters and lines stay sharp at every
# size and can still be edited. The ladder of section 4:

# %%
for file in plots.style.save(ladder_axes.figure, data_folder() / "figures" / "ladder"):
    print(file)

# %% [markdown]
# ## Summary
#
# * An error without an interval is a rumour. Rows and seeds are both luck.
# * Compare models on the same rows, paired.
# * Split first, then augment; equal structures on one side. The false gain of a leak is larger than what
#   most new ideas gain.
# * Test what you will use the model for. Unseen hosts are another task than unseen rows.
# * Conformal intervals keep their promise where rows are drawn alike, and only there. Ask the guard.
# * Labels here are the ones named on every axis. On the demo set they are CHGNet's, not DFT's.
#
# The report of any set of runs, with most of these figures: `defectkit evaluate RUN ... --report FOLDER`.
#
# **Further reading.** B. Efron and R. Tibshirani, *An Introduction to the Bootstrap* (1993).
# S. Kapoor and A. Narayanan, *Leakage and the reproducibility crisis in machine-learning-based science*,
# Patterns **4**, 100804 (2023). J. Lei et al., *Distribution-free predictive inference for regression*,
# J. Am. Stat. Assoc. **113**, 1094 (2018). B. Lakshminarayanan et al., *Simple and scalable predictive
# uncertainty estimation using deep ensembles*, NeurIPS 2017. K. Li et al., *Exploiting redundancy in large
# materials datasets*, Nat. Commun. **14**, 7283 (2023).
