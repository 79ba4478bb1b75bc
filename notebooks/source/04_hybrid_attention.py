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
# # 04 · The hybrid: attention that knows its crystal
#
# **Goals.** See what a cutoff cannot; compute attention by hand, then let it know distances, images
# and vacancies; get angles for the price of bonds; build a model that is local where chemistry is
# local and global where physics is global; train it.
#
# **Prerequisites.** Notebooks 00 to 03.
#
# **Time.** 80 minutes for the core, 100 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # False: the training in section 7 has more rows and epochs
seed = 0

# %%
from defectkit.widgets.lesson import *

# %%
torch.set_num_threads(1)  # these graphs are small: a second thread costs more than it gains
data = clean(load(dataset), "strict").dataset
teach.use(data)
frame = data.frame
shipped = shipped_run("alignn")
trained, card = load_model(shipped.folder)
features = trained.inputs.features  # (119, F) numbers of the elements
print(f"{len(data):,} clean rows, labels from {data.label_source}. {about(shipped, data)}")

# %% [markdown]
# ## 1 · Why a cutoff cannot see strain
#
# A missing sulfur atom in a wide sheet of MoS$_2$, twice. In the second sheet a ring of atoms, more than
# 12 Å away, is pushed outwards by up to 0.2 Å: stretched on its inner side, compressed on its outer
# side. Nothing else changes, not even the cell. A bending, a second defect or a step in the substrate
# does such things to a sheet, and the defect's energy depends on it.

# %%
from defectkit.graphs.geometry import local_strain

unit = HOSTS["MoS2"].unit_cell()
site = find_site(unit, "vacancy", "S")
plain = GraphConfig(cutoff=5.0, angle_cutoff=None)
calm = build_graph(make_defect(unit, (15, 15, 1), site, "").atoms, plain, unit, dtype=torch.float64)
gap = int(calm.is_vacancy.nonzero()[0])
shift, apart = periodic.minimum_image(calm.pos.numpy(), calm.cell[0].numpy(), [True, True, False])
offset = calm.pos.numpy() + shift[gap] @ calm.cell[0].numpy() - calm.pos[gap].numpy()
distance = apart[gap]

inner, outer = 12.0, 23.5  # Å
phase = np.clip((distance - inner) / (outer - inner), 0, 1)
push = 0.2 * np.sin(np.pi * phase)[:, None] ** 2 * offset / np.maximum(distance, 1)[:, None]
ringed = calm.clone()
ringed.pos = calm.pos + torch.tensor(push) * torch.tensor([1.0, 1.0, 0.0])
plots.attention.strain_map(offset, local_strain(ringed)[0].numpy(), reach=2 * plain.cutoff);

# %% [markdown]
# Two models with random weights look at both sheets: two local layers with a cutoff of 5 Å, and the
# same two with one layer of attention on top. We compare what each of them knows of every site before
# the read-out. *Guess first:* at which distances from the defect does either notice anything?

# %%
teach.guess("04-a", ("both everywhere", "local layers far out only", "neither near the defect"))

# %%
from defectkit.explain import attention
from defectkit.models.hybrid import Hybrid

small = {"hidden": 32, "local_layers": 2, "lattice": False}
changes = {}
for title, layers in (("local layers only", 0), ("and one of attention", 1)):
    torch.manual_seed(seed)
    model = Hybrid(features, plain, global_layers=layers, **small).double().eval()
    before, after = (attention.node_vectors(model, graph) for graph in (calm, ringed))
    changes[title] = (after - before).norm(dim=1).numpy()
plots.attention.change_by_distance(distance, changes, inner);

# %%
for title, change in changes.items():
    print(f"{title}: something has changed from {distance[change > 0].min():.1f} Å on")
blind, seeing = (
    (change > 0) & (distance < 1) for change in changes.values()
)  # at the defect itself
teach.reveal(
    "04-a",
    "both everywhere"
    if blind.any()
    else "local layers far out only"
    if seeing.any()
    else "neither near the defect",
)

