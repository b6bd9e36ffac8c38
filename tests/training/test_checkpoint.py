"""Checkpoints: whole or not at all, bit for bit, and nothing that can run code."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pitfalls.runs.files import FileError
from pitfalls.seeding import generator
from pitfalls.training import checkpoint
from pitfalls.training.checkpoint import Progress
from tests.one_part import one_part
from tests.small_models import small_preset


class Extra(nn.Module):
    """An objective's own parameters and a buffer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.head = nn.Linear(20, 3, bias=False)
        self.register_buffer("seen", torch.zeros(2, dtype=torch.long))
        nn.init.normal_(self.head.weight, generator=generator(seed, "objective_init"))


class Training:
    """Trunk, extra parameters and optimizer, trained for some steps."""

    def __init__(self, trunk: nn.Module, extra: nn.Module) -> None:
        self.trunk, self.extra = trunk, extra
        groups = [{"params": [*trunk.parameters()], "weight_decay": 0.1}, {"params": [*extra.parameters()]}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0, fused=True)

    def train(self, n_steps: int, first: int = 0) -> None:
        for step in range(first, first + n_steps):
            tokens = torch.randint(0, 10, (4, 9), generator=generator(0, "data", step))
            hidden = self.trunk(tokens).normed
            loss = self.trunk.logits(hidden).square().mean() + self.extra.head(hidden).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.extra.seen += step

    def save(self, folder: Path, step: int) -> Path:
        return checkpoint.save(
            folder, trunk=self.trunk, objective=self.extra, optimizers=one_part(self.optimizer), progress=Progress(step=step)
        )

    def load(self, path: Path) -> Progress:
        return checkpoint.load(path, trunk=self.trunk, objective=self.extra, optimizers=one_part(self.optimizer))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return everything that a checkpoint has to bring back, by name."""
        moments = {
            f"{i}.{name}": torch.as_tensor(value)
            for i, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        return {k: v.clone() for k, v in {**self.trunk.state_dict(), **self.extra.state_dict(), **moments}.items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name]) or a[name].dtype != b[name].dtype] == []


@pytest.fixture
def trained(make_trunk: Callable[..., nn.Module]) -> Training:
    """A training after three steps."""
    made = Training(make_trunk(), Extra())
    made.train(3)
    return made


@pytest.fixture
def other(make_trunk: Callable[..., nn.Module]) -> Training:
    """A training of the same shapes with other weights, before its first step."""
    return Training(make_trunk(seed=9), Extra(seed=9))


# ------------------------------------------------------------------ round trip


def test_everything_comes_back_bit_for_bit(trained: Training, other: Training, tmp_path: Path):
    path = trained.save(tmp_path, 3)
    other.load(path)
    assert_same(trained.tensors(), other.tensors())
    groups, loaded = (json.dumps(c.optimizer.state_dict()["param_groups"]) for c in (trained, other))
    assert groups == loaded


def test_training_goes_on_bit_for_bit(trained: Training, other: Training, tmp_path: Path):
    """Guards against moments or step counts that come back but are not used (bias correction would start again)."""
    other.load(trained.save(tmp_path, 3))
    trained.train(2, first=3)
    other.train(2, first=3)
    assert_same(trained.tensors(), other.tensors())


def test_training_of_a_hybrid_goes_on_bit_for_bit(make_trunk: Callable[..., nn.Module], tmp_path: Path):
    """Guards against a parameter of a class of transformers that a checkpoint leaves out."""
    first, other = (Training(make_trunk(seed, small_preset("qwen3_next_tiny")), Extra(seed)) for seed in (0, 9))
    first.train(3)
    other.load(first.save(tmp_path, 3))
    for training in (first, other):
        training.train(2, first=3)
    assert_same(first.tensors(), other.tensors())


def test_tied_embeddings_stay_tied(trained: Training, other: Training, tmp_path: Path):
    """Guards against an unembedding that is loaded as a copy and then trained apart."""
    other.load(trained.save(tmp_path, 3))
    lm = other.trunk.lm
    assert lm.get_input_embeddings().weight is lm.get_output_embeddings().weight


def test_progress_comes_back(trained: Training, other: Training, tmp_path: Path):
    progress = Progress(step=7, stop_hits=2, wall_s=1.5, cpu_s=2.25, finished=True)
    path = checkpoint.save(
        tmp_path,
        trunk=trained.trunk,
        objective=trained.extra,
        optimizers=one_part(trained.optimizer),
        progress=progress,
    )
    assert other.load(path) == progress


def test_weights_alone_can_be_loaded(trained: Training, other: Training, tmp_path: Path):
    """Guards against a reader whose random state is changed by the run."""
    path = trained.save(tmp_path, 3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    checkpoint.load(path, trunk=other.trunk, objective=other.extra)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(trained.trunk.state_dict(), other.trunk.state_dict())
    assert not other.optimizer.state_dict()["state"]


def test_an_objective_without_parameters_round_trips(trained: Training, make_objective, tmp_path: Path):
    objective = make_objective("next_token")
    path = checkpoint.save(
        tmp_path, trunk=trained.trunk, objective=objective, optimizers=one_part(trained.optimizer), progress=Progress(step=1)
    )
    assert checkpoint.load(path, trunk=trained.trunk, objective=objective).step == 1


# ------------------------------------------------------------------ files


def test_files_are_safetensors_and_json_only(trained: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against pickle: loading a checkpoint from elsewhere must not run code."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("pickled")

    monkeypatch.setattr(torch, "save", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    path = trained.save(tmp_path, 3)
    trained.load(path)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert sorted(file.name for file in files) == [
        "checksums.json",
        "objective.safetensors",
        "optimizer.safetensors",
        "state.json",
        "trunk.safetensors",
    ]
    for file in files:
        _ = json.loads(file.read_text()) if file.suffix == ".json" else load_file(file)


def test_there_is_no_latest_checkpoint_before_the_first(tmp_path: Path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None


def test_the_latest_checkpoint_and_the_one_before_it_are_kept(trained: Training, tmp_path: Path):
    """Guards against a disk that fills up, also with what a crash left behind."""
    (tmp_path / ".partial_step_00000001").mkdir(parents=True)
    for step in (3, 5, 11):
        path = trained.save(tmp_path, step)
        assert checkpoint.latest(tmp_path) == path == tmp_path / f"step_{step:08d}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_00000005", "step_00000011"]


FILES = ["checksums.json", "objective.safetensors", "optimizer.safetensors", "state.json", "trunk.safetensors"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def link_elsewhere(path: Path) -> None:
    path.replace(path.parents[2] / path.name)
    path.symlink_to(path.parents[2] / path.name)


@pytest.mark.parametrize("injure", [truncate, flip_a_bit, link_elsewhere, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_passed_over_and_said(
    trained: Training, other: Training, tmp_path: Path, caplog, injure, name: str
):
    """Guards against weights that a disk has changed, and a run that starts again although an older checkpoint is whole."""
    folder = tmp_path / "checkpoint"
    before = trained.save(folder, 3)
    expected = trained.tensors()
    trained.train(2, first=3)
    newest = trained.save(folder, 5)
    injure(newest / name)
    assert checkpoint.latest(folder) == before
    assert f"{newest} is damaged (" in caplog.text
    assert other.load(before).step == 3
    assert_same(expected, other.tensors())
    assert trained.save(folder, 5) == newest, "it is written again"
    assert checkpoint.latest(folder) == newest


def test_without_a_whole_checkpoint_there_is_none(trained: Training, tmp_path: Path):
    flip_a_bit(trained.save(tmp_path, 3) / "trunk.safetensors")
    assert checkpoint.latest(tmp_path) is None


def test_a_run_that_starts_again_keeps_its_new_checkpoints(trained: Training, tmp_path: Path):
    """Guards against new checkpoints that are deleted at once, because damaged ones of later steps count as newer."""
    for step in (8, 12):
        flip_a_bit(trained.save(tmp_path, step) / "trunk.safetensors")
    assert checkpoint.latest(tmp_path) is None
    for step in (4, 8, 12, 16):
        assert checkpoint.latest(tmp_path) != trained.save(tmp_path, step)
        assert checkpoint.latest(tmp_path) == tmp_path / f"step_{step:08d}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000012", "step_00000016"]


def test_a_whole_later_checkpoint_is_not_deleted(trained: Training, tmp_path: Path):
    """Guards against a save that takes every later checkpoint for a damaged one."""
    for step in (8, 4):
        trained.save(tmp_path, step)
    assert checkpoint.latest(tmp_path) == tmp_path / "step_00000008"


def test_folders_with_other_names_are_no_checkpoints(trained: Training, tmp_path: Path):
    """Guards against a name of a stranger in a message, or a step that no integer holds."""
    newest = trained.save(tmp_path, 3)
    for name in ("step_\x1b[31m", "step_", "step_-0000004", f"step_{'9' * 40}", "step_00000004.bak"):
        (tmp_path / name).mkdir()
    assert checkpoint.latest(tmp_path) == newest


@pytest.mark.parametrize("step", [4, 2**40, 2**63, 10**30])
def test_a_step_that_its_folder_does_not_have_is_refused(trained: Training, other: Training, tmp_path: Path, step: int):
    """Guards against a run that trains on from an absurd step, and an OverflowError of torch."""
    path = trained.save(tmp_path, 3)
    (path / "state.json").write_text(json.dumps({"step": step}))
    with pytest.raises(FileError, match="state.json"):
        other.load(path)


@pytest.mark.parametrize("names", ["{}", '{"../../x": "0"}', '{"trunk.safetensors": "0"}', "[]", "null"])
def test_checksums_of_something_else_are_refused(trained: Training, tmp_path: Path, names: str):
    """Guards against a list of checksums that leaves out what was changed, or that names files elsewhere."""
    path = trained.save(tmp_path, 3)
    (path / "checksums.json").write_text(names)
    assert checkpoint.damage(path)


@pytest.mark.parametrize("state", ['{"step": -1}', '{"steps": 3}', '{"wall_s": -0.5}', "[]"])
def test_a_state_of_something_else_is_refused(trained: Training, other: Training, tmp_path: Path, state: str):
    """Guards against a misspelt or negative step, with which a run would start its data again."""
    path = trained.save(tmp_path, 3)
    (path / "state.json").write_text(state)
    with pytest.raises(FileError, match="state.json"):
        other.load(path)


# ------------------------------------------------------------------ tensors that do not fit


def test_another_shape_is_refused_by_name(trained: Training, make_trunk, tmp_path: Path):
    path = trained.save(tmp_path, 3)
    wide = make_trunk(width=24)
    with pytest.raises(
        FileError, match=r"not fit Trunk: .*c_attn\.bias: \(60,\) in the file, \(72,\) in the model.*; and 25 more; take"
    ):
        checkpoint.load(path, trunk=wide, objective=trained.extra)


def test_missing_and_surplus_tensors_are_refused_by_name(trained: Training, make_trunk, tmp_path: Path):
    """Guards against defect 16 of the official code: an empty checkpoint loads, "All keys matched"."""
    path = trained.save(tmp_path, 3)
    for n_layers, name in ((3, r"h\.2\.attn\.c_attn\.weight"), (1, r"h\.1\.attn\.c_attn\.weight")):
        changed = make_trunk(n_layers=n_layers)
        before = {key: value.clone() for key, value in changed.state_dict().items()}
        with pytest.raises(FileError, match=name):
            checkpoint.load(path, trunk=changed, objective=trained.extra)
        assert_same(before, changed.state_dict())


def test_weights_that_are_no_numbers_are_refused(trained: Training, other: Training, tmp_path: Path):
    """Guards against a probe of a model of NaN: minutes of waiting, and then a traceback."""
    with torch.no_grad():
        trained.extra.head.weight[0, 0] = torch.nan
    path = trained.save(tmp_path, 3)
    with pytest.raises(FileError, match=r"objective.safetensors: head.weight holds NaN or infinite weights"):
        other.load(path)


@pytest.mark.parametrize("empty", ["trunk", "objective"])
def test_an_empty_file_is_refused(trained: Training, tmp_path: Path, empty: str):
    path = trained.save(tmp_path, 3)
    checkpoint._save_tensors({}, path / f"{empty}.safetensors")
    with pytest.raises(FileError, match=f"{empty}.safetensors does not fit"):
        trained.load(path)


def test_another_objectives_parameters_are_refused(trained: Training, make_objective, tmp_path: Path):
    path = trained.save(tmp_path, 3)
    with pytest.raises(FileError, match=r"objective\.safetensors does not fit NextToken: head\.weight; seen"):
        checkpoint.load(path, trunk=trained.trunk, objective=make_objective("next_token"))


# ------------------------------------------------------------------ crashes


class Crash(BaseException):
    """The end of a process, which nothing may catch."""


class Machine:
    """A file system that counts its operations and crashes before number ``crash_at``, with a torn file if one was due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, crash_at: int) -> None:
        self.calls: list[str] = []
        self.crash_at = crash_at
        for owner, name in (
            (os, "replace"),
            (os, "fsync"),
            (os, "mkdir"),
            (os, "unlink"),
            (os, "rmdir"),
            (checkpoint, "save_file"),
            (checkpoint, "write_json"),
        ):
            monkeypatch.setattr(owner, name, self.counted(name, getattr(owner, name)))

    def counted(self, name: str, operation: Callable) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            self.calls.append(name)
            if len(self.calls) > self.crash_at:
                if name == "save_file":
                    Path(args[1]).write_bytes(b"torn")
                raise Crash
            return operation(*args, **kwargs)

        return call


