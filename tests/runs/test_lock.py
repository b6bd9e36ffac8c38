"""The lock of a run: at most one process trains it, however processes end."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pitfalls.runs.lock import RunLock, RunTakenError, is_running, read_holder

HOLD = """
import sys, time
from pathlib import Path
from pitfalls.runs.lock import RunLock
with RunLock(Path(sys.argv[1]), 7):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path):
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_that_another_process_trains_is_refused_by_its_name(tmp_path: Path, other: subprocess.Popen):
    assert is_running(tmp_path)
    assert read_holder(tmp_path).n_steps == 7
    with pytest.raises(RunTakenError, match=f"process {other.pid} on .* is training this run"), RunLock(tmp_path, 7):
        pass


def test_the_claim_of_a_killed_process_is_gone_at_once(tmp_path: Path, other: subprocess.Popen):
    """Guards against a run that nobody may train until some time has passed, or for ever."""
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert read_holder(tmp_path).pid == other.pid, "what it wrote about itself is still there"
    assert not is_running(tmp_path)
    with RunLock(tmp_path, 9):
        assert read_holder(tmp_path).pid == os.getpid()
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    assert read_holder(tmp_path) is None


def test_no_clock_decides(tmp_path: Path, other: subprocess.Popen):
    """Guards against a claim that looks stale, or from the future, to a clock that was set."""
    for seconds in (0, 2**31):
        for name in ("running.lock", "running.json"):
            os.utime(tmp_path / name, (seconds, seconds))
        assert is_running(tmp_path)
    other.kill()
    other.wait()
    assert not is_running(tmp_path)


def test_whoever_looks_does_not_keep_a_start_from_the_lock(tmp_path: Path):
    """Guards against a status display that makes a run believe that it is taken."""
    with RunLock(tmp_path, 1):
        pass
    end = time.monotonic() + 2
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(lambda: [is_running(tmp_path) for _ in iter(lambda: time.monotonic() < end, False)])
        for _ in range(20):
            with RunLock(tmp_path, 1):
                pass
        assert len(looking.result()) > 20


@pytest.mark.slow
def test_of_many_who_start_at_once_one_trains(tmp_path: Path):
    """Four processes start at once, ten times."""
    code = HOLD.replace("time.sleep(60)", "time.sleep(2)")
    for k in range(10):
        folder = tmp_path / str(k)
        folder.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            for _ in range(4)
        ]
        outputs = [process.communicate()[0] for process in processes]
        assert sorted(outputs) == ["", "", "", "held\n"]