# %% [markdown]
# For the local layers, the two sheets are the *same* sheet as far as the defect is concerned: not
# nearly the same, but equal in every digit. No training can help, for there is nothing to learn from.
# (The read-out at the end gathers all atoms and would still see that *some* are strained, but not how far
# they are from the defect.) More layers would push the limit outwards, one cutoff at a time, as in
# notebook 03; attention has no limit to push.
#
# ## 2 · Attention, by hand
#
# Every atom $i$ asks with a *query* $\mathbf q_i$, answers with a *key* $\mathbf k_i$, and has a *value*
# $\mathbf v_i$ to pass on. All three are linear maps of its vector $\mathbf h_i$. The weights say who is
# heard, and they sum to one over all atoms (Vaswani et al., 2017):
#
# $$\alpha_{ij} = \mathrm{softmax}_j \left( \frac{\mathbf q_i \cdot \mathbf k_j}{\sqrt d} \right), \qquad
# \mathbf h_i' = \sum_j \alpha_{ij} \mathbf v_j.$$
#
# | | in the network | in the crystal |
# |:--|:--|:--|
# | query | what atom $i$ looks for | the probe: what a defect would couple to |
# | key | what atom $j$ shows | the response that atom $j$ would give |
# | score | $\mathbf q_i \cdot \mathbf k_j$ | the strength of the coupling of the two |
# | value | what atom $j$ sends | what is passed on: charge, displacement, spin |
#
# The right column is a way of reading, not a theorem: nothing forces a trained network to use its
# heads in this way. Now four atoms on a periodic line, 6 Å long. D is a vacancy. *Guess first:* how
# far is D from A?

# %%
teach.guess("04-b", (2, 4, 6))  # Å

# %%
x, cell_length, names = np.array([0.0, 1.0, 2.0, 4.0]), 6.0, list("ABCD")
plots.attention.chain(x, cell_length, names, vacancies=[3]);

# %%
teach.reveal("04-b", min(x[3] - x[0], cell_length - x[3] + x[0]))

# %% [markdown]
# D is 2 Å from A, to the left: its nearest image lies in the next cell. (Inside the cell it would be 4 Å.)
#
# Queries, keys and values are single numbers here ($d = 1$). The keys hold $\ln 2$ so that every
# $\exp$ is a power of two. Row A by hand: the scores are $0, \ln 2, 0, 2 \ln 2$, their exponentials
# 1, 2, 1 and 4, the sum 8, the weights 1/8, 2/8, 1/8 and 4/8.
#
# Plain attention does not know *where* the atoms are. A **bias** on the score tells it:
#
# $$\alpha_{ij} = \mathrm{softmax}_j \left( \frac{\mathbf q_i \cdot \mathbf k_j}{\sqrt d}
# + \varphi\big(d_\mathrm{pbc}(i, j)\big) + \psi(\mathrm{kind}_i, \mathrm{kind}_j) \right).$$
#
# $\varphi$ is a learned function of the distance to the nearest image, $\psi$ a learned table: how
# much a host atom minds a vacancy, a vacancy an adsorbate, and so on. Here $\varphi = -d \ln 2$ per Å,
# so that every ångström halves the weight, and $\psi = \ln 2$ from atoms towards the vacancy.

# %%
import math

ln2 = math.log(2)
query = torch.tensor([1.0, 2.0, 0.0, 1.0], dtype=torch.float64)[:, None]  # (4, 1)
key = ln2 * torch.tensor([0.0, 1.0, 0.0, 2.0], dtype=torch.float64)[:, None]
value = torch.tensor([8.0, 4.0, 0.0, 2.0], dtype=torch.float64)[:, None]
apart = np.abs(x[:, None] - x)
apart = np.minimum(apart, cell_length - apart)  # the nearest image on a line
phi = -ln2 * torch.tensor(apart)
psi = torch.zeros(4, 4, dtype=torch.float64)
psi[:3, 3] = ln2
score = query @ key.T
steps = {
    "query times key": score,
    "and φ (distance)": score + phi,
    "and ψ (kind)": score + phi + psi,
}
maps = {title: matrix.softmax(dim=1) for title, matrix in steps.items()}
plots.attention.attention_maps({title: m.numpy() for title, m in maps.items()}, names);

# %%
pd.DataFrame({title: (m @ value)[:, 0] for title, m in maps.items()}, names).round(3)

# %% [markdown]
# **Exercise 04-1.** Suppose that a careless program took the distance inside the cell, 4 Å from A to
# D, in place of the nearest image. Which weight would D have in row A, with $\varphi$ and without
# $\psi$? By hand.

# %% tags=["solution"]
answer = 4 / 16 / (1 + 2 / 2 + 1 / 4 + 4 / 16)

