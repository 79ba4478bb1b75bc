"""The data card of the demo database, from the database itself."""

from pathlib import Path

import pandas as pd
from ase.db import connect

from defectkit import DefectkitError
from defectkit.data.demo import MAX_STRAIN, check_demo_database
from defectkit.data.potential import COARSE_FMAX, COARSE_STEPS, FINE_FMAX, FINE_STEPS
from defectkit.data.readers import read_demo
from defectkit.data.starts import MORE_STARTS, STARTS
from defectkit.structures.hosts import HOSTS, MIN_ATOMS, MIN_IMAGE_DISTANCE, VACUUM
from defectkit.structures.record import MOMENT_FLOOR
from defectkit.structures.writing import write_text
from defectkit.training.pretrained import PUBLISHED

QUANTILES = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
LIMITS = """## What CHGNet is good and bad at

* Trained on relaxation paths of bulk crystals (PBE and PBE+U of the Materials Project), it has seen
  few slabs and few defects. Trends between chemically similar defects are useful, single energies
  may be wrong by an electronvolt.
* Its potential-energy surface is softer than DFT's: forces, and with them relaxation energies, come
  out too small in strained surroundings.
* No charge states, no spin polarisation that one could set: its moments are magnitudes without
  sign, so antiferromagnets look like ferromagnets.
* No dispersion forces: physisorbed atoms are bound too weakly.
* Germanene, stanene and graphane are missing: the first two collapse into a denser phase under
  CHGNet, the third costs twenty times more than any other host.

"""
LICENCE = """## Licence and citation

The database: MIT, as the kit. The potential: B. Deng et al., Nat. Mach. Intell.
5, 1031 (2023). The schema follows Imp2d: J. Davidsson et al., npj 2D Mater. Appl. 7, 26 (2023).
"""


def write_card(database: Path, path: Path) -> None:
    """Write the card of the demo `database` to the Markdown file `path`.

    Raises DefectkitError where there is no demo database or the card cannot be written.
    """
    check_demo_database(database)
    frame = read_demo(database).frame
    metadata = connect(database, type="db", use_lock_file=False).metadata
    if not metadata["runs"]:
        raise DefectkitError(f"{database} has no rows yet; `defectkit demo build` computes them.")
    write_text(path, _card(frame, metadata, database))


def _card(frame: pd.DataFrame, metadata: dict, database: Path) -> str:
    """The page, in Markdown."""
    return "".join(
        [
            _contents(frame, metadata, database),
            _method(metadata),
            _starts(),
            LIMITS,
            _worth(),
            _references(frame, metadata),
            LICENCE,
        ]
    )


def _contents(frame: pd.DataFrame, metadata: dict, database: Path) -> str:
    """What the rows hold, in numbers."""
    types = frame.groupby("defecttype").agg(
        rows=("eform", "size"),
        converged=("converged", "sum"),
        eform_median=("eform", "median"),
        spin_median=("spin", "median"),
        atoms_median=("natoms", "median"),
    )
    quantiles = frame[["eform", "spin", "depth", "extension_factor", "max_force"]].quantile(
        QUANTILES
    )
    vacancies = frame.defecttype.isin(["vacancy", "complex"]).mean()
    dopants = frame.dopant[frame.dopant != ""].nunique()
    families = {host["family"] for host in metadata["hosts"].values()}
    return f"""# Data card: `{database.name}`

Point defects in two-dimensional hosts, **computed with the universal potential CHGNet, not with
DFT**. Every row carries `label_source = "{metadata["label_source"]}"`. Use it to learn the
methods; do not quote its energies as those of DFT or of an experiment. This page is written by
`defectkit demo card` from the database.

## What is in it

* {len(frame):,} rows, {int(frame.converged.sum()):,} of them `converged`
* {frame.host.nunique()} hosts of {len(families)} prototype families, {dopants} dopants
* {vacancies:.0%} of the rows hold at least one vacancy
* {(frame.strain != 0).mean():.0%} stand on a host strained biaxially by up to {MAX_STRAIN:.0%},
  their energy taken against the equally strained host
* {len(metadata["failed"])} candidates could not be computed
* {database.stat().st_size / 1e6:.1f} MB, an ASE SQLite database

{types.round(2).to_markdown()}

Quantiles (eform in eV, spin in μB, forces in eV/Å):

{quantiles.round(3).to_markdown()}

"""


