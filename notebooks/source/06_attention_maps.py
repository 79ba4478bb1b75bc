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
# # 06 · Look inside: what attention shows, and what it does not
#
# **Goals.** Take the attention weights out of a trained model, say exactly what they are, and draw
# them on the crystal; then test whether they explain anything: against distance, against chance,
# against a model that has learned nothing, against two other ways of asking the model, and against
# what the atoms really did.
#
# **Prerequisites.** Notebooks 00 to 04.
#
# **Time.** 80 minutes for the core, 90 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # False: the tables of sections 4 to 9 are measured anew, which takes a while
seed = 0  # of the shipped model, 0, 1 or 2; the kept tables are about 0

# %%
from defectkit.bench import studies
from defectkit.widgets.lesson import *

# %%
torch.set_num_threads(1)  # these graphs are small: a second thread costs more than it gains
data = clean(load(dataset), "strict").dataset
teach.use(data)
run = shipped_run("hybrid", seed)
model, card = load_model(run.folder)
known = data_of(run, data)  # what the model was trained and tested on
kept = quick and seed == 0
table = benchmark("attention") if kept else pd.DataFrame(studies.attention_rows(seed))
trained = table[table.model == "trained"].set_index("uid")
graphs = {
    uid: build_graph(known[uid], card.graph, known.hosts[known[uid].host]) for uid in trained.index
}
print(f"{len(data):,} clean rows, labels from {data.label_source}. {about(run, data)}")
print(
    f"the hybrid, trained on {card.label_source} labels; {len(graphs)} structures of its test part"
)

# %% [markdown]
# All numbers here are about one shipped model, the hybrid of notebook 04, and about test structures
# of the demo set that it has never seen, whatever `dataset` is.
#
# ## 1 · What the weights are
#
# In every global layer $l$ and every head $h$, node $i$ gives node $j$ the weight
# $\alpha^{(l,h)}_{ij}$, and a row sums to one. Here is a structure of which one atom is missing; the
# vacancy is a node.

# %%
from defectkit import explain

vacancies = trained.index[trained.defecttype == "vacancy"]
uid = next(one for one in vacancies if graphs[one].is_vacancy.sum() == 1)
graph = graphs[uid]
maps = explain.attention_maps(model, graph)  # (layers, heads, n, n)
print(
    f"{uid}: {graph.num_nodes} nodes, weights {maps.shape}, rows sum to "
    f"{maps.sum(axis=-1).round(6).min()}"
)
plots.explain.head_maps(graph, maps);

# %% [markdown]
# Each map shows whom the *defect* listens to in one head: bright is heard, dark is not. Red rims mark the
# defect, the cross its vacancy, the dotted line the cell. The scale is the weight times the number of
# nodes, so that **one is uniform**: as much as everybody would get from a listener without opinion. It is
# logarithmic: equal steps of colour are equal factors, or all but the defect's own nodes would be dark.
#
# One picture of a model needs one number an atom, and there are several ways to get it. They are
# choices, and whoever shows a map should say which one it is:
#
# * the **mean** over heads and layers, or a single head of a single layer;
# * **rollout** (Abnar and Zuidema, 2020), which follows the way through all layers. Half of every layer is
#   the residual connection, the other half the mean over heads:
#   $\mathbf R = \prod_l \frac12 \big(\mathbf 1 + \frac1H \sum_h \boldsymbol\alpha^{(l,h)}\big)$, the last layer on the left;
# * and **who asks**. In this model only the nodes of the defect do, and all nodes answer; in one where all
#   ask, the mean over all of them would be another choice.
#
# **Exercise 06-1.** Write `rollout(maps)` for an array of shape (layers, heads, n, n); the result is
# (n, n).

# %% tags=["solution"]
def rollout(maps):
    identity = np.eye(maps.shape[-1])
    total = identity
    for alpha in maps.mean(axis=1):
        total = (identity + alpha) / 2 @ total
    return total


assert np.allclose(rollout(np.eye(2)[None, None]), np.eye(2))  # one layer, one head: (1, 1, 2, 2)

# %%
check("06-1", rollout)

# %% [markdown]
# **Exercise 06-2.** Write `heard(matrix, defect)`: from one matrix (n, n) and the numbers of the defect's
# nodes, the weight that every node gets from them on average, times n. The result is (n,).

