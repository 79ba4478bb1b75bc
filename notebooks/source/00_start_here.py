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
# # 00 · Start here
#
# **Goals.** Know what this kit does, see that your installation works, choose a data set, compute
# one formation energy yourself, and learn how the exercises answer.
#
# **Prerequisites.** A little Python. No physics beyond the word *energy*.
#
# **Time.** 45 minutes for the core, 45 for all.

# %% tags=["parameters"]
dataset = (
    "demo"  # "demo" (comes with the kit), "imp2d" (the real database), "2dmd", or a folder of yours
)
quick = True  # notebooks that train do more when this is False
seed = 0

# %%
from defectkit.widgets.lesson import *

# %% [markdown]
# ## What the kit is for
#
# A *two-dimensional material* is a crystal one layer thick. A *point defect* is one wrong atom in
# it: an atom lying on the sheet (adsorbate), squeezed into it (interstitial), standing in another
# atom's place (substitution), or missing (vacancy). Defects decide whether the sheet conducts,
# glows, catalyses or becomes magnetic.
#
# Density-functional theory (DFT) computes the energy of one defect in hours or days. A model that
# has *learned* from many such computations predicts the next one in milliseconds. In these
# notebooks you clean the data, build the graphs, train the models and find out how far you may
# trust them. This is the way that one database row takes:

# %%
plots.database.route();

# %% [markdown]
# ## Does everything work?
#
# The doctor looks at versions, memory, data sets and widgets. A line that begins with ✗ says what
# to do.

# %%
from defectkit.teach import doctor

doctor.report()

# %% [markdown]
# ## The data set in use
#
# | name | what it is | labels |
# |---|---|---|
# | `demo` | comes with the kit: defects in 2D hosts, made by this project | the **CHGNet** potential, a learned model itself: **not DFT** |
# | `imp2d` | *Impurities in 2D Materials* of the Technical University of Denmark | DFT (PBE) |
# | `2dmd` | *2D Material Defects*: vacancies and substitutions, unrelaxed structures | DFT (PBE) |
# | path of a folder | your own structure files, and one CSV file with the columns `file` and `eform` (eV) | as you made them |
#
# CHGNet's labels are cheap and good enough to learn every step with. No number that you obtain
# from them is a DFT result, and the kit says so wherever labels appear. Change `dataset` in the
# cell *parameters* above. `defectkit data fetch imp2d` in a terminal gets the real thing (72 MB); the
# folder `2dmd` goes where the doctor looks for it, or into the folder that the environment variable
# `DEFECTKIT_DATA` names. Where your data lack something that a step needs, the step says so.

# %%
data = load(dataset)
teach.use(data)
print(f"{data.name}: {len(data):,} rows, labels from {data.label_source}")
known = [(s.name, s.title, s.label_source, s.licence) for s in SOURCES.values()]
checks.table(pd.DataFrame(known, columns=["name", "title", "labels", "licence"])).hide(axis="index")

# %% [markdown]
# ## One row, drawn
#
# The same structure from above and from the side. Rings mark the defect, dashed ones missing atoms.
# *Guess first:* which of the two views tells you whether an added atom is an adsorbate or an
# interstitial? A click says so, and how sure you are.

# %%
teach.guess("00-a", ("from above", "from the side"))

# %%
from defectkit.data.cleaning import IDENTITY_TOLERANCE, identity_error

frame = data.frame
complete = frame[frame.converged & (identity_error(frame).abs() < IDENTITY_TOLERANCE)]
added = complete[complete.removed == ""]
record = checks.example(
    data, added if len(added) else complete, "row with all terms of its formation energy", seed
)
row = frame.loc[record.uid]
marked, vacant = checks.defect_of(data, record)
plots.database.two_views(record.atoms, marked, checks.caption(record), vacant);

# %%
teach.reveal("00-a", "from the side")

# %% [markdown]
# The view from the side: what counts is how high the atom stands. The column `depth` has it as a
# number, 0 in the middle of the layer and 1 at its surface; an added atom below 1 is an interstitial.

