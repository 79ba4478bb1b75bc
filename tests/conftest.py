import os
from pathlib import Path

import pytest
from imp2d_fixture import write_trap_database

from defectkit.data import Dataset, load
from defectkit.data.splits import Split, make_split

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real DFT files: `DEFECTKIT_REAL_DATA`, else `../shared/real`."""
    default = REPOSITORY.parent / "shared" / "real"
    folder = Path(os.environ.get("DEFECTKIT_REAL_DATA") or default)
    if not (folder / "imp2d_rows.json").is_file():
        reason = f"no real DFT files at {folder}; set DEFECTKIT_REAL_DATA to their folder"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return folder


@pytest.fixture(scope="session")
def pilot(real_data) -> Dataset:
    """The 200 real rows of 2DMD."""
    return load("2dmd", real_data / "2dmd_pilot")


@pytest.fixture(scope="session")
def trap_database(tmp_path_factory) -> Path:
    """A database with Imp2d's schema that holds every known trap of the real one."""
    return write_trap_database(tmp_path_factory.mktemp("imp2d") / "imp2d.db")


@pytest.fixture(scope="session")
def rows() -> Dataset:
    """110 demo rows of small cells, for tests that train."""
    whole = load("demo")
    usable = whole.frame[whole.frame.converged & (whole.frame.natoms < 32)]
    return whole.subset(usable.sample(110, random_state=0).index)


@pytest.fixture(scope="session")
def split(rows) -> Split:
    """Of those rows."""
    return make_split(rows)


@pytest.fixture(scope="session")
def few(rows) -> tuple[Dataset, Split]:
    """Sixteen of those rows, and a split of them."""
    chosen = rows.subset(rows.frame.index[:16])
    return chosen, make_split(chosen)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """A module's tests find no graphs of others and leave none behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTKIT_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def double_precision():
    """Float64 on one thread, for the test that uses it."""
    import torch

    before = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # threads would cost small graphs more than they gain
    yield
    torch.set_default_dtype(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture
def no_windows():
    """Figures go nowhere, none is left, and a style set meanwhile goes with them."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.use("Agg")
    with mpl.rc_context():
        yield
    plt.close("all")