def test_a_crash_at_any_moment_leaves_a_whole_checkpoint(
    trained: Training, make_trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Guards against a crash between any two file system operations: the old or the new state can be loaded, whole."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # counted below. Waiting for the disk would prove nothing
    states = {}
    trained.save(tmp_path / "reference", 3)
    states[3] = trained.tensors()
    later = Training(make_trunk(), Extra())
    later.load(tmp_path / "reference" / "step_00000003")
    later.train(2, first=3)
    states[5] = later.tensors()
    survivor = Training(make_trunk(seed=4), Extra(seed=4))
    found, k, done = [], 0, False
    while not done:
        folder = tmp_path / f"crash_{k}"
        trained.save(folder, 3)
        with monkeypatch.context() as patch:
            machine = Machine(patch, k)
            try:
                later.save(folder, 5)
                done = True
            except Crash:
                pass
        step = survivor.load(checkpoint.latest(folder)).step
        assert_same(survivor.tensors(), states[step])
        found.append(step)
        later.save(folder, 5)  # the next session gets past what the crash left behind
        assert survivor.load(checkpoint.latest(folder)).step == 5
        assert sorted(p.name for p in folder.iterdir()) == ["step_00000003", "step_00000005"]
        k += 1
    assert set(machine.calls) == {"mkdir", "save_file", "fsync", "write_json", "replace"}
    assert found == sorted(found), "once the new checkpoint is there, it stays"
    assert found.count(3) > 10
    assert found.count(5) >= 2


def test_a_crash_in_the_first_save_leaves_none(trained: Training, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a half-written first checkpoint that looks like one."""
    for k in range(60):
        folder = tmp_path / f"crash_{k}"
        with monkeypatch.context() as patch:
            Machine(patch, k)
            try:
                trained.save(folder, 3)
                break
            except Crash:
                pass
        path = checkpoint.latest(folder)
        if path is not None:
            assert trained.load(path).step == 3
    assert 15 < k < 59


def test_saving_a_step_again_never_leaves_a_moment_without_a_checkpoint(tmp_path, monkeypatch):
    """Guards against a newest checkpoint that is written again: a crash in between would lose it."""
    trunk, objective = torch.nn.Linear(2, 2), torch.nn.Identity()
    optimizer = torch.optim.AdamW(trunk.parameters())
    parts = {"trunk": trunk, "objective": objective, "optimizers": one_part(optimizer), "progress": checkpoint.Progress(step=3)}
    first = checkpoint.save(tmp_path, **parts)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: pytest.fail("deleted a live checkpoint"))
    assert checkpoint.save(tmp_path, **parts) == first
    assert checkpoint.load(first, trunk=trunk, objective=objective).step == 3
