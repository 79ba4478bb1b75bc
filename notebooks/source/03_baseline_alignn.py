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
# # 03 · A baseline: ALIGNN
#
# **Goals.** Pass messages by hand; see what distances alone cannot tell; read one layer of ALIGNN
# line by line; train a small one yourself; judge the trained ones that come with the kit beside
# simpler models, and find where they fail.
#
# **Prerequisites.** Notebooks 00 to 02; what a neural network and its loss are.
#
# **Time.** 80 minutes for the core, 100 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # False: the training in section 5 has more rows and epochs
seed = 0
retrain = False  # True: train the whole baseline on this data set, in section 7

# %%
from defectkit.widgets.lesson import *

torch.set_num_threads(1)  # these graphs are small: a second thread costs more than it gains
data = clean(load(dataset), "strict").dataset
teach.use(data)
frame = data.frame
baseline = shipped_run("alignn")  # trained already; more of it in section 6
print(f"{len(data):,} clean rows, labels from {data.label_source}. {about(baseline, data)}")

# %% [markdown]
# ## 1 · Messages, by hand
#
# A graph network gives every atom $i$ a vector $\mathbf h_i$ and lets neighbours talk. In each
# *round* every atom collects messages from its neighbours and adds them to what it knew:
#
# $$h_i' = h_i + \sum_{j \in N(i)} w(d_{ij}) \, h_j .$$
#
# Take four atoms in a bent chain, one number each, and $w(d) = 1/d$ with bonds of 1, 2 and 1 Å.
# Only A begins with something to say. *Guess first:* after how many rounds does D know of A, and
# what number will it hold?

# %%
teach.guess("03-a", (1, 2, 3, 4))  # rounds

# %%
points = np.array([[0.0, 0.0], [0.8, 0.6], [2.7, 0.0], [3.5, 0.6]])
bonds = [(0, 1), (1, 2), (2, 3)]
index = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])  # (2, E): senders, receivers
weight = torch.tensor([1.0, 1.0, 0.5, 0.5, 1.0, 1.0])  # (E,)

rounds = [torch.tensor([1.0, 0.0, 0.0, 0.0])]
for _ in range(3):
    h = rounds[-1]
    message = weight * h[index[0]]  # (E,): what each sender says
    # index_add(0, where, what) adds each row of what to the row that where names
    rounds.append(h + torch.zeros(4).index_add(0, index[1], message))
# torch.stack puts tensors of one shape into a new first axis: (rounds, atoms)
plots.results.message_rounds(points, bonds, list("ABCD"), torch.stack(rounds).numpy());

# %%
known_at = next(k for k, values in enumerate(rounds) if values[3] != 0)
print(f"D knows of A after {known_at} rounds and holds {rounds[known_at][3]:g}: "
      f"the product of the weights on the way, {weight[0]:g} x {weight[2]:g} x {weight[4]:g}")
teach.reveal("03-a", known_at)

# %% [markdown]
# News travels one bond a round. What an atom can know after $L$ rounds ends $L$ bonds away: its
# **receptive field**. Keep this in mind for section 6.
#
# **Exercise 03-1.** Write `message_round(h, index, weight)`: one round for vectors, `h` of shape
# (N, D), `index` (2, E) and `weight` (E,).

# %% tags=["solution"]
def message_round(h, index, weight):
    message = weight[:, None] * h[index[0]]
    return h + torch.zeros_like(h).index_add(0, index[1], message)  # added at the receivers


assert message_round(
    torch.eye(2), torch.tensor([[0], [1]]), torch.tensor([3.0])
).tolist() == [[1, 0], [3, 1]]  # one bond, from atom 0 to atom 1, of weight 3

# %%
check("03-1", message_round)

# %% [markdown]
# ## 2 · What distances cannot tell
#
# Platinum in a square of two chlorines and two nitrogens: where the chlorines are neighbours (*cis*),
# it is the core of a medicine; where they are opposite (*trans*), of a substance without use. Beside
# them two phases of MoS$_2$: shift the lower layer of sulfur to the other hollow, and 1H becomes 1T,
# a semiconductor a metal. You look from above: in 1H the lower sulfurs hide under the upper ones. Under
# each picture stand the bonds of the middle atom and the angles between them, counted.

