"""What a course needs: exercise checks, notebooks, pages, the guided tour."""

from defectkit.teach.checks import STRICT, Verdict, check, exercise, exercise_numbers, use

__all__ = ["STRICT", "Verdict", "check", "exercise", "exercise_numbers", "use"]
