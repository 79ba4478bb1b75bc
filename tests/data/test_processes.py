"""Worker processes end with the process that started them, even where that is killed."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from defectkit.structures.writing import process_pool

PARENT = """
import os, time
from defectkit.structures.writing import process_pool

if __name__ == "__main__":
    with process_pool(2) as pool:
        work = {work}
        print(*{{pool.submit(os.getpid).result() for _ in range(20)}}, flush=True)
        time.sleep(600)
"""
BUSY = "[pool.submit(time.sleep, 600)]"  # one works, one waits for work


@pytest.mark.parametrize("work", ["[]", BUSY], ids=["idle", "busy"])
def test_workers_end_when_their_parent_is_killed(tmp_path, work):
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(work=work))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout.readline().split()
    started = psutil.Process(parent.pid).children(recursive=True)
    workers = [process for process in started if "spawn_main" in " ".join(process.cmdline())]
    assert len(workers) == (1 if work == "[]" else 2)
    parent.kill()
    parent.wait()
    end = time.monotonic() + 20
    while any(map(psutil.Process.is_running, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [w for w in workers if w.is_running() and w.status() != psutil.STATUS_ZOMBIE]
    assert left == []


def test_each_worker_begins_with_the_initializer():
    with process_pool(1, _mark) as pool:
        assert pool.submit(os.getenv, "MARKED").result() == "yes"
    assert "MARKED" not in os.environ


def _mark() -> None:
    os.environ["MARKED"] = "yes"