# %%
from defectkit.structures.hosts import twin_structures

near = GraphConfig(cutoff=2.6, angle_cutoff=2.6, all_pairs=False)  # first neighbours only
twins = {
    name: build_graph(atoms, near, dtype=torch.float64) for name, atoms in twin_structures().items()
}
plots.results.surroundings(twins);

# %% [markdown]
# Every atom has the same neighbours at the same distances in both twins of a pair. We show them to
# two networks with random weights: CGCNN, which knows distances only, and ALIGNN, which knows angles
# as well. *Guess first:* in which of the four cases do the twins get different answers?

# %%
from defectkit.models import build_model

trained, card = load_model(baseline.folder)
torch.manual_seed(seed)
differences = {}
for name in ("cgcnn", "alignn"):
    model = build_model(name, trained.inputs.features, near).double().eval()
    with torch.no_grad():
        energy = {twin: model(graph).eform.item() for twin, graph in twins.items()}
    differences[name] = {"cis and trans": energy["cis"] - energy["trans"],
                         "1H and 1T": energy["1H"] - energy["1T"]}
pd.DataFrame(differences).abs().style.format("{:.0e}")

# %% [markdown]
# CGCNN cannot tell the twins apart, whatever its weights: it computes the same numbers from the same
# distances, and what is left is the computer's rounding, near $10^{-16}$. A longer cutoff would help in
# these two cases, but for every cutoff there are twins. ALIGNN does see cis and trans apart: by little,
# for its weights have learned nothing yet, but by far more than rounding. And yet it is blind to 1H
# and 1T, in spite of their different angles. Section 4 will show why.
#
# ## 3 · The line graph
#
# To give angles a place, ALIGNN passes messages on a second graph, whose **nodes are the bonds** of
# the first. Two bonds that meet at an atom are joined by an edge, and that edge carries their angle.
# (A chain has few angles, so here are four atoms that share a centre.)

# %%
star = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 1.1], [-0.8, -1.2]])
plots.graphs.line_graph(star, [(0, 1), (0, 2), (0, 3)], list("ABCD"));

# %% [markdown]
# A bond counts twice in our graphs, once in either direction. How large is the line graph of a real
# defect? It depends on how long a bond may be to form angles.

# %%
record = data[frame.sample(1, random_state=seed).index[0]]
reaches = np.arange(2.0, 5.01, 0.25)
sizes = []
for reach in reaches:
    config = GraphConfig(cutoff=reach, angle_cutoff=reach, all_pairs=False)
    graph = build_graph(record, config, data.hosts.get(record.host))
    sizes.append((graph.edge_index.shape[1], graph.angle_index.shape[1]))
sizes = np.where(sizes, sizes, np.nan)  # a logarithm has no place for zero
plt.figure(figsize=(7, 3.4), layout="constrained")
plt.semilogy(
    reaches, sizes, "o-", label=["bonds E: nodes of the line graph", "angles T: its edges"]
)
plt.xlabel("longest bond that forms angles (Å)")
plt.ylabel("number in the graph")
plt.title(in_figure(record.name))
plt.legend(frameon=False);

# %% [markdown]
# Angles soon outnumber the bonds by far, and each one costs a message. That is why the kit's ALIGNN
# has a shorter cutoff for angles than for bonds, and why it is slow all the same.
#
# **Exercise 03-2.** How many ordered pairs of bonds has this record with a cutoff of 3.5 Å for bonds
# and angles? Count the bonds that arrive at each atom, $n_i$ (`torch.bincount`), and add up
# $n_i (n_i - 1)$, without `angle_index`. Answer with the pair `(record.uid, number)`.

# %% tags=["solution"]
local = GraphConfig(cutoff=3.5, angle_cutoff=None, all_pairs=False)
# bincount says how often each number, here each receiver, is there
arriving = torch.bincount(build_graph(record, local, data.hosts.get(record.host)).edge_index[1])
answer = (record.uid, int((arriving * (arriving - 1)).sum()))

# %%
check("03-2", answer)

