"""defectkit: learn and use machine learning for point defects in two-dimensional materials."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["DefectRecord", "DefectkitError", "Predictor", "__version__", "load"]

# Loaded when they are first used: they bring pandas and PyTorch with them.
_HOMES = {
    "DefectRecord": "defectkit.structures.record",
    "Predictor": "defectkit.predict.predictor",
    "load": "defectkit.data",
}


class DefectkitError(Exception):
    """What a person can mend: says what is wrong with which file, row or atom, and what to do."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'defectkit' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
