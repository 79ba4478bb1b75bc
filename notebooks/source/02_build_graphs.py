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
# # 02 · Build periodic graphs
#
# **Goals.** Turn one database row into the tensors that every model here reads; understand what a
# periodic cell hides; measure distances in it without error; see bonds, angles, the lattice and a
# missing atom become parts of one graph; break an invariance and mend it.
#
# **Prerequisites.** Notebooks 00 and 01; vectors and matrices.
#
# **Time.** 60 minutes for the core, 75 for all.

# %% tags=["parameters"]
dataset = "demo"  # "demo", "imp2d", "2dmd", or a folder of yours
quick = True  # notebooks that train do more when this is False
seed = 0

# %%
from defectkit.widgets.lesson import *

data = checks.clean_rows(load(dataset))
teach.use(data)
frame = data.frame
rng = np.random.default_rng(seed)
print(f"{len(data):,} rows, labels from {data.label_source}")

# %% [markdown]
# ## 1 · What a unit cell hides
#
# A structure file lists the atoms of *one* cell. The crystal goes on for ever: every atom has
# copies at $\mathbf r_j + \mathbf n L$, where the rows of $L$ are the cell vectors and
# $\mathbf n$ holds three integers (here the third is zero: a sheet does not repeat upwards). The
# neighbours of atom $i$ are *pairs* of an atom and an image,
#
# $$N(i) = \{(j, \mathbf n) : |\mathbf r_j + \mathbf n L - \mathbf r_i| < r_\mathrm{cut}\}.$$
#
# The *nearest* image is the one that a person would point at. The textbook recipe, rounding the
# difference of fractional coordinates, finds it in a rectangular cell. *Guess first:* how often does it
# fail in a hexagonal one?

# %%
teach.guess("02-a", (0, 1, 10, 30))  # % of the pairs

# %%
hexagonal = np.array([[3.2, 0.0], [-1.6, 2.77]])
i, j = np.array([[0.1, 0.5], [0.55, 0.05]]) @ hexagonal
plots.graphs.image_choice(hexagonal, i, j);

# %%
starts, ends = rng.random((2, 2000, 2)) @ hexagonal
gap = ends - starts
rounded = gap - np.rint(gap @ np.linalg.inv(hexagonal)) @ hexagonal
images = gap[:, None] + np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)]) @ hexagonal
nearest = np.linalg.norm(images, axis=-1).min(axis=1)
wrong = np.linalg.norm(rounded, axis=1) > nearest + 1e-9
print(f"rounding takes the wrong image for {wrong.mean():.1%} of random pairs in a hexagonal cell")
teach.reveal("02-a", 100 * wrong.mean())

# %% [markdown]
# Most 2D materials are hexagonal. The kit therefore reduces the lattice first and then tries all
# neighbouring images (`defectkit.graphs.periodic.minimum_image`).
#
# **Exercise 02-1.** Write a function `shortest(gap, cell)`: `gap` is a difference of two positions,
# an array of shape (2,), `cell` holds two lattice vectors as rows, neither of them much longer
# than the other. It returns the distance to the nearest image. Searching one step around each
# cell is not enough if `gap` itself spans many cells: round first, then search.

# %% tags=["solution"]
def shortest(gap, cell):
    gap = gap - np.rint(gap @ np.linalg.inv(cell)) @ cell
    steps = np.array([[i, j] for i in (-2, -1, 0, 1, 2) for j in (-2, -1, 0, 1, 2)])
    return np.linalg.norm(gap + steps @ cell, axis=1).min()


assert np.isclose(shortest(np.array([4.0, 0.0]), 5 * np.eye(2)), 1.0)

# %%
check("02-1", shortest)

# %% [markdown]
# **Your function draws.** Move `j` out of its cell: does your distance (orange) stay with the nearest image?

# %%
try_out("02-1", shortest)

# %% [markdown]
# ## 2 · From one row to a graph
#
# `build_graph` takes a record and the pristine host, finds the defect, and returns a PyTorch
# Geometric `Data`. Note what it stores: positions, the cell and *integer* image shifts. No distance
# is stored, because a stored distance has no gradient; lengths are computed from positions inside
# the model.