# %% [markdown]
# ## 4 · One layer, line by line (optional)
#
# ALIGNN's layer is an **edge-gated convolution**. An edge $j \to i$ with vector $\mathbf e_{ij}$
# first forms
#
# $$\mathbf m_{ij} = A\,\mathbf h_j + B\,\mathbf h_i + C\,\mathbf e_{ij},$$
#
# squeezes it to a *gate* between 0 and 1, $\sigma(\mathbf m_{ij})$, and lets the receiver take a gated
# mean of what its neighbours offer:
#
# $$\mathbf h_i' = \mathbf h_i + \mathrm{SiLU}\Big(\mathrm{BN}\Big(U \mathbf h_i +
# \frac{\sum_j \sigma(\mathbf m_{ij}) \odot V \mathbf h_j}{\sum_j \sigma(\mathbf m_{ij}) + 10^{-6}}
# \Big)\Big), \qquad
# \mathbf e_{ij}' = \mathbf e_{ij} + \mathrm{SiLU}(\mathrm{BN}(\mathbf m_{ij})).$$
#
# $A, B, C, U, V$ are linear maps and BN is a batch norm. The same layer serves twice: on the crystal
# ($\mathbf h$ atoms, $\mathbf e$ bonds), then on the line graph ($\mathbf h$ bonds, $\mathbf e$ angles).
# Here is one of width 2 on the chain of section 1. We follow it with its own weights:

# %%
from defectkit.models.baselines import EdgeGatedConv

torch.manual_seed(seed)
conv = EdgeGatedConv(width=2).eval()
h, e = torch.randn(4, 2), torch.randn(6, 2)  # four atoms, six directed bonds
sender, receiver = index
with torch.no_grad():
    # chunk cuts the columns into four parts, A h, B h, U h and V h: each (4, 2)
    a_h, b_h, u_h, v_h = conv.nodes(h).chunk(4, dim=1)
    m = a_h[sender] + b_h[receiver] + conv.edges(e)  # (6, 2)
    gate = m.sigmoid()
pd.DataFrame(gate, [f"{'ABCD'[j]} to {'ABCD'[i]}" for j, i in index.T], ["gate 1", "gate 2"]).round(
    3
)

# %% [markdown]
# **Exercise 03-3.** Write `gated_mean(value, gate, index, n)`: for each of `n` nodes the gated mean
# $\sum_j \sigma_{ij} \odot v_j / (\sum_j \sigma_{ij} + 10^{-6})$; `value` is $V\mathbf h$ of shape
# (N, D), `gate` (E, D), the result (n, D).

# %% tags=["solution"]
def gated_mean(value, gate, index, n):
    sender, receiver = index
    empty = torch.zeros(n, value.shape[1], dtype=value.dtype)
    total = empty.index_add(0, receiver, gate * value[sender])  # a sum for each receiver
    return total / (empty.index_add(0, receiver, gate) + 1e-6)  # and that of its gates


assert gated_mean(torch.ones(1, 1), torch.ones(1, 1), torch.tensor([[0], [0]]), 1).item() > 0.99

# %%
check("03-3", gated_mean)

# %%
if gated_mean is not ...:
    with torch.no_grad():
        by_hand = h + torch.nn.functional.silu(
            conv.norm_nodes(u_h + gated_mean(v_h, gate, index, 4))
        )
        print(
            "largest difference to the layer's own answer:",
            (by_hand - conv(h, e, index)[0]).abs().max().item(),
        )

# %% [markdown]
# **Exercise 03-4.** Back to 1H and 1T. All bonds at an atom are alike there, so on the line graph
# every neighbour offers the same value, say 3; the gates depend on the angles and differ, say 0.2,
# 0.5 and 0.9. What is the gated mean (leave out the $10^{-6}$)? And what if the angles, and with them
# the gates, were others?

# %% tags=["solution"]
answer = (0.2 * 3 + 0.5 * 3 + 0.9 * 3) / (0.2 + 0.5 + 0.9)

# %%
check("03-4", answer)

# %% [markdown]
# A mean of equals is that equal, whatever the weights. ALIGNN's angles do not say what the angle *is*;
# they say how much each *different* bond counts. In a lone sheet of 1H or 1T there is no difference
# to weigh. The next notebook builds a layer without this gap.
#
# ## 5 · Train one
#
# A narrow ALIGNN on some of the rows: enough to see how learning looks. The loss is the mean absolute
# error of the energy plus `config.loss.spin` times the mean squared error of the magnetic moment. To
# judge a network we need to know what is reached *without* one.
#
# **Exercise 03-5.** Always predict the same energy, for every row of `frame`. What is the mean
# absolute error if that energy is the mean of `frame.eform`, and what if it is the median? Answer
# with a pair.