# %%
check("04-1", answer)

# %% [markdown]
# **Exercise 04-2.** Write `attend(query, key, value, bias)`: `query`, `key` and `value` of shape
# (n, d), `bias` (n, n) with receivers as rows. It returns the new vectors, (n, d).

# %% tags=["solution"]
def attend(query, key, value, bias):
    score = query @ key.T / query.shape[1] ** 0.5
    return (score + bias).softmax(dim=1) @ value


assert attend(*torch.zeros(2, 1, 2), torch.ones(1, 2), torch.zeros(1, 1)).tolist() == [[1, 1]]

# %%
check("04-2", attend)

# %% [markdown]
# **Your function draws** the weights of the chain: move D across the border, and let the bias grow.

# %%
try_out("04-2", attend)

# %% [markdown]
# The kit's layer does the same in several *heads* at once: each has its own part of the vectors and
# its own bias, and a last linear map joins them. On a real defect, head by head with your function:

# %%
from defectkit.models.attention import PairBias, PairInputs, PeriodicAttention

record = data[frame.sample(1, random_state=seed).index[0]]
graph = build_graph(record, GraphConfig(), data.hosts.get(record.host), dtype=torch.float64)
torch.manual_seed(seed)
width, heads, radial = 16, 4, 12
layer = PeriodicAttention(width, heads, PairBias(heads, radial)).double()
pairs = PairInputs(15.0, radial).double()(graph)
h = torch.randn(graph.num_nodes, width, dtype=torch.float64)

# %%
if attend is not ...:
    with torch.no_grad():
        # phi and psi of all pairs, a row of them a receiver: (heads, n, n)
        bias = layer.bias(pairs).T.unflatten(1, (graph.num_nodes, -1))
        # chunk cuts columns into equal parts: first three of them, then one a head
        query, key, value = layer.project(h).chunk(3, dim=1)
        parts = [m.chunk(heads, dim=1) for m in (query, key, value)]  # a part a head
        joined = torch.cat([attend(*qkv, b) for *qkv, b in zip(*parts, bias)], dim=1)
        print(record.name, "· largest difference to the layer's own answer:",
              (layer.out(joined) - layer(h, pairs)).abs().max().item())

# %% [markdown]
# ## 3 · Which images?
#
# Every atom has images without end, and so far attention saw the nearest only. There is another
# reading: listen to *all* images. Their weights add up, so the bias becomes
#
# $$\varphi_{ij} = \ln \sum_{\mathbf n} \exp \varphi\big(|\mathbf r_j + \mathbf n L - \mathbf r_i|\big)$$
#
# with a $\varphi$ that falls off, or the sum would have no end (Crystalformer, Taniai et al., 2024). Here
# is who an atom of tungsten in MoS$_2$ listens to, with a $\varphi$ that halves the weight every 4 Å.

# %%
torch.manual_seed(seed)
doped = unit.repeat((3, 3, 1))
middle = 4 * len(unit) + list(unit.symbols).index("Mo")  # molybdenum of the fifth of nine cells
doped.symbols[middle] = "W"
doped.rattle(0.05, seed=seed)
readings = {
    "minimum image": plain,
    "all images within 12 Å": GraphConfig(angle_cutoff=None, image_radius=12.0),
}
seen = {
    title: build_graph(doped, config, dtype=torch.float64) for title, config in readings.items()
}
plots.attention.images_heard(seen, middle, lambda d: 2.0 ** (-d / 4));

# %% [markdown]
# **Exercise 04-3.** A single atom on a line, with its own images every 3 Å to both sides without
# end, and the $\varphi = -d \ln 2$ per Å of section 2. How large is $\sum_n \exp \varphi$, the atom
# itself included? (A geometric series on either side.)

# %% tags=["solution"]
answer = 1 + 2 * (1 / 8) / (1 - 1 / 8)

# %%
check("04-3", answer)

# %% [markdown]
# The same crystal can be written with one cell, or with two or four copies of it. Nothing physical
# changes. We repeat the cell above and look at the vectors of the same 27 sites. *Guess first:* which
# reading gives the same vectors again? (The layers are untrained; what a trained one says would differ
# more.)

# %%
teach.guess("04-c", ("minimum image", "all images", "both", "neither"))

