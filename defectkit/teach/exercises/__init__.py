"""Judges of the notebooks' exercises, one module a notebook."""
