"""No fault loses work or changes a number."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pitfalls.runs import files
from pitfalls.runs.lock import is_running
from pitfalls.runs.records import MetricsRow
from pitfalls.training import checkpoint, trackers
from tests.faults.conftest import TIMES, Judge
from tests.tiny_runs import N_ROWS, TINY, plain, rows, start, when

pytestmark = pytest.mark.slow


def spread(n: int) -> list[int]:
    """Return TIMES different numbers in 1..n, evenly spread, or the middle one if TIMES is 1."""
    if TIMES == 1:
        return [n // 2]
    return sorted({1 + (n - 2) * i // max(1, TIMES - 1) for i in range(TIMES)})


def again(runs_dir: Path, log: Path, *overrides: str) -> str:
    """Give the same command once more, which has to succeed, and return its output."""
    child = start([*TINY, *overrides, f"runs_dir={runs_dir}"], log.with_suffix(".again"))
    assert child.wait() == 0, child.text
    return child.text


# ------------------------------------------------------------------ killed


@pytest.mark.parametrize("place", spread(N_ROWS))
def test_kill_9_during_training(tmp_path: Path, judge: Judge, place: int):
    child = start([*TINY, f"runs_dir={tmp_path / 'runs'}"], tmp_path / "log")
    when(lambda: rows(tmp_path / "runs") >= place, child)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    (run_dir,) = (tmp_path / "runs").glob("*-*")
    assert (run_dir / "running.json").exists(), "its claim is stale"
    again(tmp_path / "runs", tmp_path / "log")
    judge("kill -9 during training (and the stale claim of a dead process)", tmp_path / "runs")


def kill_at(k: int, owner: object, name: str, half: Callable[..., object] = lambda *args: None) -> Callable[[], None]:
    """Return an injection that ends the process at the k-th call of a function, after ``half`` of its work."""

    def inject() -> None:
        calls, operation = iter(range(10**6)), getattr(owner, name)

        def call(*args: object, **kwargs: object) -> object:
            if next(calls) == k:
                half(*args)
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*args, **kwargs)

        setattr(owner, name, call)

    return inject


def killed(tmp_path: Path, inject: Callable[[], None]) -> None:
    child = start([*TINY, f"runs_dir={tmp_path / 'runs'}"], tmp_path / "log", inject)
    assert child.wait() == -signal.SIGKILL, child.text
    assert not list((tmp_path / "runs").glob("*/record.json"))
    again(tmp_path / "runs", tmp_path / "log")


@pytest.mark.parametrize("k", spread(9))
def test_kill_9_while_a_tensor_file_of_a_checkpoint_is_written(tmp_path: Path, judge: Judge, k: int):
    """There are three checkpoints with three such files each."""

    def half(tensors: object, path: Path) -> None:
        path.write_bytes(b"\x40\0\0\0\0\0\0\0{")

    killed(tmp_path, kill_at(k - 1, checkpoint, "save_file", half))
    judge("kill -9 during a checkpoint write", tmp_path / "runs")


@pytest.mark.parametrize("name", ["write_json", "_fsync"])
@pytest.mark.parametrize("k", spread(6))
def test_kill_9_between_the_steps_of_a_checkpoint_write(tmp_path: Path, judge: Judge, name: str, k: int):
    killed(tmp_path, kill_at(k - 1, checkpoint, name))
    judge("kill -9 during a checkpoint write", tmp_path / "runs")


@pytest.mark.parametrize("name", ["open", "fsync", "replace"])
def test_kill_9_while_the_record_is_written(tmp_path: Path, judge: Judge, name: str):
    def inject() -> None:
        write = files.write_bytes

        def write_bytes(path: Path, data: bytes) -> None:
            if path.name == "record.json":
                if name == "open":
                    path.with_name(f".{path.name}.{os.getpid()}").write_bytes(data[: len(data) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                kill_at(0, os, name)()
            write(path, data)

        files.write_bytes = write_bytes

    killed(tmp_path, inject)
    (run_dir,) = (tmp_path / "runs").glob("*-*")
    assert not list(run_dir.glob(".*")), "half a record stays for ever"
    judge("kill -9 during record writing", tmp_path / "runs")


@pytest.mark.parametrize("k", spread(N_ROWS))
def test_kill_9_in_the_middle_of_a_line_of_metrics(tmp_path: Path, judge: Judge, k: int):
    def half(self: trackers.JsonLines, row: MetricsRow) -> None:
        self._file.write(json.dumps(plain(row))[:20])
        self._file.flush()

    killed(tmp_path, kill_at(k - 1, trackers.JsonLines, "log", half))
    judge("kill -9 in the middle of a line of metrics", tmp_path / "runs")


# ------------------------------------------------------------------ asked to stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", spread(N_ROWS - 4))
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(tmp_path: Path, judge: Judge, number: int, place: int):
    def slower() -> None:
        log = trackers.JsonLines.log
        trackers.JsonLines.log = lambda self, row: (log(self, row), time.sleep(0.05))

    command = [*TINY, f"runs_dir={tmp_path / 'runs'}"]
    child = start(command, tmp_path / "log", slower)
    when(lambda: rows(tmp_path / "runs") >= place, child)
    os.kill(child.pid, number)
    assert child.wait() == 130, child.text
    said = child.text.splitlines()[-1]
    assert f"stopped by {signal.Signals(number).name} after step" in said
    assert said.endswith(" ".join(["python scripts/train.py", *command]))
    step = int(said.split("after step ")[1].split(";")[0])
    assert f"continues after step {step}" in again(tmp_path / "runs", tmp_path / "log")
    judge("SIGTERM or Ctrl-C", tmp_path / "runs")


# ------------------------------------------------------------------ disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no right to mount a small disk here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("place", spread(100))
def test_a_full_disk(tmp_path: Path, small_disk: Path, judge: Judge, place: int):
    """The disk has space for only some of a run's files."""
    ballast = small_disk / "ballast"
    room = 400_000 * place // 100
    ballast.write_bytes(bytes(2 * 2**20 - room - room % 4096))
    child = start([*TINY, f"runs_dir={small_disk / 'runs'}"], tmp_path / "log")
    assert child.wait() == 1, child.text
    assert "error: " in child.text.splitlines()[-1]
    assert "No space left on device" in child.text.splitlines()[-1] or "os error 28" in child.text.splitlines()[-1]
    ballast.unlink()
    again(small_disk / "runs", tmp_path / "log")
    judge("disk full", small_disk / "runs")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("injure", [truncate, flip_a_bit])