# %% tags=["solution"]
def heard(matrix, defect):
    return matrix[defect].mean(axis=0) * len(matrix)


assert heard(np.full((2, 2), 0.5), np.array([True, False])).tolist() == [1.0, 1.0]

# %%
check("06-2", heard)

# %% [markdown]
# With your two functions, the same structure in three readings. *Guess first:* what will rollout show,
# in a model with as many global layers as this one?

# %%
defect = np.flatnonzero(graph.is_defect.numpy())
print(f"{len(maps)} global layer(s), {maps.shape[1]} heads")
if heard is not ... and rollout is not ...:
    mean = maps.mean(axis=(0, 1))
    plots.explain.score_maps(graph, {"mean of all heads": heard(mean, defect),
                                     "one head": heard(maps[0, 0], defect),
                                     "rollout": heard(rollout(maps), defect)})

# %% [markdown]
# In a single layer rollout is half identity, half the mean: the defect looks at itself by
# construction, whatever was learned. In this model the mean does so as well; section 4 asks who taught it.
# From here on "attention" is the mean over heads.
#
# One thing no definition can mend. Before the attention, local layers have passed messages: the vector
# of atom $j$ already holds news of its neighbours. A weight on node $j$ is a weight on what $j$ has
# gathered, not on atom $j$ alone.
#
# ## 2 · On the crystal
#
# The same in three dimensions. Turn it; click an atom to read its weight. Where this page has no kernel
# or no WebGL, a picture stands in its place.

# %%
from defectkit.widgets import StructureView

weights = explain.seen_by(explain.combine(maps), defect) * graph.num_nodes
StructureView(graph, weights, plots.explain.RELATIVE)

# %% [markdown]
# The explorer links three views: choose a structure (one of each type of defect), a layer, a head, and
# who asks; a click on a node of the defect lets it ask alone. Left the lattice from above, right weight against
# distance. *Guess first:* does the weight fall with the distance?

# %%
teach.guess("06-a", ("for every type of defect", "for some types", "for none"))

# %%
from defectkit.widgets import AttentionExplorer

chosen = trained.reset_index().groupby("defecttype").uid.first()
chosen["vacancy"] = uid
several = [graphs[one] for one in chosen[::-1]]
AttentionExplorer(model, several)

# %%
from defectkit.widgets import HeadGallery

HeadGallery(model, several)

# %% [markdown]
# And a structure of `dataset`, where that is another set? The model can be asked about any structure. That it
# learned from other rows, with labels of another kind, has to stand beside the picture.

# %%
record = data[data.frame.sample(1, random_state=seed).index[0]]
if known is data:
    print(
        "`dataset` is the set that this model learned from; name another one to see a "
        "structure of it"
    )
elif record.host not in data.hosts:
    print(
        f"'{data.name}' has no pristine {record.host}, so nothing says which atoms of "
        f"{record.uid} are the defect"
    )
else:
    own = build_graph(record, card.graph, data.hosts[record.host])
    given = explain.seen_by(
        explain.combine(explain.attention_maps(model, own)), np.flatnonzero(own.is_defect.numpy())
    )
    ax = plots.explain.lattice_map(own, given * own.num_nodes)
    ax.set_title(
        f"{in_figure(record.uid)}, a row of '{in_figure(data.name)}';\nthe model learned from "
        f"{card.label_source} labels",
        fontsize=10,
    )

# %% [markdown]
# It is easy to find a story in such pictures. A bright atom beside the defect: "the model has found the
# broken bond". A bright atom far away: "the model sees the elastic field". Both stories can be told
# about nearly every picture, and that is the trouble. The rest of this notebook asks for numbers.
#
# ## 3 · Weight against distance
#
# A defect disturbs its surroundings, and the disturbance dies away. If attention followed it, the weight
# would fall with the distance, over a length that says how far the defect reaches:
# $w(d) = a\, e^{-d/\ell} + c$.
#
# **Exercise 06-3.** Somebody fits $w = 4\, e^{-d/2\,\mathrm{Å}} + 0.5$. At which distance, in Å, is the
# weight above the floor a tenth of what it is at 2 Å?

# %% tags=["solution"]
answer = 2 + 2 * np.log(10)

