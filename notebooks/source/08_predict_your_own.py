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
# # 08 · Your own structure: from a file to an answer that you may use
#
# **Goals.** Follow one defect all the way: make it, say what its energy is counted against, predict it, read
# interval and verdict, look at what the network looked at, pull at an atom and see where that stops making
# sense. Then put your own files through the same steps.
#
# **Prerequisites.** Notebooks 00 to 05.
#
# **Time.** 35 minutes for the core, 50 for all.

# %% tags=["parameters"]
dataset = "demo"  # where labels to compare with come from
quick = True  # False: section 6 takes more steps, and more points of the pull
seed = 0
files = "my_structures"  # a folder of yours, for section 8

# %%
from defectkit.widgets.lesson import *

torch.set_num_threads(1)  # single structures gain nothing from a second thread
data = load(dataset)
teach.use(data)
print(f"{len(data):,} rows to compare with, labels {data.label_source}")

# %% [markdown]
# ## 1 · Make it
#
# A sheet of MoS$_2$ lacks one sulfur atom. `host_cell` knows hosts by their everyday names or from a file,
# `defects_of` puts a defect on every site that symmetry tells apart, in a cell whose images are 9 Å apart or
# more. In a terminal `defectkit make MoS2 --vacancy S` does the same.

# %%
from defectkit.predict.own import host_cell
from defectkit.structures.defects import defects_of

host = host_cell("2H-MoS2")
(vacancy,) = defects_of(host, ["S"]).values()
print(f"{vacancy.atoms.symbols}: {vacancy.removed[0]} is missing, "
      f"images {np.linalg.norm(vacancy.atoms.cell[0]):.1f} Å apart")

# %% [markdown]
# ## 2 · What is its energy counted against?
#
# $$E_f = E(\mathrm{defect}) - E(\mathrm{pristine}) - \sum_i \Delta n_i\, \mu_i$$
#
# Atoms that leave go to a reservoir, atoms that are added come from one. The labels take the pure elements.
# In a gas poor in sulfur, $\mu_S$ lies $\Delta\mu_S < 0$ below that, and a sulfur vacancy costs less. How poor
# may it be? Until MoS$_2$ itself falls apart: $\Delta\mu_{Mo} + 2\,\Delta\mu_S = \Delta H_f(\mathrm{MoS_2})$,
# each at most zero. *Guess first:* does the choice matter as much as the error of a network?

# %%
teach.guess("08-a", ("less than the interval", "as much", "more"))

# %% [markdown]
# **Exercise 08-1.** Write `shifted(eform, removed, added, dmu)`: the formation energy where the chemical
# potentials lie `dmu` (a dictionary by symbol, eV; zero where a symbol is not in it) away from the
# elements. `removed` and `added` are lists of symbols.

# %% tags=["solution"]
def shifted(eform, removed, added, dmu):
    return eform + sum(dmu.get(x, 0.0) for x in removed) - sum(dmu.get(x, 0.0) for x in added)


assert shifted(2.0, ["S"], [], {"S": -0.5}) == 1.5

# %%
check("08-1", shifted)

# %% [markdown]
# ## 3 · The answer
#
# One call reads the structure, finds its host and its defect, and asks every network of the kit that knows
# such structures.

# %%
from defectkit.predict.answer import answer, sentences

table = answer(vacancy.atoms)
print("\n".join(sentences(table)))

# %% [markdown]
# Read all of it. What was **assumed** stands first: nobody said what the host is, nor whether the atoms were
# relaxed; they stand exactly on their sites, so nobody moved them. Then two rows with two sources of labels:
# one of networks that learned CHGNet's energies, one of networks that learned DFT's. They answer different
# questions, and their difference is no error of either: CHGNet itself differs from DFT here.
#
# An **interval** is a promise about rows like those of validation. The **verdict** says whether this one is
# such a row. Now the chemical potentials. The demo database knows what CHGNet says of its pristine host and
# of the elements, and so how poor sulfur may be:

# %%
demo = load("demo")
rows = demo.frame[(demo.frame.host == "MoS2") & (demo.frame.strain == 0)]
mu = {x: rows.removed_chemical_potential[rows.removed == x].iloc[0] for x in ("Mo", "S")}
cells = np.prod([int(digit) for digit in str(rows.supercell.iloc[0])])
heat = rows.hostenergy.iloc[0] / cells - mu["Mo"] - 2 * mu["S"]
print(
    f"MoS2 from its elements: {heat:.2f} eV ({demo.label_source}); poorest sulfur: "
    f"{heat / 2:.2f} eV"
)