# %% tags=["solution"]
answer = tuple(
    float((frame.eform - c).abs().mean()) for c in (frame.eform.mean(), frame.eform.median())
)

# %%
check("03-5", answer)

# %%
from defectkit.training.inference import predict
from defectkit.training.prepared import graphs_of

rows = data if len(data) >= 20 and set(frame.host) <= set(data.hosts) else data_of(baseline, data)
if rows is not data:
    print(
        f"'{data.name}' has fewer than 20 rows, or hosts without a pristine cell: here the rows "
        f"of '{rows.name}' serve"
    )
atoms = 15_000 if quick else 60_000  # in all: a large cell costs as much as many small ones
n = min(int(atoms / rows.frame.natoms.mean()), len(rows))
few = rows.subset(rows.frame.sample(n, random_state=seed).index)
split = make_split(few, seed=seed)
changes = {
    "model.settings.hidden": 32,
    "optimiser.lr": 0.003,
    "ema": None,
    "epochs": 10 if quick else 25,
}
config = with_values(baseline.config, changes)
graphs = graphs_of(few, config.graph)
labels = few.frame.loc[list(split.train)]

torch.manual_seed(seed)
fresh = build_model("alignn", trained.inputs.features, config.graph, **config.model.settings)
fresh.heads.fit(
    *(torch.tensor(labels[name].to_numpy(), dtype=torch.float32) for name in ("eform", "spin"))
)
before = predict(fresh, graphs, graphs.select(split.test)).add_suffix("_pred").join(few.frame)
guess = few.frame.loc[list(split.valid)].eform.sub(labels.eform.mean()).abs().mean()
print(f"{len(split.train)} training rows, {sum(p.numel() for p in fresh.parameters()):,} weights")
if labels.spin.isna().all():
    print(f"'{few.name}' has no magnetic moments: the loss is that of the energy alone")

# %% [markdown]
# *Guess before you run the next cell:* there are many more weights than rows. Will the error on rows
# that the network has not seen fall below the dashed line at all? After how many epochs? Will it rise
# again?

# %%
teach.guess("03-b", ("never below the line", "below it, and rising again", "below it to the end"))

# %%
curve = LiveCurve(baseline=guess)
run = train(
    Prepared(config, few, split), Path(tempfile.mkdtemp()), seed, progress=False, callbacks=(curve,)
)

# %%
print(curve.in_words())

# %%
error = curve.metrics.valid_eform_mae
rising = "below it, and rising again" if error.iloc[-1] > error.min() else "below it to the end"
teach.reveal("03-b", rising if error.min() < guess else "never below the line")

# %% [markdown]
# If the last number is above the best one, the error rose again: by luck from step to step, or because the
# network began to learn its rows by heart (*overfitting*; then the loss on training rows falls on). Many
# weights make that possible; whether it happens, only unseen rows can tell.
#
# The same test rows before and after: an untrained network knows the mean energy and no more.

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained", sharey=True)
plots.results.parity(before, few.label_source, title="before training", ax=axes[0])
plots.results.parity(run.part("test"), few.label_source, title="after training", ax=axes[1]);

# %% [markdown]
# ## 6 · The shipped models
#
# In `data/checkpoints/` lie networks and simpler models, trained on the whole demo set by
# `defectkit bench models`: one split, three seeds each. Every folder is a *run*: configuration,
# weights, predictions for all rows that it was not trained on. Loading one takes no training. All of
# this section is about the demo rows and their labels, whatever `dataset` is:

# %%
from defectkit.graphs.dataset import load_graphs

known = data_of(baseline, data)  # the data that it was trained on
tested = baseline.part("test").join(known.frame[["host", "dopant", "defecttype"]])
some = [known[uid] for uid in tested.index[:5]]
answers = predict(trained, load_graphs(some, known.hosts, card.graph))
print(f"{card.model.name}, {baseline.summary['parameters']:,} weights, trained on "
      f"{baseline.summary['rows']['train']:,} rows with labels from {card.label_source}")