# %%
check("06-3", answer)

# %% [markdown]
# Now all test structures at once, every node a dot.

# %%
looked = explain.attention_table(model, graphs.values())
looked["defecttype"] = looked.uid.map(trained.defecttype)
fit = explain.decay_length(looked, resamples=100)
plots.explain.weight_by_distance(looked, fit=fit);

# %%
lengths = explain.decay_lengths(looked, "defecttype", resamples=100)
lengths[["length", "lo", "hi", "settled", "near", "far", "r2", "structures"]].style.format(
    precision=2
)

# %%
falls = lengths.near > lengths.far
print(f"falls from near to far: {', '.join(lengths.index[falls])}")
print(
    f"with a settled length: {', '.join(lengths.index[lengths.settled]) or 'none'}; "
    f"the curves explain {lengths.r2.min():.0%} to {lengths.r2.max():.0%} of the scatter"
)
teach.reveal(
    "06-a",
    "for every type of defect" if falls.all() else "for some types" if falls.any() else "for none",
)

# %% [markdown]
# `length` is in Å, with its interval (95 %) from a bootstrap over structures; `near` and `far` are the
# curve at the shortest and the longest distance; `r2` says how much of the scatter the curve explains.
# A length is `settled` if its interval ends within the distances that the cells have. If it does not,
# the data hold no length, and a plotted curve would be decoration. And where it does, look at `r2`: what
# falls is a mean, and the distance says next to nothing about the weight of a single atom. The same by
# rings, every structure counting once:

# %%
plots.explain.rings(dict(list(looked.groupby("defecttype"))));

# %% [markdown]
# ## 4 · Against chance, and against a model that knows nothing
#
# A share of 30 % for the defect and its first shell sounds impressive until one counts: in a small cell,
# they may be 20 % of all nodes.
#
# **Exercise 06-4.** A sheet of MoS$_2$ of 3 x 3 cells lacks one sulfur atom, and the vacancy is a
# node. What is the share of the vacancy and its nearest neighbours together if every node gets the same?

# %% tags=["solution"]
answer = (1 + 3) / 27

# %%
check("06-4", answer)

# %% [markdown]
# There is a second null. A model with *random weights* has attention maps as well, of the same
# architecture, from the same structures. What its maps show, nobody has learned. *Guess first:* does training
# put more weight on the defect and its first shell, or less?

# %%
untrained = table[table.model == "untrained"].set_index("uid")
named = {"attention": "attention", "occlusion": "occlusion", "gradient": "gradient"}
bars = {f"{title}, {when}": explain.near(part)[score]
        for score, title in named.items()
        for when, part in (("trained", trained), ("untrained", untrained))}
bars["true relaxation"] = explain.near(trained)["relaxation"]
plots.explain.share_bars(bars);

# %%
shares = pd.concat({name: found.reset_index() for name, found in bars.items()}, names=["score"])
explain.summary(shares.reset_index(), "gain", "score").set_index("score").style.format(
    precision=2).set_caption("times the uniform share: mean and interval (95 %) over structures")

# %%
gain, before = (bars[f"attention, {when}"].gain.mean() for when in ("trained", "untrained"))
print(
    f"attention on the defect and its first shell: {gain:.2f} times the uniform share, before "
    f"training {before:.2f}"
)

# %% [markdown]
# More *before* training than after. Nobody learned to look at the defect: $\psi$ gives its nodes a head start
# before the first step (notebook 04), and training gave a part of it back. Who shows the map of the trained
# model alone shows mostly what was put in by hand. The other bars are explained in section 6. By type of
# defect:

# %%
by_type = explain.near(trained)["attention"].join(trained.defecttype)
explain.summary(by_type, "gain", "defecttype").set_index("defecttype").style.format(precision=2)

# %% [markdown]
# ## 5 · What attention sorts by (optional)
#
# Look again at the maps of section 1: most of the weight stays on the vacancy itself. Of the host's atoms those
# beside it get most, but they are also of one *element*. Which of the two does attention go by? Here is that
# structure with its atoms sorted by element:

# %%
nodes = explain.node_table(graph).assign(relative=weights)
plots.explain.by_element(nodes);