# %%
repeats = {"2 x 1 cells": (2, 1, 1), "2 x 2 cells": (2, 2, 1)}
found = pd.DataFrame(index=list(repeats), columns=list(readings), dtype=float)
for title, config in readings.items():
    torch.manual_seed(seed)
    images = "sum" if config.image_radius else "minimum"
    model = Hybrid(features, config, images=images, global_layers=1, **small).double().eval()
    once = attention.node_vectors(model, build_graph(doped, config, dtype=torch.float64))
    for name, repeat in repeats.items():
        larger = build_graph(doped.repeat(repeat), config, dtype=torch.float64)
        again = attention.node_vectors(model, larger)[: len(once)]
        found.loc[name, title] = ((again - once).norm(dim=1) / once.norm(dim=1)).max().item()
found.style.format("{:.0e}").set_caption("largest relative change of a site's vector")

# %%
same = found.max() < 1e-6
teach.reveal("04-c", "both" if same.all() else "neither" if not same.any() else
             "minimum image" if same.iloc[0] else "all images")

# %% [markdown]
# The sum over images answers for the *crystal*: what is left is rounding. The minimum image answers
# for the *cell*: repeat it, and four times as many atoms share the weights, the far ones among them.
#
# Is that a fault? Think of what the labels are. DFT, or here the potential that made the labels, does
# not compute a lone defect. It computes a periodic *array* of defects, and the images interact through
# strain and charge. A row of the database belongs to its cell. And within such a row, "long range"
# cannot mean much more than half the way to the next image: beyond it everything is a copy. How far
# away is that?

# %%
from defectkit.structures.hosts import shortest_translation

images = pd.Series({uid: shortest_translation(data[uid].atoms.cell.array) for uid in frame.index})
plt.figure(figsize=(8, 3.2), layout="constrained")
plt.hist(
    images,
    np.arange(np.floor(images.min()), images.max() + 0.25, 0.25),
    color=plots.style.LIGHT_BLUE,
    edgecolor="white",
)
plt.axvline(
    images.median(), color=plots.style.ORANGE, ls="--", label=f"median, {images.median():.1f} Å"
)
plt.xlabel("distance from a defect to its nearest image (Å)")
plt.ylabel("rows")
plt.legend(frameon=False);

# %% [markdown]
# **Exercise 04-4.** In a hexagonal cell no point is farther from the defect than $d / \sqrt 3$, where $d$
# is the distance to the nearest image. How many local layers with a cutoff of 5 Å does it take at least,
# by this estimate, until news of the defect can be everywhere in the cell, for *every* row of `images`?
# What does this say about the gain that attention can bring on these data?

# %% tags=["solution"]
answer = math.ceil(images.max() / 3**0.5 / 5)

# %%
check("04-4", answer)

# %% [markdown]
# On such cells a stack of local layers reaches everything too, if slowly and through many hands. The
# case for attention is the larger cell, and the question of notebook 04b is what it brings here.
#
# ## 4 · Angles at the price of bonds
#
# ALIGNN pays for every *pair* of bonds. A sum over all pairs can be had without forming any. Let an
# atom's neighbours have weights $w_j$ and directions $\hat{\mathbf r}_j$. By the addition theorem of the
# spherical harmonics,
#
# $$\sum_{jk} w_j w_k\, P_l(\cos\theta_{jk}) = \frac{4\pi}{2l+1} \sum_m \Big| \sum_j w_j Y_{lm}(\hat{\mathbf r}_j) \Big|^2 .$$
#
# The left side has as many terms as there are pairs; on the right, each bond is visited once. $P_l$
# are the Legendre polynomials, here $l = 0 \ldots 4$: enough to tell most angles apart. First the
# theorem for single pairs of random directions, then the sums.

# %%
from defectkit.models.angular import legendre, spherical_harmonics

generator = torch.Generator().manual_seed(seed)
first, second = (
    torch.nn.functional.normalize(torch.randn(40, 3, generator=generator), dim=1) for _ in "ab"
)
cosine = (first * second).sum(dim=1)
products = (spherical_harmonics(first) * spherical_harmonics(second)).split([1, 3, 5, 7, 9], dim=1)
sums = [4 * math.pi / (2 * degree + 1) * p.sum(dim=1) for degree, p in enumerate(products)]
# torch.stack(..., dim=1) makes each of the sums a column: (pairs, degrees)
plots.attention.addition_theorem(cosine, legendre(cosine), torch.stack(sums, dim=1));

