"""Python on another processor: the same program without the vector units of this one."""

import os
import platform
import subprocess
import sys

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

# NumPy refuses features that it was not built to choose at run time, so only those are named.
OPTIONAL = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
WITHOUT = {
    "without AVX-512": [name for name in OPTIONAL if name.startswith(("AVX512", "X86_V4"))],
    "baseline": OPTIONAL,
}
# The other libraries that look at the processor: OpenBLAS and PyTorch.
OLDER = {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "default"}

other_processors = pytest.mark.parametrize("processor", WITHOUT)


def run_on(processor: str, code: str, *arguments: object) -> str:
    """What `code` prints on one of the processors of `WITHOUT`, or on this one ("here")."""
    missing = WITHOUT.get(processor, [])
    if processor != "here" and not missing:
        pytest.skip("NumPy chooses nothing by this processor")
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": " ".join(missing)}
    if processor == "here":
        environment = dict(os.environ)
    elif platform.machine() == "x86_64":
        environment |= OLDER
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