# %%
place = nodes.shell.map({1: "first shell", 2: "further out"})
nodes[~nodes.defect].groupby(["symbol", place]).relative.agg(["mean", "size"]).style.format(
    "{:.2f}", subset=["mean"]
)

# %% [markdown]
# By both. Atoms of the first shell get more than atoms of their own element further out, where there are
# such; and far from the defect, where the place says little, one element still gets more than the other.
#
# How much of a score's variance lies *between* elements? Put the mean of its element in the place of
# every atom. The variance of these means, over the variance of the score, is one if all atoms of an
# element have the same score, wherever they are.
#
# **Exercise 06-5.** Write `explained(score, symbol)` for two arrays (n,); the result is that share.

# %% tags=["solution"]
def explained(score, symbol):
    means = pd.Series(score).groupby(symbol).transform("mean")
    return np.var(means) / np.var(score)


assert np.isclose(explained(np.array([1.0, 1.0, 3.0]), np.array(["S", "S", "Mo"])), 1.0)

# %%
check("06-5", explained)

# %%
if explained is not ...:
    host = nodes[~nodes.defect]
    print(
        f"{uid}: {explained(host.relative.to_numpy(), host.symbol.to_numpy()):.2f} of the "
        "variance on the host's atoms"
    )
rows = []
for when, part in (("trained", trained), ("untrained", untrained)):
    for score in ("attention", "occlusion", "gradient", "relaxation"):
        if (when, score) != ("untrained", "relaxation"):
            found = part[[f"element {score}"]].set_axis(["share"], axis=1)
            rows.append(
                found.assign(
                    score=f"{score}, {when}" if score != "relaxation" else "true relaxation"
                )
            )
print(f"by chance: {trained.chance.mean():.2f}")
explain.summary(pd.concat(rows), "share", "score").set_index("score").style.format(precision=2)

# %%
kinds = {"element": ["symbol"], "place: first shell or not": ["shell"], "both": ["symbol", "shell"]}
parts = {name: explain.group_shares(looked, "relative", by) for name, by in kinds.items()}
split = pd.concat(parts, names=["explained by"]).reset_index()
split = split[
    split.uid.isin(parts["element"].share.dropna().index)
]  # hosts of more than one element
explain.summary(split, "share", "explained by").set_index("explained by").assign(
    chance=split.groupby("explained by").chance.mean()
).style.format(precision=2).set_caption("attention, trained")

# %% [markdown]
# The element explains more than the place, and the two together most of what there is to see. Before training
# the map was nearly one of the elements alone; the place is what was learned. A picture that colours atoms by
# their element and by whether they touch the defect would look much like a heat map of attention, and nobody
# would take that for an explanation.
#
# ## 6 · Ask the model, ask the crystal
#
# Attention is one step on the way to an answer. Other questions go to the answer itself, the energy $\hat E$:
#
# * **occlusion** (Zeiler and Fergus, 2014): silence one atom, so that no other node hears of it, and see
#   by how many eV the prediction changes;
# * **gradient** (Simonyan et al., 2014): $|\partial \hat E / \partial \mathbf r_i|$ in eV/Å, how much the
#   prediction changes when the atom moves a little;
# * and one that asks no model: the **true relaxation**, how many Å the atom moved when the structure was
#   relaxed. That is known from the data, and the model has not seen it.
#
# For our structure (a vacancy has nothing that could have moved, and stays white):

# %%
scores = explain.score_table(model, [graph], {uid: known[uid]})
plots.explain.score_maps(graph, {"attention (uniform: 1)": scores.attention * len(scores),
                                 "occlusion (eV)": scores.occlusion,
                                 "gradient (eV/Å)": scores.gradient,
                                 "true relaxation (Å)": scores.relaxation});

# %% [markdown]
# Scores have different units, so we compare *ranks*: does the atom that is first in one come early in
# the other? Spearman's coefficient is the correlation of the ranks; one for the same order, zero for
# no relation, minus one for the reverse.
#
# **Exercise 06-6.** Write `spearman(first, second)` for two arrays (n,) without ties.

# %% tags=["solution"]
def spearman(first, second):
    ranks = [np.argsort(np.argsort(x)) for x in (first, second)]
    return np.corrcoef(ranks)[0, 1]


assert np.isclose(spearman(np.array([1.0, 5.0, 9.0]), np.array([2.0, 3.0, 50.0])), 1.0)