# %% [markdown]
# **Exercise 04-5.** An atom has two bonds at a right angle, with weights 1 and 2. What is
# $\sum_{jk} w_j w_k P_l$ for $l = 0, 1, 2$? The pairs $j = k$ count, and (1, 2) counts as well as
# (2, 1). $P_0 = 1$, $P_1(x) = x$, $P_2(x) = (3x^2 - 1)/2$. Answer with three numbers in round brackets.

# %% tags=["solution"]
answer = (1 + 4 + 2 * 2, 1 + 4, 1 + 4 + 2 * 2 * (-1 / 2))

# %%
check("04-5", answer)

# %%
from defectkit.bench import shortest_ms
from defectkit.models.angular import FastPower, TripletPower


def timed(form, weights, *given):
    """Milliseconds, and what comes out."""
    return shortest_ms(lambda: form(*given)(weights), 1), form(*given)(weights)


rows = []
for n in (6, 12, 24, 48):  # neighbours of each of 100 atoms
    receiver = torch.arange(100).repeat_interleave(n)  # 0 n times, then 1 n times, ...
    arrows = torch.nn.functional.normalize(torch.randn(100 * n, 3, generator=generator), dim=1)
    weights = torch.randn(100 * n, 4, generator=generator)
    bond_pairs = torch.as_tensor(periodic.angle_pairs(receiver.numpy(), np.ones(100 * n, bool)))
    rows.append(("over pairs", n, *timed(TripletPower, weights, arrows, receiver, 100, bond_pairs)))
    rows.append(("by harmonics", n, *timed(FastPower, weights, arrows, receiver, 100)))
times = pd.DataFrame(rows, columns=["part", "n", "ms", "power"])
plots.studies.cost(times, "n", "neighbours of each of 100 atoms", slopes=(1, 2));

# %%
slow, fast = (times[times.part == part].power.tolist() for part in ("over pairs", "by harmonics"))
gap_of_sums = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(slow, fast))
print(f"largest difference of the two, relative: {gap_of_sums:.0e}")
speed = benchmark("throughput")
shown = speed[speed.model.isin(["hybrid", "hybrid triplets"])]
shown.groupby(["model", "hidden"])[["train_ms", "infer_ms"]].median().style.format("{:.2f}")

# %% [markdown]
# The table says what it saves in a whole model, milliseconds a structure. And the twins of notebook 03?
# ALIGNN could not tell 1H from 1T by the first neighbours, for a gated mean of equals is that equal.
# Here stands a *sum*, and it depends on the angles themselves. Same test, with first neighbours
# only, without attention and with random weights:

# %%
from defectkit.structures.hosts import twin_structures

near = GraphConfig(cutoff=2.8, angle_cutoff=2.8, all_pairs=False)
twins = {
    name: build_graph(atoms, near, dtype=torch.float64) for name, atoms in twin_structures().items()
}
energies = {}
for title, angles in (("no angles", None), ("over pairs", "triplets"), ("by harmonics", "fast")):
    torch.manual_seed(seed)
    model = (
        Hybrid(features, near, global_layers=0, angles=angles, angular_cutoff=2.8, **small)
        .double()
        .eval()
    )
    with torch.no_grad():
        energies[title] = {name: model(graph).eform.item() for name, graph in twins.items()}
energies = pd.DataFrame(energies)
differences = {
    "cis and trans": energies.loc["cis"] - energies.loc["trans"],
    "1H and 1T": energies.loc["1H"] - energies.loc["1T"],
}
pd.DataFrame(differences).T.abs().style.format("{:.0e}")

