"""Benchmarks: `defectkit bench NAME` measures and writes `data/benchmarks/NAME.csv`.

Also the report on finished runs, and the tables and figures of README.
"""

from defectkit.bench.measure import (
    BENCHES,
    ON_DATA,
    STUDIES,
    in_own_process,
    peak_mb,
    run,
    shortest_ms,
)

__all__ = ["BENCHES", "ON_DATA", "STUDIES", "in_own_process", "peak_mb", "run", "shortest_ms"]