# %%
record = checks.example(data, frame[frame.defecttype == "adsorbate"], "adsorbate", seed)
host = data.hosts.get(record.host)
graph = build_graph(record, host=host)
print(checks.caption(record))
graph

# %%
from defectkit.graphs.geometry import edge_vectors, lengths

vectors = edge_vectors(graph.pos, graph.cell, graph.edge_index, graph.edge_shift)
distances = lengths(vectors)
first = torch.arange(5)
pd.DataFrame(
    {
        "from": graph.edge_index[0, first],
        "to": graph.edge_index[1, first],
        "image n": graph.edge_shift[first].tolist(),
        "distance (Å)": distances[first].round(decimals=3),
    }
)

# %% [markdown]
# ### How far should an atom see?
#
# Move the slider: the red ring is the cutoff, blue lines are edges to the atom in the middle, the
# first of the defect. *Guess first:* how many times as many edges will there be when the radius
# doubles? On a page without a kernel, look at the three pictures below instead.

# %%
teach.guess("02-b", (2, 4, 8))

# %%
from defectkit.widgets import CutoffExplorer

middle = int(graph.is_defect.int().argmax())  # the first of the defect; 0 where none is known
wide = build_graph(record, GraphConfig(cutoff=8.0), host)
explorer = CutoffExplorer(wide, middle, longest=8.0)
explorer

# %%
figure, axes = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
for ax, cutoff in zip(axes, (3.0, 5.0, 8.0)):
    plots.graphs.local_edges(wide, middle, cutoff, ax, reach=8.5)

# %%
far = lengths(edge_vectors(wide.pos, wide.cell, wide.edge_index, wide.edge_shift))
near, every = int((far < 4).sum()), len(far)
print(f"{near:,} edges of the whole graph within 4 Å and {every:,} within 8 Å: "
      f"{every / max(near, 1):.1f} times as many")
teach.reveal("02-b", every / max(near, 1))

# %% [markdown]
# In a sheet the number grows with the *square* of the radius, about fourfold, as the area of the ring
# does; in a bulk crystal it would be the cube. A sheet has some thickness and small rings hold few atoms,
# so do not expect more than roughly four.

# %% [markdown]
# **Exercise 02-2.** How many local edges does the whole graph have with a cutoff of 3.5 Å? (Build
# it, or count in `distances`.) Answer with the pair `(record.uid, number)`.

# %% tags=["solution"]
small = build_graph(record, GraphConfig(cutoff=3.5, angle_cutoff=3.5), host)
answer = (record.uid, small.edge_index.shape[1])

# %%
check("02-2", answer)

# %% [markdown]
# ## 3 · Angles, and the line graph
#
# Two molecules can have the same bond lengths and differ in their angles. So some models pass
# messages between *bonds* as well: in the **line graph** each bond is a node, and two bonds that
# share an atom are joined by an edge that carries their angle.

# %%
points = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 1.1], [-0.8, -1.2]])
plots.graphs.line_graph(points, [(0, 1), (0, 2), (0, 3)], ["A", "B", "C", "D"]);

# %%
from defectkit.graphs.geometry import angle_cosines

cosines = angle_cosines(vectors, graph.angle_index)
print(
    f"{graph.edge_index.shape[1]:,} edges within 5 Å, "
    f"{graph.angle_index.shape[1]:,} angles between edges shorter than 4 Å"
)
plt.figure(figsize=(7, 2.8))
plt.hist(
    torch.rad2deg(torch.arccos(cosines.clamp(-1, 1))).numpy(), bins=90, color=plots.style.DEEP_BLUE
)
plt.xlabel("angle (degrees)")
plt.ylabel("ordered pairs of edges");

# %% [markdown]
# The number of angles grows with the *square* of the number of neighbours. That is why angles have
# a cutoff of their own.
#
# **Exercise 02-3.** An atom has 12 neighbours within the angle cutoff. How many ordered pairs of
# different edges meet at it?

# %% tags=["solution"]
answer = 12 * 11

# %%
check("02-3", answer)

# %% [markdown]
# ## 4 · All pairs, and the lattice
#
# Attention joins *every* pair of nodes, through its nearest image:
# $d_\mathrm{pbc}(i, j) = \min_{\mathbf n} |\mathbf r_j + \mathbf n L - \mathbf r_i|$. The lattice
# itself enters as edges from an atom to its own images: along $a$, along $b$, and along the shorter
# of $a + b$ and $a - b$ (Matformer's idea, for a sheet). Three lengths fix a triangle, so these
# edges tell the model the cell's shape. Stretch the crystal by 2 % and they see it at once:

# %%
from defectkit.graphs.geometry import strained


def lattice_lengths(pos, cell):
    edges = edge_vectors(pos, cell, graph.lattice_index, graph.lattice_shift)
    return lengths(edges)[:3].numpy().round(3)


stretch = torch.diag(torch.tensor([0.02, 0.02, 0.0]))[None]
pd.DataFrame(
    {
        "as it is": lattice_lengths(graph.pos, graph.cell),
        "stretched by 2 %": lattice_lengths(*strained(graph.pos, graph.cell, stretch)),
    },
    index=["lattice edge 1 (Å)", "lattice edge 2 (Å)", "diagonal (Å)"],
)

# %%
pairs = edge_vectors(graph.pos, graph.cell, graph.pair_index, graph.pair_shift)
table = lengths(pairs).reshape(graph.num_nodes, -1)
plt.figure(figsize=(5.6, 4.6))
plt.imshow(table, cmap="viridis")
plt.colorbar(label="nearest-image distance (Å)")
plt.xlabel("node j")
plt.ylabel("node i");

# %% [markdown]
# ## 5 · A node where nothing is
#
# A vacancy is the absence of an atom, and a graph of atoms cannot see an absence. So the kit puts a
# **virtual node** there: atomic number 0, the flag `is_vacancy`, and `original_z`, the element that
# is missing. It takes part in edges and pairs like any atom. Every node also says what kind of site
# it is.

# %%
from defectkit.structures.record import SiteKind

vacancies = frame[frame.defecttype == "vacancy"]
gap_record = checks.example(data, vacancies, "row with vacancies alone", seed)
gap_graph = build_graph(gap_record, host=data.hosts.get(gap_record.host))
marked = gap_graph.is_defect.nonzero()[:, 0]
print(checks.caption(gap_record))
pd.DataFrame(
    {
        "z": gap_graph.z[marked],
        "original_z": gap_graph.original_z[marked],
        "site_kind": [SiteKind(int(k)).name.lower() for k in gap_graph.site_kind[marked]],
        "is_vacancy": gap_graph.is_vacancy[marked],
    },
    index=marked.tolist(),
)

# %%
last = int(marked[-1]) if len(marked) else 0  # vacancies come last
plots.graphs.local_edges(gap_graph, last, 4.0);

# %% [markdown]
# ## 6 · How the surroundings give way (optional)
#
# Two descriptors of a node's neighbours, both from the graph's positions and the sites of the
# pristine host: the mean strain of its bonds (above zero where they are stretched), and the length
# of the vector that says on which side they are stretched most. Here are nodes of the graph above, the
# most strained first; X is a vacancy. Where a source has unrelaxed structures only, nothing is strained.

# %%
from ase.data import chemical_symbols

from defectkit.graphs.geometry import local_strain

strain, direction = local_strain(gap_graph)
order = strain.abs().argsort(descending=True)[:6]
pd.DataFrame(
    {
        "element": [chemical_symbols[z] for z in gap_graph.z[order]],
        "mean bond strain (%)": (100 * strain[order]).numpy().round(2),
        "one-sided strain (%)": (100 * lengths(direction[order])).numpy().round(2),
    },
    index=order.tolist(),
)

# %% [markdown]
# ## 7 · What a node knows about its element
#
# Elements enter through a table of features, looked up by atomic number and chosen by name.

# %%
from defectkit.graphs.elements import feature_table

table = feature_table(["elemental"])
shown = {"H": 1, "He": 2, "O": 8, "S": 16, "Fe": 26, "Mo": 42, "Xe": 54}
pd.DataFrame(table[list(shown.values())].T, index=table.names, columns=list(shown)).round(2)

# %%
from defectkit.graphs.elements import ELEMENTAL

checks.table(pd.Series(ELEMENTAL, name="meaning").to_frame())

# %% [markdown]
# Where the source has no value (xenon has an electronegativity, helium has none), the mean of the
# element's group stands in, and a column `missing: ...` says so. A silent zero would tell the model
# that helium gives its electrons away for nothing.
#
# **Exercise 02-4.** For how many of the 118 elements is the electron affinity filled in? (The
# columns of `table` are in `table.names`, its rows in `table.values`; row 0 is the vacancy.)