@pytest.mark.parametrize("name", ["trunk.safetensors", "optimizer.safetensors", "state.json", "checksums.json"])
def test_a_damaged_checkpoint(tmp_path: Path, judge: Judge, injure: Callable[[Path], None], name: str):
    child = start([*TINY, f"runs_dir={tmp_path / 'runs'}"], tmp_path / "log")
    when(lambda: bool(list((tmp_path / "runs").glob("*/checkpoint/step_00000008/checksums.json"))), child)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGKILL)
    child.wait()
    (run_dir,) = (tmp_path / "runs").glob("*-*")
    (run_dir / "record.json").unlink(missing_ok=True)
    newest = max((run_dir / "checkpoint").glob("step_*"))
    injure(newest / name)
    said = again(tmp_path / "runs", tmp_path / "log")
    assert f"{newest} is damaged" in said
    assert "continues after step" in said, "the one before it is whole"
    judge("checkpoint truncated or a bit flipped", tmp_path / "runs")


# ------------------------------------------------------------------ numbers and clocks


def test_a_loss_that_is_nan_is_kept_with_its_reason_and_tried_again(tmp_path: Path, judge: Judge):
    """The other runs of the sweep still finish."""
    jobs = ["-m", *TINY, "seed=0,1", "training.lr=1e-3,1e20", f"runs_dir={tmp_path / 'runs'}"]
    for k in range(TIMES):
        child = start(jobs, tmp_path / f"log{k}")
        assert child.wait() == 1
        failures = [json.loads(path.read_text()) for path in (tmp_path / "runs").glob("*/failure.json")]
        assert len(failures) == 2
        assert all("loss=nan" in failure["error"] for failure in failures)
        assert all("Traceback" in failure["traceback"] for failure in failures)
        assert sorted(o for f in failures for o in f["overrides"] if o.startswith(("seed", "training.lr"))) == [
            "seed=0",
            "seed=1",
            "training.lr=1e+20",
            "training.lr=1e+20",
        ]
        assert child.text.count("FAILED [") == 2, "each is tried again"
        judge("NaN loss of a sibling in a sweep", tmp_path / "runs", [("seed=0",), ("seed=1",)])