# %%
row = table[table.model == "hybrid-unrelaxed"].iloc[0]
if shifted is not ...:
    poor = np.linspace(heat / 2, 0.0, 50)  # eV
    energies = [shifted(row.eform, ["S"], [], {"S": dmu}) for dmu in poor]
    ax = plt.subplots(figsize=(6, 3.4), layout="constrained")[1]
    ax.plot(poor, energies, color=plots.style.BLUE, label="S vacancy")
    ax.fill_between(poor, energies + row.eform_lo - row.eform, energies + row.eform_hi - row.eform,
                    color=plots.style.BLUE, alpha=0.2, label="90 % interval")
    ax.set(xlabel="Δμ(S), poor to rich (eV)", ylabel=f"formation energy, {row.label_source} (eV)")
    ax.legend()
    ratio = abs(heat / 2) / (row.eform_hi - row.eform_lo)  # over the whole interval
    told = "as much" if 0.8 < ratio < 1.25 else "more" if ratio > 1 else "less than the interval"
    display(teach.reveal("08-a", told, ax))

# %% [markdown]
# ## 4 · Chromium, on every site
#
# Where does a chromium atom go? All distinct sites, each with its prediction, the lowest first:

# %%
from defectkit.structures.defects import find_sites, place_of

made = defects_of(host, add="Cr")
where = {site.name: place_of(host, site) for site in find_sites(host)}
sites = answer([defect.atoms for defect in made.values()])
sites = sites.assign(site=list(made), place=[where[name] for name in made]).set_index("site")
columns = ["place", "defect", "eform", "eform_lo", "eform_hi", "spin", "verdict"]
display(sites[columns].sort_values("eform").style.format(precision=2))

# %% [markdown]
# Only differences between the sites decide where the atom goes, and errors of one host and one dopant are
# alike: they cancel in part. Are the predictions far enough apart to be sure?
#
# Every prediction comes with a spread: how far the three networks are apart.
#
# **Exercise 08-2.** Write `settled(eform, sigma)`: whether the lowest of the energies `eform` lies below the
# second lowest by more than twice the root of the sum of the squares of these two's `sigma`.

# %% tags=["solution"]
def settled(eform, sigma):
    first, second = np.argsort(eform)[:2]
    return eform[second] - eform[first] > 2 * np.hypot(sigma[first], sigma[second])


assert settled(np.array([3.0, 1.0]), np.array([0.1, 0.1]))

# %%
check("08-2", settled)

# %%
if settled is not ...:
    print(
        "settled"
        if settled(sites.eform.to_numpy(), sites.eform_sigma.to_numpy())
        else "not settled"
    )
frame = data.frame
labels = frame[(frame.formula == "MoS2") & (frame.dopant == "Cr") & (frame.removed == "")]
display(
    labels[["site", "defecttype", "eform", "spin"]].sort_values("eform").style.format(precision=2)
)

# %% [markdown]
# Look again at the intervals of the first table before you believe it: they overlap. A spread says how far
# three networks *disagree*, and networks that learned from the same rows can be wrong together; an interval
# was measured on errors. The truth lies between the two, since errors of like structures cancel in part.
#
# The second table has the rows of the data set, if it has any, after relaxation: atoms leave the sites that
# they were put on, and several starts may end in one place. Some of these rows were learned from.
#
# ## 5 · What did the network look at? (optional)

# %%
from defectkit.predict.answer import all_atom_predictor, read

best = made[sites.eform.idxmin()]
(own,) = read(best.atoms)
predictor = all_atom_predictor(own)
graph = predictor.graph_of(own)
plots.explain.prediction_map(predictor.networks[0], graph, f"{own.defect} in {own.record.host}");

# %%
from defectkit.widgets import StructureView

StructureView(graph)

# %% [markdown]
# Notebook 06 says how far to believe such a map: it tells what went into the number, and nothing about why
# nature does what it does.
#
# ## 6 · Pull at an atom (optional)
#
# The energy of a network is a smooth function of the positions, so it has forces: the calculator hands them
# to ASE, and any of its optimisers can use them. Move the chromium with the sliders and watch the arrows, then
# press *Relax*. *Guess first:* will it find its place?

# %%
from defectkit.predict.answer import shipped_predictor
from defectkit.widgets import Sandbox

hybrid = shipped_predictor("hybrid")
Sandbox(best.atoms, host, hybrid)

# %% [markdown]
# How far may one believe the arrows? CHGNet computed the labels, and it knows forces: it was trained on the
# ways to the minima too. Both pull a chromium that lies on the sheet downwards and up, everything else held.
# *Guess first:* where will the lines part?

# %%
from defectkit.data.potential import ChgnetCalculator
from defectkit.predict.calculator import DefectCalculator, pulled