# %% tags=["solution"]
column = next(
    k for k, name in enumerate(table.names) if name.startswith("missing: electron_affinity")
)
answer = int(table.values[1:, column].sum())

# %%
check("02-4", answer)

# %% [markdown]
# ## 8 · Distances as smooth numbers (optional)
#
# A network reads a distance better when it is spread over many smooth functions,
# $e_k(d) = \exp(-\gamma (d - \mu_k)^2)$, with centres $\mu_k$ between 0 and the cutoff. The envelope
# takes everything gently to zero there, so that the energy does not jump when an atom crosses the
# cutoff.

# %%
from defectkit.models.parts import AngularBasis, GaussianBasis, envelope

d = torch.linspace(0, 5.5, 400)
figure, axes = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
axes[0].plot(d, GaussianBasis(stop=5.0, n=12)(d) * envelope(d, 5.0)[:, None])
axes[0].plot(d, envelope(d, 5.0), "k--", label="envelope")
axes[0].set(xlabel="distance (Å)", ylabel="basis x envelope", title="12 of the usual 128 functions")
axes[0].legend(frameon=False)
c = torch.linspace(-1, 1, 400)
axes[1].plot(c, AngularBasis(n=8)(c))
axes[1].set(xlabel="cos(angle)", title="angular basis, 8 of the usual 40");

# %% [markdown]
# ## 9 · Break an invariance, and mend it
#
# The oldest crystal networks join each atom to its 12 *nearest* neighbours and stop there. In a
# crystal many neighbours are equally near: they stand in *shells*. If the twelfth and the thirteenth are
# of one shell, which one is kept depends on the order of the atoms in the file, and equal atoms get
# unequal surroundings.
#
# Below, an ideal sheet of MoS$_2$, its atoms listed in random order. The Mo atoms are *copies* of one
# another, one lattice vector apart: all of them must get the same neighbours, in the same directions. We
# count how many different sets of edge vectors they get. *Guess first:* for which $k$ will it be one?

# %%
teach.guess("02-c", ("all", "even ones", "where a shell ends", "none"))

# %%
sheet = HOSTS["MoS2"].unit_cell().repeat((4, 4, 1))
sheet = sheet[rng.permutation(len(sheet))]
copies = np.flatnonzero(sheet.symbols == "Mo")
index, shift = periodic.neighbour_edges(sheet.positions, sheet.cell.array, sheet.pbc, 8.0)
length = periodic.distances(sheet.positions, sheet.cell.array, index, shift).round(3)
arrow = sheet.positions[index[0]] + shift @ sheet.cell.array - sheet.positions[index[1]]
arrow = arrow.round(1)  # a tenth of an Å tells neighbours apart
ks = np.arange(2, 19)


def different_sets(choose):
    """For every k: how many sets of edge vectors the copies have, of edges that `choose` keeps."""
    mine = [index[1] == atom for atom in copies]
    kept = [[arrow[m][choose(length[m], k)] for m in mine] for k in ks]
    return np.array([len({frozenset(map(tuple, vectors)) for vectors in each}) for each in kept])


def drop_ties(distances, k):
    return np.argsort(distances, kind="stable")[:k]  # of equal ones, the first in the file


ties_dropped = different_sets(drop_ties)
# np.unique counts the atoms of each shell, cumsum adds up all shells so far
ends = np.unique(length[index[1] == copies[0]], return_counts=True)[1].cumsum()
plt.figure(figsize=(8, 3))
plt.bar(
    ks,
    ties_dropped,
    color=np.where(np.isin(ks, ends), plots.style.DEEP_GREEN, plots.style.DEEP_ORANGE),
)
plt.axhline(1, color="black", lw=1)
plt.xlabel("neighbours k, ties dropped (green: k ends a shell)")
plt.ylabel(f"sets of {len(copies)} equal atoms")
plt.xticks(ks)
agreed = ks[ties_dropped == 1]
print("all copies agree for k =", *agreed)
teach.reveal("02-c", "where a shell ends" if set(agreed) <= set(ends) else "others", plt.gca())