answers.join(known.frame[["eform", "spin"]], lsuffix=" predicted").round(2)

# %% [markdown]
# ### How good?
#
# *Guess first:* which of the two targets is harder, and what will the picture of the moments look
# like, most of which are zero?

# %%
figure, axes = plt.subplots(1, 2, figsize=(11, 5.4), layout="constrained")
plots.results.parity(tested, card.label_source, "eform", "ALIGNN, test rows", axes[0])
plots.results.parity(tested, card.label_source, "spin", "ALIGNN, test rows", axes[1]);

# %%
from defectkit.evaluation.metrics import scores

pd.Series(scores(tested), name="ALIGNN, seed 0").to_frame().round(3)

# %%
for name, (words, unit) in plots.results.QUANTITIES.items():
    label, error = tested[name], (tested[f"{name}_pred"] - tested[name]).abs().mean()
    constant = (label - label.mean()).abs().mean()
    print(
        f"{words}: error {error:.2f} {unit}, {error / constant:.0%} of that of always the mean, "
        f"{constant:.2f} {unit}"
    )
print(
    f"{(tested.spin < 0.05).mean():.0%} of the moments are zero, "
    f"{tested.spin.between(0.5, 5).mean():.0%} lie between 0.5 and 5 μB"
)

# %% [markdown]
# Errors in eV and in μB cannot be compared, but each can with what the mean alone would give: by that the
# energy is harder. The moments form a clump at zero and a far one (of which host?), and to tell these
# apart is easy. What is hard, a moment of a few μB, is a small share of the rows.

# %% [markdown]
# ### Beside simpler models
#
# A result means little alone. `mean` always says the mean; `names` is a linear model that knows what a
# row is called, host with site, dopant, and what was removed, and not where a single atom is (notebook
# 01); `ridge`, `forest` and `lightgbm` read tables of element and neighbour statistics; `cgcnn`, `alignn`
# and `matformer` read graphs. *Put them in order before you look.* Do the networks win?

# %%
teach.guess("03-c", ("all networks win", "one of them", "none"))

# %%
table = benchmark("models_demo")
table = table[(table.input == "relaxed") & ~table.model.str.startswith("hybrid")]  # see notebook 04
plots.results.model_errors(table, card.label_source);

# %% [markdown]
# Points of one model differ by the seed alone: by luck. A difference between models that is no larger
# than that is none. In order:

# %%
order = table.groupby("model").eform_mae.mean().sort_values()
networks = order[order.index.isin(["cgcnn", "alignn", "matformer"])]
print(", ".join(f"{name} {error:.2f} eV" for name, error in order.items()))
print(
    f"the best network, {networks.index[0]}, comes in at place "
    f"{order.index.get_loc(networks.index[0]) + 1}, "
    f"the last, {networks.index[-1]}, at place {order.index.get_loc(networks.index[-1]) + 1} of "
    f"{len(order)}"
)
ahead = (networks < order.drop(networks.index).min()).sum()  # of every model without a network
teach.reveal("03-c", {0: "none", len(networks): "all networks win"}.get(ahead, "one of them"))

# %% [markdown]
# Being a network is no merit by itself. Look where `names` stands: whatever is no better has learned less
# from all its atoms than can be read off the label on the box. And what does an answer cost?

# %%
plots.results.model_latency(table.dropna(subset=["infer_ms_b1"]));  # of those that were timed

# %%
columns = [
    "eform_mae",
    "spin_mae",
    "n_params",
    "train_s_per_epoch",
    "build_ms",
    "infer_ms_b1",
    "infer_ms_b64",
    "peak_mb",
]
table.groupby("model")[columns].mean().sort_values("eform_mae").style.format(
    {"n_params": "{:,.0f}", "peak_mb": "{:.0f}"}, precision=2
)

# %% [markdown]
# **Exercise 03-6.** Three runs of ALIGNN are three opinions: `shipped_run("alignn", 1)` is the second
# one. What is the mean absolute error (eV) of the *mean* of their three predictions `eform_pred` on
# the test rows? Compare it with the three points above.