# %%
check("06-6", spearman)

# %%
if spearman is not ...:
    for score in ("occlusion", "gradient"):
        print(f"{uid}: attention and {score} {spearman(scores.attention, scores[score]):+.2f}")

# %% [markdown]
# One structure says little. Within each of the test structures, then the mean over all of them, with
# its interval (95 %). *Guess first:* which pair agrees best, and where is attention?

# %%
teach.guess(
    "06-b",
    (
        "one with attention",
        "occlusion and gradient",
        "gradient and relaxation",
        "occlusion and relaxation",
    ),
)

# %%
pairs = [("attention", other) for other in ("occlusion", "gradient", "relaxation")]
pairs += [("occlusion", "gradient"), ("occlusion", "relaxation"), ("gradient", "relaxation")]


def agreement(part, way="all"):
    """Mean rank correlation of every pair of scores."""
    found = explain.summary(explain.correlations(part, way), "rho", ["first", "second"])
    return found.set_index(["first", "second"]).loc[pairs].reset_index()


names = {"relaxation": "true relaxation"}
everywhere = agreement(trained)
plots.explain.agreement_dots({"trained": everywhere, "untrained": agreement(untrained)}, names);

# %%
for pair in everywhere.sort_values("mean", ascending=False).itertuples():
    print(
        f"{pair.first:>10} and {pair.second:<10} {pair.mean:+.2f} ({pair.lo:+.2f} to "
        f"{pair.hi:+.2f})"
    )
first = everywhere.loc[everywhere["mean"].idxmax(), ["first", "second"]]
teach.reveal("06-b", "one with attention" if "attention" in first.values else " and ".join(first))

# %% [markdown]
# Two things stand out. Attention agrees with all three, if less than those agree with each other. One could
# stop here and publish. But the *untrained* model is not at zero everywhere: its gradient agrees with the
# true relaxation, too. It has learned nothing, but gradients are larger where atoms are close together,
# and that is near the defect, where atoms move. A test that an untrained model passes proves little about
# what was learned (Adebayo et al., 2018). What counts is the step from the one dot to the other.
#
# And near the defect everything is larger. Do the scores agree only by that? *Guess first,* then look at host
# atoms alone, at equal distance from the defect:

# %%
equal = {"trained": agreement(trained, "given"), "untrained": agreement(untrained, "given")}
plots.explain.agreement_dots(equal, names);

# %%
left = equal["trained"]["mean"] / everywhere["mean"]
for group, rows in left.groupby(
    np.where(everywhere["first"] == "attention", "attention", "the others")
):
    print(
        f"at equal distance {rows.min():.0%} to {rows.max():.0%} is left of the agreement, "
        f"pairs of {group}"
    )

# %% [markdown]
# Little is left of attention. It knows *how near to the defect* an atom is, and so do the others; among atoms equally
# far away it does not know which one matters, no better than the untrained model does. Occlusion, gradient
# and relaxation still agree with each other.
#
# ## 7 · Directions (optional)
#
# Strain in a crystal runs along lattice directions. Does attention prefer one? For every structure, the
# mean score of atoms within 15° of a direction, over that of all atoms at the same distance: one means no
# preference, and where the interval holds one, none is shown.

# %%
cells = {name: one.cell[0].numpy() for name, one in graphs.items()}
lean = explain.anisotropy(looked, cells)
explain.summary(lean, "ratio", "direction").set_index("direction").style.format(precision=3)

# %% [markdown]
# ## 8 · Switch it off
#
# The bluntest question: who needs it? We take parts out of the scores of the *trained* model, without training
# again: $\varphi$, which knows the distance, $\psi$, which knows the kinds of sites, or query times key,
# without which nobody has a say of their own. *Guess first:* which one is missed most?

# %%
teach.guess("06-c", ("without phi", "without psi", "without content"))

# %%
table["error"] = (table.predicted - table.label).abs()
table["near"] = table["defect attention"] + table["first_shell attention"]
error = explain.summary(table, "error", "model").set_index("model")
near = explain.summary(table, "near", "model").set_index("model")
pd.concat(
    {
        f"error (eV), {card.label_source}": error[["mean", "lo", "hi"]],
        "share on the defect and its first shell": near[["mean", "lo", "hi"]],
    },
    axis=1,
).style.format(precision=3)

