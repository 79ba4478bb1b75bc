"""Pools of worker processes that end with the process that started them, however it ends."""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from threading import Thread


def process_pool(
    workers: int | None = None, initializer: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """Spawned workers, one per core by default, each beginning with `initializer`.

    Spawned, so that a worker does not start with what its parent has loaded.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin, (initializer,))


def _begin(initializer: Callable[[], None] | None) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer()


def _end_with_parent() -> None:
    """End this worker with its parent, which cannot end its workers where it is killed."""
    parent_process().join()
    os._exit(1)
