"""Work handed to others: processes on this machine, or a Dask cluster whose address is known."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import islice

from defectkit import DefectkitError
from defectkit.structures.names import one_line
from defectkit.structures.writing import process_pool

AHEAD = 64  # tasks handed out before their results are collected
PATIENCE = 30  # s until a scheduler answers


@contextmanager
def executor(
    workers: int | None, scheduler: str | None, initializer: Callable[[], None] | None = None
) -> Iterator[Executor]:
    """Processes, one per core by default, each begun by `initializer`; or a Dask cluster.

    Args:
        workers: how many processes.
        scheduler: address of a Dask scheduler, such as tcp://host:8786, to use instead. Its workers
            need this kit installed.
        initializer: what a process does first; workers of a cluster do not.

    Raises DefectkitError where no scheduler answers.
    """
    if scheduler is None:
        with process_pool(workers, initializer) as pool:
            yield pool
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise DefectkitError(
            "A scheduler needs Dask, which is not installed; install defectkit[dask]."
        ) from error
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise DefectkitError(
            f"No Dask scheduler answers at {one_line(scheduler)} ({one_line(error)}); start one, "
            "or leave the address out."
        ) from error
    with client, client.get_executor() as cluster:
        yield cluster


def ahead(pool: Executor, function: Callable, tasks: Iterator[tuple]) -> Iterator:
    """Results in the order of the tasks, with at most `AHEAD` of them under way."""
    waiting = deque(pool.submit(function, *task) for task in islice(tasks, AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(function, *task) for task in islice(tasks, 1))