# %%
grows = (
    error["mean"]
    .filter(like="without")
    .sub(error.loc["trained", "mean"])
    .sort_values(ascending=False)
)
print("the error grows by", ", ".join(f"{value:+.3f} eV {name}" for name, value in grows.items()))
teach.reveal("06-c", grows.index[0])

# %% [markdown]
# The intervals are wide since structures differ; the differences between two rows are about the same
# structures, and far sharper. They come with the verdict below.
#
# **Exercise 06-7.** By how many percent of the trained model's mean error does the error grow without
# query times key? (The check knows the kept table, that of `seed = 0`.)

# %% tags=["solution"]
answer = 100 * (error.loc["without content", "mean"] / error.loc["trained", "mean"] - 1)

# %%
check("06-7", answer)

# %% [markdown]
# Mind the difference to notebook 04b. There a part was left out *and the model trained anew*; what it
# did, others could learn to do. Here the trained model is made to do without.
#
# ## 9 · The verdict
#
# Everything that one would like attention to show, in one table. An expectation `holds` if the lower end
# of its interval is above what it has to exceed.

# %%
verdict = explain.expectations(table, lengths)
verdict.style.format(precision=4)

# %%
for holds, rows in verdict.groupby("holds", sort=False):
    print(f"{'holds' if holds else 'does not hold'}: {'; '.join(rows.index)}")

# %% [markdown]
# The list is split, and the line runs where section 6 drew it. Attention looks at the defect because it began
# there, and has learned which atoms are near; the model needs its query times key, and a map of it resembles a
# map of what the energy depends on. But it resembles it by the distance and by the element. Which of two atoms
# at the same distance matters, or moves, it hardly says, and that is what one opens a map for. In this model
# **attention is not explanation**; it is a rough sketch of where the defect lies, which was known before.
#
# This is about one small model, on small cells, with labels of a potential. In such cells local
# layers reach nearly everything, and the ablation of notebook 04b could do without attention. A larger cell, a
# deeper model or other labels may change it again; the test stays the same. Whether attention can explain at
# all is disputed (Jain and Wallace, 2019; Wiegreffe and Pinter, 2019), and both sides would ask for the nulls
# of section 4.
#
# What to show instead? Occlusion and gradients ask the answer itself, and agree with each other and with the
# true relaxation better than before training. They have weak points too: to silence an atom makes a
# structure that no training row resembles, and a gradient sees only small steps.
#
# ## 10 · Look for yourself (optional)
#
# Filter the database, click a row, see how far its atoms moved.

# %%
from defectkit.widgets import DatabaseBrowser

browser = DatabaseBrowser(known)
browser.filters["defecttype"].value = "vacancy"
browser.rows.value = browser.found.index[0]
browser

# %% [markdown]
# ## Summary
#
# * An attention map is a choice: which layers and heads, which combination, who asks. Say it.
# * Draw it, but then test it: against uniform, against an untrained model, against other questions to the
#   model, against the crystal.
# * In the shipped hybrid, attention looks at the defect less than before it learned anything, orders the
#   host's atoms by element more than by place, has no settled decay for every type of defect, and agrees with occlusion, gradients and relaxation hardly further than by distance.
# * Occlusion and gradients agree with each other and with what atoms do; part of that is geometry, which
#   an untrained model knows as well.
# * A part of a model that can be switched off without harm explains nothing.
#
# **Further reading.** S. Jain and B. C. Wallace, *Attention is not explanation*, NAACL 2019,
# arXiv:1902.10186. S. Wiegreffe and Y. Pinter, *Attention is not not explanation*, EMNLP 2019,
# arXiv:1908.04626. S. Abnar and W. Zuidema, *Quantifying attention flow in transformers*, ACL 2020,
# arXiv:2005.00928. J. Adebayo et al., *Sanity checks for saliency maps*, NeurIPS 2018,
# arXiv:1810.03292. M. D. Zeiler and R. Fergus, *Visualizing and understanding convolutional networks*,
# ECCV 2014, arXiv:1311.2901. K. Simonyan, A. Vedaldi and A. Zisserman, *Deep inside convolutional
# networks*, ICLR 2014, arXiv:1312.6034.