# %% [markdown]
# Without angles, there is no difference but rounding. With them, both pairs of twins are told apart:
# by little, for the weights have learned nothing yet and the envelope is nearly zero so close to the
# cutoff, but by far more than rounding, near $10^{-16}$. Both forms of the sum agree.
#
# ## 5 · The model, block by block
#
# 1. **Inputs**: every node gets the numbers of its element, of what stood there before, and its kind;
#    a linear map makes a vector $\mathbf h_i$ of them.
# 2. **Local blocks**: $\mathbf h_i$ plus bonds and angles inside the cutoff,
#    $\mathbf h_i' = \mathbf h_i + \sigma\big(\sum_j f_\mathrm{bond} + \sum_{jk} f_\mathrm{angle}\big)$. A bond
#    is described by its length in Å and by its length over the sum of the covalent radii.
# 3. **Global blocks**: attention, then a small network on each node that asked. Here all nodes ask; in the
#    model that is shipped, those of the defect do, `GraphConfig(pair_nodes="defects")`: what it is for is
#    their answer, and the cost grows with the number of atoms, not with its square.
# 4. **Read-out**: one vector for the structure. Beside it stand the *ingredients*: mean numbers of the
#    elements that came, of those that went, and of the host, which no message has touched.
# 5. Two *heads*, energy and moment.
#
# Every block *adds* to its input, after normalising it (pre-normalisation, Xiong et al., 2020): deep
# stacks then train from the first step. Here a batch of two rows passes through. *Guess first:* which
# part has most weights, and what comes out of the read-out?

# %%
from torch_geometric.data import Batch

torch.manual_seed(seed)
config = GraphConfig(angle_cutoff=None)
model = Hybrid(features, config, hidden=64, local_layers=2, global_layers=2).eval()
two = frame.sample(2, random_state=seed, replace=len(frame) < 2).index
graphs = [build_graph(data[uid], config, data.hosts.get(data[uid].host)) for uid in two]
batch = Batch.from_data_list(graphs)
parts = attention.part_shapes(model, batch)
plots.attention.model_parts(parts);

# %%
print(
    f"most weights: {parts.weights.idxmax()}, {parts.weights.max():,} of {parts.weights.sum():,}; "
    f"out of the read-out comes {parts.output['readout']}: a row a structure, whatever its "
    "number of atoms"
)

# %% [markdown]
# A global block, followed by hand with its own parts: the atoms listen, then each thinks for itself.

# %%
with torch.no_grad():
    h = model.local_states(batch)
    pairs = model.pairs(batch)
    block = model.global_blocks[0]
    heard = h + block.attention(block.norm(h), pairs)
    thought = heard + block.feed_forward(heard)
    print(
        f"h {tuple(h.shape)}, {len(pairs.sender):,} pairs,",
        "largest difference to the block's own answer:",
        (thought - block(h, pairs)).abs().max().item(),
    )

# %% [markdown]
# The read-out of ALIGNN is the mean over all atoms, and notebook 03 showed a vacancy drown in it.
# Here a softmax over the nodes gives each a learned weight, which knows its kind,
# $\mathbf x = \sum_i w_i \mathbf h_i$, and beside it stands the mean over the defect's own nodes, whatever the
# size of the cell.
#
# **Exercise 04-6.** The largest thing that attention holds is one matrix of weights for every head. How
# many megabytes ($10^6$ bytes) are these for a cell of 1,000 nodes with 4 heads, in numbers of 4 bytes?
# And how many times as many for twice the nodes? Answer with the pair.

# %% tags=["solution"]
answer = (4 * 1000**2 * 4 / 1e6, 4)

# %%
check("04-6", answer)

# %% [markdown]
# ## 6 · What else it is told (optional)
#
# A **vacancy is a node** with a learned vector of its own, so that it can ask and be asked like any
# atom. **Lattice self-edges** say how far every atom is from its own images: the cell itself, in a small
# channel of its own. None of this may depend on how somebody chose the cell. We stretch a sheet,
# and write every stretched sheet in two ways: with its usual cell, and with a skewed one. *Guess
# first:* where do lines and crosses lie?

# %%
crystal = unit.repeat((3, 3, 1))
skew = np.array([[1, 0, 0], [2, 1, 0], [0, 0, 1]])  # another cell of the same lattice
strains = np.linspace(-0.03, 0.03, 9)
answers = {"usual cell": [], "skewed cell": []}
torch.manual_seed(seed)
model = Hybrid(features, plain, hidden=32, local_layers=2, global_layers=1).double().eval()
for strain in strains:
    stretched = crystal.copy()
    stretched.set_cell(crystal.cell.array * [[1 + strain, 1 + strain, 1]], scale_atoms=True)
    skewed = stretched.copy()
    skewed.set_cell(skew @ stretched.cell.array)
    for title, atoms in (("usual cell", stretched), ("skewed cell", skewed)):
        with torch.no_grad():
            answers[title].append(
                model(build_graph(atoms, plain, unit, dtype=torch.float64)).eform.item()
            )