lying = made[sites[sites.defect == "Cr adsorbate"].eform.idxmin()].atoms
lift = np.linspace(-0.9, 2.7, 10 if quick else 37)  # Å
calculators = {"networks": DefectCalculator(hybrid, host), "CHGNet": ChgnetCalculator()}
path = pulled(lying, len(lying) - 1, (0, 0, 1), lift, calculators)
ax = plots.forces.pull(path)
ax.set_xlabel("height of chromium above its start (Å)");

# %%
apart = (path.networks - path.CHGNet).abs()
print(
    f"networks and CHGNet are {apart[abs(lift) < 0.35].max():.2f} eV apart at most within 0.35 "
    "Å of the start, "
    f"{apart.iloc[0]:.2f} eV at {lift[0]:+.1f} Å, {apart.iloc[-1]:.2f} eV at {lift[-1]:+.1f} Å"
)

# %% [markdown]
# **Exercise 08-3.** The force on an atom is minus the slope of the energy. Write `force(x, energy)`: the force
# at every inner point of evenly spaced positions `x`, by central differences.

# %% tags=["solution"]
def force(x, energy):
    return -(energy[2:] - energy[:-2]) / (x[2:] - x[:-2])


assert np.allclose(force(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 4.0])), [-2.0])

# %%
check("08-3", force)

# %%
from ase.optimize import BFGS

atoms = best.atoms.copy()
atoms.calc = calculators["networks"]
before = atoms.get_potential_energy()
BFGS(atoms, logfile=None).run(fmax=0.05, steps=15 if quick else 60)
moved = np.linalg.norm(atoms.positions - best.atoms.positions, axis=1)
print(f"{before:.2f} eV before, {atoms.get_potential_energy():.2f} eV after; "
      f"the chromium went {moved[-1]:.2f} Å, the host's atoms {moved[:-1].max():.2f} Å at most")

# %% [markdown]
# The networks learned energies *at minima*. Nobody showed them a structure on its way there, so nothing made
# the energy rise between minima as it should: no wall where the chromium is pushed into the sheet, a bond that
# ends too soon where it is lifted. That the grey lines agree is no proof, since all three learned the same
# minima. A model of formation energies is no force field. Use the relaxation as a sketch, and let DFT or a
# potential that learned forces do it.
#
# ## 7 · A host that nobody showed it
#
# Graphene is none of the hosts of the training data. No name is given, so the host is taken from the lattice
# that most atoms follow. *Guess first:* what does the verdict say?

# %%
teach.guess("08-b", ("inside", "not inside"))

# %%
from ase.build import graphene

sheet = graphene(a=2.46, vacuum=8).repeat((6, 6, 1))
del sheet[20]
foreign = answer(sheet)
print("\n".join(sentences(foreign)))
teach.reveal("08-b", "inside" if (foreign.verdict == "inside").any() else "not inside")

# %% [markdown]
# A number comes out all the same; it always does. The verdict is what keeps it out of your paper.
#
# **Exercise 08-4.** Write `usable(table, width)`: the ids (its index, a list in the table's order) of the rows
# whose verdict is "inside" and whose interval, `eform_hi - eform_lo`, is at most `width` eV wide.

# %% tags=["solution"]
def usable(table, width):
    narrow = table.eform_hi - table.eform_lo <= width
    return list(table.index[(table.verdict == "inside") & narrow])


assert usable(
    pd.DataFrame({"verdict": ["inside", "unlike"], "eform_lo": 0.0, "eform_hi": 1.0}, ["a", "b"]),
    2.0,
) == ["a"]

# %%
check("08-4", usable)

# %% [markdown]
# ## 8 · Now yours
#
# Drop a file on the field. It is read in the memory of this notebook and stored nowhere. Say the host and
# whether the atoms are relaxed, if you know, and see whether the answer changes.

# %%
from defectkit.widgets import UploadView

UploadView()

# %% [markdown]
# For many files, put them into the folder that the parameter `files` names and run the cell. One file that
# cannot be read does not stop the others. In a terminal: `defectkit predict FILE ... --map maps`.

# %%
if Path(files).is_dir():
    mine = answer(files)
    print("\n".join(sentences(mine)))
else:
    print(f"There is no folder {files} here yet.")

# %% [markdown]
# ## Summary
#
# * Say what you know: host, relaxed or not. What you do not say is assumed, and the answer says what.
# * A formation energy needs reservoirs. Their choice can weigh more than the error of a network.
# * Labels of two sources are two questions.
# * Interval and verdict belong together: the first is a promise about rows like those of validation, the
#   second says whether yours is one.
# * Forces of a model that learned minima are a sketch.
#
# **Further reading.** C. Freysoldt et al., *First-principles calculations for point defects in solids*, Rev.
# Mod. Phys. **86**, 253 (2014), for formation energies and chemical potentials.