# %% tags=["solution"]
opinions = [shipped_run("alignn", k).part("test").eform_pred for k in range(3)]
answer = float((sum(opinions) / 3 - tested.eform).abs().mean())

# %%
check("03-6", answer)

# %% [markdown]
# ### Where does it fail?
#
# One number hides much. Here is ALIGNN's error for each type of defect and each host; in brackets the
# number of test rows. Intervals that overlap far say: too few rows to tell.

# %%
errors = tested.eform_pred - tested.eform
plots.results.error_bars(errors, tested.defecttype, card.label_source);

# %%
plots.results.error_bars(errors, tested.host, card.label_source);

# %% [markdown]
# **Exercise 03-7.** Which host has the largest *median* absolute error on ALIGNN's test rows
# (`tested`)? Is it the one with the largest mean? What does it say if not?

# %% tags=["solution"]
answer = errors.abs().groupby(tested.host).median().idxmax()

# %%
check("03-7", answer)

# %% [markdown]
# By dopant, in the periodic table. *Guess first:* are neighbours in a column equally hard?

# %%
doped = tested.dopant != ""
plots.database.periodic_table(
    errors[doped].abs().groupby(tested.dopant[doped]).mean(), "mean absolute error (eV)"
)
plt.title(f"ALIGNN, test rows by dopant. Labels: {card.label_source}");

# %%
from pymatgen.core import Element

by_dopant = errors[doped].abs().groupby(tested.dopant[doped]).mean()
column = [Element(symbol).group for symbol in by_dopant.index]
within = by_dopant.groupby(column).transform("mean")  # put the mean of its column for every element
share, chance = within.var() / by_dopant.var(), (len(set(column)) - 1) / (len(by_dopant) - 1)
print(
    f"{share:.0%} of the variance lies between columns; columns drawn at random would take "
    f"{chance:.0%}"
)

# %% [markdown]
# That answers the guess: the nearer the first number is to one, the more alike are the elements of a
# column; if it is near the second, the columns say nothing. Mind that an element has few test rows.
#
# ### Range, and hosts with few rows
#
# Left: large energies are rare, and rare means badly known. Right: each host over its number of
# training rows. If more rows of a host helped much, the points would fall to the right. A host that
# the model has *never* seen is another matter: `make_split(data, "leave-one-host-out", held_out=...)`
# asks that question, and you can train on it (`retrain` shows how).

# %%
training_rows = known.frame.drop(baseline.predictions.index).host.value_counts()
figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
plots.results.error_by_energy(tested, card.label_source, ax=axes[0])
plots.results.error_by_support(errors, tested.host, training_rows, ax=axes[1]);

# %% [markdown]
# ### How far does it see?
#
# A defect strains the sheet around it for many lattice constants. We take a wide MoS$_2$ sheet with a
# missing sulfur, push the atom *farthest* from it by 0.3 Å, and ask which atoms' vectors change in the
# trained network. *Guess first:* how far does the news travel?

# %%
unit = HOSTS["MoS2"].unit_cell()
site = find_site(unit, "vacancy", "S")
wide = build_graph(
    make_defect(unit, (15, 15, 1), site, "").atoms, card.graph, unit, dtype=torch.float64
)
_, apart = periodic.minimum_image(wide.pos.numpy(), wide.cell[0].numpy(), [True, True, False])
far = apart[wide.is_defect.numpy()][0].argmax()
pushed = wide.clone()
pushed.pos[far] += torch.tensor([0.0, 0.0, 0.3])

trained.double()  # more digits: small changes are not to be lost in rounding
vectors = []  # what reaches the read-out, (N, D) for each of the two sheets
hook = trained.pooling.register_forward_pre_hook(lambda module, inputs: vectors.append(inputs[0]))
with torch.no_grad():
    trained(wide), trained(pushed)
hook.remove()
change = (vectors[1] - vectors[0]).norm(dim=1).numpy()
layers = card.model.settings["alignn_layers"] + card.model.settings["gcn_layers"]
plots.results.echo(apart[far], change, layers * card.graph.cutoff, wide.is_defect.numpy());

# %%
print(f"the news ends {apart[far][change > 0].max():.1f} Å from the atom, "
      f"the defect is {apart[far][wide.is_defect.numpy()].min():.1f} Å away")