plt.figure(figsize=(8, 3.4), layout="constrained")
plt.plot(100 * strains, answers["usual cell"], color=plots.style.BLUE, label="usual cell")
plt.plot(
    100 * strains, answers["skewed cell"], "x", ms=9, color=plots.style.ORANGE, label="skewed cell"
)
plt.xlabel("strain in both directions (%)")
plt.ylabel("answer of an untrained\nmodel (arbitrary unit)")
plt.legend(frameon=False);

# %%
print("largest difference between the two ways of writing:",
      np.abs(np.subtract(*answers.values())).max())

# %% [markdown]
# The crosses lie on the line, and the line is smooth: how the crystal is written down does not matter, how
# it is strained does.

# %% [markdown]
# ## 7 · Train one
#
# The same exercise as in notebook 03, section 5: the same rows, a narrow model, the dashed line what is
# reached by always saying the mean. *Guess first:* will its best epoch be better than ALIGNN's there? (Run
# both on the same `dataset`, and compare the printed lines.)

# %%
from defectkit.training.config import ModelConfig, OptimiserConfig, RunConfig

rows = data if len(data) >= 20 and set(frame.host) <= set(data.hosts) else data_of(shipped, data)
if rows is not data:
    print(
        f"'{data.name}' has fewer than 20 rows, or hosts without a pristine cell: here the rows "
        f"of '{rows.name}' serve"
    )
atoms = 15_000 if quick else 60_000  # in all, as in notebook 03
n = min(int(atoms / rows.frame.natoms.mean()), len(rows))
few = rows.subset(rows.frame.sample(n, random_state=seed).index)
split = make_split(few, seed=seed)
run_config = RunConfig(
    model=ModelConfig("hybrid", {"hidden": 32, "local_layers": 2, "global_layers": 1}),
    graph=GraphConfig(cutoff=4.0, angle_cutoff=None),
    optimiser=OptimiserConfig("muon", lr=0.003),
    batch_size=16,
    ema=None,
    epochs=10 if quick else 25,
)
labels = few.frame.loc[list(split.train)].eform
guess = few.frame.loc[list(split.valid)].eform.sub(labels.mean()).abs().mean()
curve = LiveCurve(baseline=guess)
run = train(
    Prepared(run_config, few, split),
    Path(tempfile.mkdtemp()),
    seed,
    progress=False,
    callbacks=(curve,),
)

# %%
print(curve.in_words())

# %%
print(f"{run.summary['parameters']:,} weights, {run.summary['rows']['train']} training rows, "
      f"{run.summary['train_s_per_epoch']:.1f} s an epoch")
plots.results.parity(run.part("test"), few.label_source, title="the hybrid after a short training");

# %% [markdown]
# ## 8 · What a mean of equals cannot say (optional)
#
# The bias $\varphi$ of section 2 stands in the exponent. It decides *how much* each node is heard, and
# the weights of a softmax sum to one: what comes out is a weighted **mean** of the values. Now let
# all values be equal, $\mathbf v_j = \mathbf v$:
#
# $$\sum_j \alpha_{ij} \mathbf v_j = \mathbf v \sum_j \alpha_{ij} = \mathbf v,$$
#
# whatever the weights. Two like vacancies are two equal vectors. If only they talk to each other, which
# is what a graph of the defect's own sites would have them do, each hears the same at any distance; so
# they stay equal, and the next layer hears no more than the first. Among many other atoms the distance
# does come through, but thinly: by what it takes away from the weights of the others.
#
# The cure is a value that depends on the edge, $\sum_j \alpha_{ij}\, \mathbf v_j \odot \sigma(\mathbf e_{ij})$,
# with a gate $\sigma$ that reads the distance: `edge_values` of the kit's hybrid, which is on by
# default. (A sum in place of the mean would do as well.) Two equal nodes move apart, and we ask how much of what each hears
# changes. *Guess first:* what does each line look like?

# %%
from ase import Atoms