def test_a_clock_that_goes_backwards(tmp_path: Path, judge: Judge):
    def backwards() -> None:
        start_time = time.time()
        started = time.perf_counter()
        time.time = lambda: start_time - 1000 * (time.perf_counter() - started)

    for k in range(TIMES):
        runs_dir = tmp_path / str(k)
        child = start([*TINY, f"runs_dir={runs_dir}"], tmp_path / "log", backwards)
        when(lambda: rows(runs_dir) >= 9, child)  # noqa: B023
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        for path in runs_dir.rglob("*"):  # as a clock that was then right would have dated them
            os.utime(path, (2**31, 2**31))
        child = start([*TINY, f"runs_dir={runs_dir}"], tmp_path / "log", backwards)
        assert child.wait() == 0, child.text
        judge("clock going backwards", runs_dir)


# ------------------------------------------------------------------ sweeps

SEEDS = [(f"seed={s}",) for s in range(6)]


def test_two_sweeps_at_once_train_every_run_once(tmp_path: Path, judge: Judge):
    for k in range(TIMES):
        runs_dir = tmp_path / str(k)
        command = ["-m", *TINY, "seed=" + ",".join(map(str, range(6))), f"runs_dir={runs_dir}"]
        children = [start(command, tmp_path / f"log{k}{i}") for i in range(2)]
        for child in children:
            assert child.wait() in (0, 1), child.text  # the first to end says which runs the other one still trains
        text = "".join(child.text for child in children)
        assert text.count(" 0 samples  test exact") == 6, "a run was trained twice, or never"
        judge("two sweeps at once over one grid", runs_dir, SEEDS)


LONG = "training.n_steps=100"


def worker_killed(tmp_path: Path, launcher: str) -> tuple[int, int, str]:
    """Kill a worker in a sweep of three runs. Return the sweep's status, the number of finished runs, and the output."""
    runs_dir = tmp_path / "runs"
    command = [
        "python",
        "scripts/train.py",
        "-m",
        f"hydra/launcher={launcher}",
        *TINY,
        LONG,
        "seed=0,1,2",
        f"runs_dir={runs_dir}",
    ]
    shutil.rmtree(runs_dir, ignore_errors=True)
    with (tmp_path / "sweep.log").open("w") as log:
        sweep = subprocess.Popen([os.sys.executable, *command[1:]], stdout=log, stderr=log)
        end = time.monotonic() + 240
        while not (holders := list(runs_dir.glob("*-s1-*/running.json"))):
            assert time.monotonic() < end
            assert sweep.poll() is None, (tmp_path / "sweep.log").read_text()
            time.sleep(0.02)
        os.kill(json.loads(holders[0].read_text())["pid"], signal.SIGKILL)
        status = sweep.wait(timeout=300)
    end = time.monotonic() + 120
    while any(is_running(path) for path in runs_dir.glob("*-*")) and time.monotonic() < end:
        time.sleep(0.2)  # siblings that outlive the launcher
    return status, len(list(runs_dir.glob("*/record.json"))), (tmp_path / "sweep.log").read_text()


@pytest.mark.parametrize(
    ("launcher", "module", "finish"),
    [
        ("laptop", "hydra_plugins.hydra_joblib_launcher", 0),
        ("slurm_here", "hydra_plugins.hydra_submitit_launcher", 2),
        ("ray_here", "hydra_plugins.hydra_ray_launcher", 3),
    ],
)
def test_a_worker_of_a_sweep_is_killed(tmp_path: Path, judge: Judge, launcher: str, module: str, finish: int):
    """joblib gives up the current runs, submitit finishes the others, Ray starts the run again. The next call trains the rest."""
    pytest.importorskip(module)
    status, finished, text = worker_killed(tmp_path, launcher)
    assert finished >= finish, text
    assert status == (0 if finished == 3 else 1), text
    assert ("of 3 runs are not finished" in text) == (finished < 3)
    runs_dir = tmp_path / "runs"
    child = start(["-m", *TINY, LONG, "seed=0,1,2", f"runs_dir={runs_dir}"], tmp_path / "log")
    assert child.wait() == 0, child.text
    assert child.text.count("test exact_match") == 3 - finished
    judge(f"a worker of a sweep killed ({launcher})", runs_dir, [(LONG, f"seed={s}") for s in range(3)])