def _method(metadata: dict) -> str:
    """How the rows were computed, and how long that took."""
    seconds = sum(run["seconds"] for run in metadata["runs"])
    computed = sum(run["rows"] for run in metadata["runs"])
    workers = max(run["workers"] for run in metadata["runs"])
    return f"""## How it was made

`defectkit demo build`, seed {metadata["seed"]}.

1. **Hosts** are built from prototypes and published lattice constants; positions and in-plane cell
   are relaxed with CHGNet, with {VACUUM:g} Å of vacuum along z. The supercell is the smallest
   repetition with at least {MIN_ATOMS} atoms and {MIN_IMAGE_DISTANCE:g} Å between a defect and its
   image.
2. **Sites.** Adsorbates: symmetry-distinct top, bridge and hollow sites from pymatgen, at the
   height where covalent spheres touch, on both sides where these differ. Interstitials: Voronoi
   vertices inside the layer. Substitutions and vacancies: one atom of each sublattice. `div`:
   pairs of near-neighbour vacancies. `cpx`: a vacancy beside a substitution.
3. **Rows** are drawn from all of host x site x dopant, kind by kind in fixed shares. A longer run
   keeps them and adds the first candidates of one seeded order that are not there yet.
4. **Relaxation** at fixed cell with BFGS in two stages, to {COARSE_FMAX} eV/Å (at most
   {COARSE_STEPS} steps) and to {FINE_FMAX} eV/Å (at most {FINE_STEPS} more). `conv1` and `conv2`
   are the energy changes over the last step of each stage; `converged` is |conv1| <= 0.05 eV, as
   in Imp2d. Rows that did not settle, adatoms that flew off and layers that fell apart stay in.
5. **Formation energy** `eform = en2 - hostenergy - dopant_chemical_potential +
   removed_chemical_potential` (eV), with elemental phases computed by the same potential (below).
   `spin` is the sum of CHGNet's unsigned site moments of at least {MOMENT_FLOOR} μB.
6. `depth` is 2 |z - z_mid| / thickness of the relaxed layer, `extension_factor` the thickness of
   the relaxed layer over that of the pristine one, both without unit. An added atom is an
   `interstitial` where depth < 1, else an `adsorbate`: what it relaxed to decides, not where it
   started.

`data` of each row holds `unrelaxed_positions`, `site_magmoms` and `defect_positions` (the ideal
sites: added or replaced atom first, then vacancies). The dopant `X` means that no atom was added.

Timing: {computed:,} rows in {seconds / 60:.0f} minutes with {workers} processes on
{metadata["runs"][-1]["cpus"]} cores that also did other work, {computed / seconds:.2f} rows/s.

"""


def _starts() -> str:
    """What the other databases are."""
    tests, more = (len(read_demo(path)) for path in (STARTS, MORE_STARTS))
    command = "defectkit demo build --starts-of data/demo2d.db"
    return f"""## Random starts: `{STARTS.name}` and `{MORE_STARTS.name}`

{tests} and {more:,} further rows of the same hosts and label source, made by
`{command} --output data/{STARTS.name}` and
`{command} --output data/{MORE_STARTS.name} --seed 1`. Their atoms
begin where no recipe puts them: an added atom anywhere above, below or inside the layer, a
substituted one beside its site.

* `{STARTS.name}` is **for tests only:** nothing is trained or tuned on it.
* From `{MORE_STARTS.name}` the models for unrelaxed input learn beside the recipe's rows, and their
  intervals and guard are calibrated on a fifth of it (`data.more`). Rows that relax to a structure
  which is held out elsewhere are left out.

"""


def _worth() -> str:
    """What the labels are worth beside those of DFT and of other potentials."""
    pairs = pd.read_csv(PUBLISHED / "potentials.csv").fillna("")
    defects = pd.read_csv(PUBLISHED / "potential_defects.csv")
    pairs.columns = ["potential", "version", "correlation (Pearson)", "MAE (eV)"]
    return f"""## What a potential's labels are worth

Five universal potentials against real rows of Imp2d, 135 pairs of adsorbates, and against DFT for
three single vacancies (eV), as they were reported to this project:

{pairs.to_markdown(index=False)}

{defects.to_markdown(index=False)}

Substitutions agree within 0.1 eV. None of them is right everywhere, and vacancies of a metal come
out far too cheap: a model that learns these labels perfectly is still that far from DFT.

"""


def _references(frame: pd.DataFrame, metadata: dict) -> str:
    """Tables of the hosts and of the elemental phases."""
    hosts = pd.DataFrame(
        {
            name: {
                "family": HOSTS[name].family,
                "space group": host["spacegroup"],
                "supercell": "x".join(map(str, host["repeat"])),
                "a (Å)": f"{sum(x * x for x in host['cell'][0]) ** 0.5:.3f}",
                "rows": int((frame.host == name).sum()),
            }
            for name, host in metadata["hosts"].items()
        }
    ).T
    phases = pd.DataFrame(metadata["chemical_potentials"]).T
    return f"""## Hosts

{hosts.to_markdown()}

## Elemental reference phases

{phases.to_markdown()}

"""