# %% [markdown]
# No news passes the dotted line, and it ends before: no chain of bonds in this crystal has steps
# as long as the cutoff. Beyond, nothing changes, not even in the last digit: to the defect, that atom
# does not exist. No atom knows of two defects that are further apart than twice this reach: from there on,
# the answer no longer depends on their distance at all, whatever the physics.
#
# **Exercise 03-8.** How many layers in all would an ALIGNN with a cutoff of 4 Å need at least, so that
# the vector of an atom can depend on atoms up to 30 Å away?

# %% tags=["solution"]
answer = int(np.ceil(30 / 4))

# %%
check("03-8", answer)

# %% [markdown]
# The read-out has a range problem of its own. ALIGNN takes the *mean* over all atoms, and a formation
# energy does not belong to every atom. Here is the same vacancy in larger and larger cells. It should
# cost nearly the same in each. *Guess first:* what will the network say of the largest? And what should a
# sheet *without* a defect cost?

# %%
cells = range(3, 13)
sheets = [make_defect(unit, (n, n, 1), site, "").atoms for n in cells]
with torch.no_grad():
    *diluted, pristine = [
        trained(build_graph(sheet, card.graph, unit, dtype=torch.float64)).eform.item()
        for sheet in [*sheets, unit]
    ]
plt.figure(figsize=(8, 3.4), layout="constrained")
plt.plot(cells, diluted, "o-", color=plots.style.BLUE, label="missing S in MoS$_2$, not relaxed")
plt.axhline(pristine, color=plots.style.GREY, ls="--", label="no defect")
plt.xlabel("supercell, n x n unit cells")
plt.ylabel("predicted formation\nenergy (eV)")
plt.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False);

# %%
print(f"from {diluted[0]:.2f} eV in {cells[0]} x {cells[0]} cells to {diluted[-1]:.2f} eV in "
      f"{cells[-1]} x {cells[-1]}; without a defect {pristine:.2f} eV")

# %% [markdown]
# The network was trained on small cells only. In a large one the defect drowns among the others, and
# the prediction drifts to what the network says of a perfect sheet, which it has never seen and which
# by definition costs nothing. The next notebook mends both: attention reaches every atom, and the
# read-out knows which atoms are the defect.
#
# ## 7 · Train the whole baseline (optional)
#
# With `retrain = True` in the cell *parameters* the next cell trains the shipped configuration anew on
# `dataset`, all training rows and epochs. An interrupted training goes on where it stopped, and a
# finished one is read from its folder. On the demo set it takes about as long as this:

# %%
from defectkit.data.sources import data_folder
from defectkit.training.prepared import prepare

minutes = baseline.summary["epochs"] * baseline.summary["train_s_per_epoch"] / 60
print(
    f"on the demo set {baseline.summary['epochs']} epochs, {minutes:.0f} minutes on the machine "
    "that made the shipped run"
)
if retrain:
    config = with_values(baseline.config, {"data.name": dataset})
    folder = data_folder() / "runs" / f"alignn-{Path(dataset).name}-{seed}"
    own = train(prepare(config), folder, seed, progress=False, callbacks=(LiveCurve(),))
    plots.results.parity(
        own.part("test"), data.label_source, title=f"ALIGNN on {dataset}, test rows"
    )

# %% [markdown]
# ## Summary
#
# * A layer passes news one cutoff further. What lies beyond layers times cutoff does not exist.
# * Distances alone leave twins; angles part most of them, but a gated mean cannot weigh equals.
# * The line graph makes angles affordable to think about, not cheap: they outnumber the bonds.
# * Judge a model beside the mean, beside trees, over seeds, and by host, type and size of the label.
# * Labels here are the ones named on every axis. On the demo set they are CHGNet's, not DFT's, and so
#   is every error.
#
# **Further reading.** K. Choudhary and B. DeCost, *Atomistic line graph neural network*, npj Comput.
# Mater. **7**, 185 (2021). V. P. Dwivedi et al., *Benchmarking graph neural networks*,
# arXiv:2003.00982. S. N. Pozdnyakov et al., *Incompleteness of atomic structure representations*,
# Phys. Rev. Lett. **125**, 166001 (2020). J. Gilmer et al., *Neural message passing for quantum
# chemistry*, ICML 2017.