apart = np.linspace(3, 12, 37)  # Å
sheet = unit.repeat((8, 8, 1)).cell
pair = [
    build_graph(
        Atoms("S2", [[0, 0, 0], [d, 0, 0]], cell=sheet, pbc=True),
        GraphConfig(angle_cutoff=None),
        dtype=torch.float64,
    )
    for d in apart
]
twin = torch.randn(
    1, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
).expand(2, -1)  # the same row twice: two equal nodes
inputs, heard = PairInputs(15.0, radial).double(), {}
for title, modulated in (("weights only", False), ("values modulated by the edge", True)):
    torch.manual_seed(seed)
    layer = PeriodicAttention(
        width, heads, PairBias(heads, radial), radial if modulated else None
    ).double()
    with torch.no_grad():
        # torch.stack: a row a distance
        out = torch.stack([layer(twin, inputs(graph))[0] for graph in pair])
        # and of all weights that of the first node for the second
        weight = torch.stack([layer.weights(twin, inputs(graph))[:, 0, 1] for graph in pair])
    heard[title] = (out - out[0]).norm(dim=1) / out[0].norm()
    print(
        f"{title}: the other's weight moves by up to {(weight - weight[0]).abs().max():.2f}, "
        f"what is heard by {heard[title].max():.0e} of itself"
    )
plt.figure(figsize=(8, 3), layout="constrained")
for (title, change), colour in zip(heard.items(), (plots.style.ORANGE, plots.style.BLUE)):
    plt.plot(apart, change, color=colour, label=title)
plt.xlabel("distance of the two equal nodes (Å)")
plt.ylabel("change of what\na node hears")
plt.legend(frameon=False);

# %% [markdown]
# The weights move in both layers. In the first it does not matter.
#
# **Exercise 04-9.** Two like vacancies have the value 6, and the only score is $\varphi = -d \ln 2$ per Å,
# with $d = 0$ of a node from itself. At 1 Å a node gives itself the weight 2/3 and the other 1/3, and hears
# $6 \cdot 2/3 + 6 \cdot 1/3 = 6$. With a gate $\sigma = 2^{-d}$ it hears
# $6 \cdot 2/3 + 6 \cdot 1/3 \cdot 1/2 = 5$. What does it hear at 2 Å, without the gate and with it? By hand;
# answer with the pair.

# %% tags=["solution"]
near, far = 4 / 5, 1 / 5  # 1 and 1/4, over their sum
answer = (6 * near + 6 * far, 6 * near + 6 * far / 4)

# %%
check("04-9", answer)

# %% [markdown]
# A mean has a second weakness: it *dilutes*. Before anything is learned all scores are about equal, and
# so are the weights. Where two or three nodes of two hundred matter, what they say drowns in the mean, and
# a network that hears them so faintly hardly learns to tell how far away they are. So $\psi$ of the kit's
# hybrid does not begin at zero: nodes of a defect have a head start, and training decides whether they keep it.
# (What that is worth on labels of DFT is measured in notebook 07, section 6.)
#
# **Exercise 04-12.** A cell has 190 nodes, three of them the defect's, and all scores are equal. Which share of
# the weight is the defect's? And what must $\psi$ add to the scores of these three for a share of 3/4?
# Answer with the pair.

# %% tags=["solution"]
answer = 3 / 190, np.log(3 * 187 / 3)  # 3 e^psi / (3 e^psi + 187) is 3/4

# %%
check("04-12", answer)

# %% [markdown]
# ## Summary
#
# * Beyond layers times cutoff, a local model is blind, exactly. Attention joins every pair of atoms.
# * A score is query times key, plus what the distance says, plus what the kinds of sites say.
# * Minimum images answer for the cell, sums over images for the crystal. The labels are those of a
#   periodic array of defects.
# * Sums over pairs of bonds cost no more than the bonds, by the addition theorem; and a sum tells
#   apart what a mean cannot.
# * A softmax gives a mean, and a mean of equals does not know the weights: let the edge into the value.
#   And it dilutes: let attention begin where it matters.
#
# **Further reading.** A. Vaswani et al., *Attention is all you need*, NeurIPS 2017, arXiv:1706.03762.
# T. Taniai et al., *Crystalformer: infinitely connected attention for periodic structure encoding*,
# ICLR 2024, arXiv:2403.11686. K. Yan et al., *Periodic graph transformers for crystal material
# property prediction*, NeurIPS 2022, arXiv:2209.11807. A. P. Bartók, R. Kondor and G. Csányi, *On
# representing chemical environments*, Phys. Rev. B **87**, 184115 (2013). R. Xiong et al., *On layer
# normalization in the transformer architecture*, ICML 2020, arXiv:2002.04745.