# %%
if checks.has(frame.loc[[record.uid], "depth"], "depth of this defect"):
    print(f"depth {record.depth:.2f}: {record.defecttype}")

# %% [markdown]
# ## What it costs to make a defect
#
# The formation energy compares the sheet with the defect to the perfect sheet and to the atoms
# taken from, or given back to, their elemental reservoirs:
#
# $$E_\mathrm{form} = E_\mathrm{defect} - E_\mathrm{host} - \mu_\mathrm{added} + \sum \mu_\mathrm{removed}$$
#
# Small or negative: the defect forms willingly. Large: it must be forced. All energies are in
# electronvolts (eV); $\mu$ is the energy per atom of the element in its own phase. The columns
# `en2`, `hostenergy`, `dopant_chemical_potential` and `removed_chemical_potential` hold the four
# terms; `NaN` stands where a source does not keep one.

# %%
terms = ["en2", "hostenergy", "dopant_chemical_potential", "removed_chemical_potential", "eform"]
display(row[terms].to_frame(f"{record.name or record.uid}, eV"))

# %% [markdown]
# ## How the exercises work
#
# Write your answer in place of the three dots, run the cell, then run the check below it. Where a function
# is asked for, its first line is there: write the others, delete the line of dots below, and an example runs. The
# check is computed from the data in use, so it also works on other data sets; where these lack what
# the exercise asks about, it says so. A wrong answer is told what it looks like; ask again for a hint, and
# once more for the way. Try it:
#
# **Exercise 00-1.** How many rows does the data set have?

# %% tags=["solution"]
answer = len(frame)

# %%
check("00-1", answer)

# %% [markdown]
# **Exercise 00-2.** Compute the formation energy of the row drawn above from the other four terms.
# (`row.en2`, `row.hostenergy`, ... are numbers.) Answer with the pair `(row.name, energy)`.

# %% tags=["solution"]
energy = row.en2 - row.hostenergy - row.dopant_chemical_potential + row.removed_chemical_potential
answer = (row.name, energy)

# %%
check("00-2", answer)

# %% [markdown]
# **Exercise 00-3.** What computed the labels of the data set in use? Answer with the text that
# belongs in every caption you write.

# %% tags=["solution"]
answer = data.label_source

# %%
check("00-3", answer)

# %% [markdown]
# **Exercise 00-4.** In how many rows does an added impurity end up *inside* the layer? The column
# `defecttype` has already drawn the conclusion from `depth`.

# %% tags=["solution"]
answer = int((frame.defecttype == "interstitial").sum())

# %%
check("00-4", answer)

# %% [markdown]
# ## The notebooks
#
# Work through them in order. Each one says how long it takes: its core, and all of it. Sections whose heading
# ends with *(optional)* are no part of the core. With little time, run their cells, since later ones may use
# what they make, and read on. All begin with one line that brings the names which most of them need;
# `contents()` prints what these are.

# %%
from defectkit.teach import notebooks

notebooks.contents()

# %% [markdown]
# ## How far you are (optional)
#
# Exercises, guesses, and whether you are as often right as sure. What stands here is kept in the file
# `progress.json` beside the notebooks and goes nowhere; `teach.forget()` removes it.

# %%
teach.progress()

# %% [markdown]
# ## Summary
#
# * A defect is described by a structure, a formation energy (eV) and a magnetic moment (μB).
# * Every number carries its label source. CHGNet's are not DFT's.
# * Exercises answer at once and know no answer by heart: they compute it from your data.
#
# **Further reading.** J. Davidsson, F. Bertoldo, K. S. Thygesen and R. Armiento, *Absorption versus
# adsorption: high-throughput computation of impurities in 2D materials*, npj 2D Mater. Appl. **7**,
# 26 (2023). B. Deng et al., *CHGNet as a pretrained universal neural network potential for
# charge-informed atomistic modelling*, Nat. Mach. Intell. **5**, 1031 (2023).
