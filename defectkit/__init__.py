"""defectkit: learn and use machine learning for point defects in two-dimensional materials."""

__version__ = "0.1.0"


class DefectkitError(Exception):
    """What a person can mend: says what is wrong with which file, row or atom, and what to do."""