# %% [markdown]
# Only where $k$ ends a shell. Everywhere else a shell is cut, and each atom keeps a piece of its own.
# Mind the measure: compare only the *length* of the sum of the vectors, and some more $k$ seem to pass,
# because different pieces of a symmetric shell can have sums of one length.

# %% [markdown]
# **Exercise 02-5.** Write `keep_ties(distances, k)`: a boolean mask of the k nearest neighbours
# *and* of all others that are as near as the k-th, to within 0.001 Å.

# %% tags=["solution"]
def keep_ties(distances, k):
    return distances <= np.sort(distances)[k - 1] + 1e-3


assert keep_ties(np.array([3.0, 1.0, 2.0, 2.0]), 2).tolist() == [False, True, True, True]

# %%
check("02-5", keep_ties)

# %% [markdown]
# **Your function draws.** Move `k` through the shells: which of the equal neighbours does it cut?

# %%
try_out("02-5", keep_ties)

# %%
if keep_ties is not ...:
    print("sets of equal atoms, ties kept:", *different_sets(keep_ties))

# %% [markdown]
# ## 10 · Augmentation (optional)
#
# More training structures from the ones at hand: after the split, on training rows only, and only
# where the label survives. Turning and mirroring keep the energy exactly. Noise, strain and elastic
# fields keep it approximately, within bounds that each transform states, and refuses to exceed.
# A larger cell keeps it only if the atoms far from the defect stand on the host's sites already: we look
# for a row of which this is true, and read what is said of the others.

# %%
from defectkit.structures import transforms

padding = transforms.PadSupercell(data.hosts, extra=(1, 1))
substitutions = frame[frame.defecttype == "substitution"]
candidates = substitutions if len(substitutions) else frame
candidates = candidates.sort_values("natoms", kind="stable").head(400)
candidates = candidates.sample(min(20, len(candidates)), random_state=seed)
padded, refusals = [], []
for uid in candidates.index:
    try:
        padding(data[uid], rng)
        padded.append(uid)
    except DefectkitError as refusal:
        refusals.append(str(refusal))
print(
    f"{len(padded)} of {len(candidates)} rows may stand in a larger cell", *refusals[:2], sep="\n"
)

# %% [markdown]
# Grey discs and dotted cells are before, coloured ones after; where the atoms move little, arrows
# show the displacements enlarged.

# %%
example = data[(padded or candidates.index)[0]]
transforms = {
    "rotation": transforms.Rotation(),
    "reflection": transforms.Reflection("x", probability=1.0),
    "noise, σ = 0.02 Å": transforms.CoordinateNoise(0.02, max_energy=1.0),
    "strain, up to 1 %": transforms.AffineStrain(0.01),
    "back to unrelaxed": transforms.PartlyRelaxed(t=(0.0, 0.0)),
    "elastic field, A = 0.4 Å²": transforms.ElasticField((0.4, 0.4), max_energy=2.0),
    "larger cell": padding,
}
changed = {}
for name, transform in transforms.items():
    try:
        changed[name] = example, transform(example, rng)
    except DefectkitError as refusal:
        print(f"{name}: {refusal}")
plots.graphs.moved_atoms(changed);

# %% [markdown]
# **Exercise 02-6.** Which of these change *no* distance between atoms at all? Answer with a set of
# names out of `{"rotation", "reflection", "noise", "strain", "unrelaxed", "elastic"}`.

# %% tags=["solution"]
answer = {"rotation", "reflection"}

# %%
check("02-6", answer)

# %% [markdown]
# ## Summary
#
# * A neighbour is an atom *and* an image. In hexagonal cells, rounding finds the wrong image for a
#   good part of all pairs.
# * The graph holds positions, cell and integers; lengths and angles are computed from them, so
#   gradients are exact.
# * Vacancies are nodes, the lattice is edges, and the kind of site is a label on each node.
# * Never drop ties. Augment after the split.
#
# **Further reading.** T. Xie and J. C. Grossman, *Crystal graph convolutional neural networks*, Phys.
# Rev. Lett. **120**, 145301 (2018). K. Choudhary and B. DeCost, *Atomistic line graph neural
# network*, npj Comput. Mater. **7**, 185 (2021). K. Yan et al., *Periodic graph transformers for
# crystal material property prediction*, NeurIPS 2022.
