"""What a course needs: exercise checks, notebooks, the site of a tour."""

from defectkit.teach.checks import Verdict, check, exercise, exercise_numbers, progress, use
from defectkit.teach.journal import STRICT, forget, guess, reveal

__all__ = [
    "STRICT",
    "Verdict",
    "check",
    "exercise",
    "exercise_numbers",
    "forget",
    "guess",
    "progress",
    "reveal",
    "use",
]
