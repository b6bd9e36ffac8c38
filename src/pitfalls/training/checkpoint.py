"""Checkpoints: tensors as safetensors, the rest as JSON, never pickle; a crash at any moment leaves a whole one.

checkpoint/latest.json              names the newest complete folder; replaced atomically, last
checkpoint/step_00000400/           trunk, objective, optimizer and rng .safetensors, state.json
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pitfalls.records import write_json

LATEST = "latest.json"


@dataclass
class Progress:
    """What a run has to remember besides tensors; the data position is the step (see `pitfalls.tasks.data`)."""

    step: int = 0
    """Optimizer steps taken."""
    stop_hits: int = 0
    """Evaluations in a row that met the stop rule."""
    wall_s: float = 0.0
    """Seconds of training so far, over all sessions."""
    cpu_s: float = 0.0
    """CPU seconds so far, over all sessions."""
    finished: bool = False
    """No steps are left: the stop rule held or n_steps are done."""


def save(
    folder: Path, *, trunk: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> Path:
    """Write a checkpoint and make it the latest; earlier ones are deleted afterwards. Returns its folder."""
    target = folder / f"step_{progress.step:08d}"
    if latest(folder) != target:  # a step that is safe already stays as it is
        _write(folder, target, trunk, objective, optimizer, progress)
    for old in folder.glob("*step_*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def _write(
    folder: Path,
    target: Path,
    trunk: nn.Module,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    """Write to a hidden folder, rename it, then name it in ``latest.json``: each of the three is whole or not there."""
    partial = folder / f".partial_{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    moments, groups = _split_optimizer(optimizer)
    _save_tensors(unshared_state(trunk), partial / "trunk.safetensors")
    _save_tensors(objective.state_dict(), partial / "objective.safetensors")
    _save_tensors(moments, partial / "optimizer.safetensors")
    _save_tensors(_rng_state(), partial / "rng.safetensors")
    write_json(partial / "state.json", {"progress": asdict(progress), "optimizer_groups": groups})
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    _fsync(folder)
    write_json(folder / LATEST, {"folder": target.name, "step": progress.step})
    _fsync(folder)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None."""
    if not (folder / LATEST).exists():
        return None
    return folder / Path(json.loads((folder / LATEST).read_text())["folder"]).name


def load(
    path: Path, *, trunk: nn.Module, objective: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> Progress:
    """Fill the modules (and the optimizer and the random state, to continue training) from a checkpoint folder.

    Raises:
        ValueError: the tensors do not fit the modules; all mismatching names are in the message.
    """
    load_trunk(path, trunk)
    device = str(next(trunk.parameters()).device)
    _load_module(objective, load_file(path / "objective.safetensors", device=device), path / "objective.safetensors")
    state = json.loads((path / "state.json").read_text())
    if optimizer is not None:
        moments = load_file(path / "optimizer.safetensors", device=device)
        _restore_optimizer(optimizer, moments, state["optimizer_groups"])
        _restore_rng(load_file(path / "rng.safetensors"))
    return Progress(**state["progress"])


def load_trunk(path: Path, trunk: nn.Module) -> None:
    """Fill a trunk alone from a checkpoint folder.

    Raises:
        ValueError: the tensors do not fit; all mismatching names are in the message.
    """
    device = str(next(trunk.parameters()).device)
    _load_module(trunk, load_file(path / "trunk.safetensors", device=device), path / "trunk.safetensors")


def unshared_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with one name per tensor (tied embeddings appear twice in it, which safetensors refuses)."""
    seen: set[int] = set()
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.data_ptr() not in seen or not tensor.numel():
            seen.add(tensor.data_ptr())
            state[name] = tensor
    return state


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _load_module(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    expected = unshared_state(module) if tensors or module.state_dict() else {}
    wrong = sorted(set(expected) ^ set(tensors)) + [
        f"{name}: {tuple(tensors[name].shape)} in the file, {tuple(expected[name].shape)} in the model"
        for name in sorted(set(expected) & set(tensors))
        if tensors[name].shape != expected[name].shape
    ]
    if wrong:
        raise ValueError(f"{path} does not fit {type(module).__name__}: {'; '.join(wrong)}")
    module.load_state_dict(tensors, strict=False)


def _split_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": torch.as_tensor(value)
        for index, entries in state["state"].items()
        for name, value in entries.items()
    }
    return tensors, state["param_groups"]


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]
) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _rng_state() -> dict[str, Tensor]:
    """Global generators: only layers such as dropout draw from them, everything else has streams of its own."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _restore_rng(state: dict[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
