"""Checkpoints: tensors as safetensors, the rest as JSON, never pickle. A crash at any moment leaves a whole checkpoint.

checkpoint/step_00000400/    trunk, objective and optimizer .safetensors, state.json, checksums.json
checkpoint/step_00000350/    the one before it, in case a disk damages the newest

The state of random generators is not saved, because every draw of a run is a function of its seed and step (`pitfalls.seeding`).
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pitfalls.runs.counts import Natural, Seconds
from pitfalls.runs.files import FileError, check_plain, read_json, write_json
from pitfalls.training.optimizers.base import Optimizers

KEPT = 2
"""Number of checkpoints that a run keeps."""
CHECKSUMS, STATE = "checksums.json", "state.json"
MAX_HEADER_BYTES = 2**22
"""Largest header of a safetensors file that is read. That of a model of 12 layers has 16 kB."""
MAX_NAMED = 3
"""Largest number of tensors that a message names."""

log = logging.getLogger(__name__)


class Progress(Struct, forbid_unknown_fields=True):
    """The progress of a run. The step is also its position in the data (`pitfalls.tasks.splits`)."""

    step: Natural = 0
    """Number of optimizer steps taken."""
    stop_hits: Natural = 0
    """Number of evaluations in a row that met the stop rule."""
    wall_s: Seconds = 0.0
    """Wall time of training in seconds, over all starts of the run."""
    cpu_s: Seconds = 0.0
    """CPU time of the process in seconds, over all starts of the run."""
    finished: bool = False
    """Whether no step is left: the stop rule was met or n_steps are done."""


def save(folder: Path, *, trunk: nn.Module, objective: nn.Module, optimizers: Optimizers, progress: Progress) -> Path:
    """Write a checkpoint, remove all earlier ones but the newest, and return the folder of the new one.

    Raises:
        OSError: it could not be written, for example on a full disk. The earlier ones are still there.
    """
    target = folder / f"step_{progress.step:08d}"
    if damage(target) is not None:  # a whole checkpoint of this step is not written again
        _write(folder, target, trunk, objective, optimizers, progress)
    steps = _steps(folder)
    # a later one is damaged, because the run started again from before it. It must not take the place of a whole one
    later = [path for path in steps if _step(path) > progress.step and damage(path) is not None]
    kept = [path for path in steps if path not in later][:KEPT]
    for old in [*(path for path in steps if path not in kept), *folder.glob(".partial_*")]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _steps(folder: Path) -> list[Path]:
    """Return all checkpoint folders, the newest first."""
    return sorted((path for path in folder.glob("step_*") if re.fullmatch(r"step_\d{8,16}", path.name)), key=_step, reverse=True)


def _step(path: Path) -> int:
    """Return the step that the name of a checkpoint's folder says."""
    return int(path.name.removeprefix("step_"))


def _write(
    folder: Path,
    target: Path,
    trunk: nn.Module,
    objective: nn.Module,
    optimizers: Optimizers,
    progress: Progress,
) -> None:
    """Write to a hidden folder, then rename it: a checkpoint exists as a whole or not at all."""
    partial = folder / f".partial_{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _save_tensors(unshared_state(trunk), partial / "trunk.safetensors")
        _save_tensors(objective.state_dict(), partial / "objective.safetensors")
        _save_tensors(optimizers.state(), partial / "optimizer.safetensors")
        write_json(partial / STATE, progress)
        write_json(partial / CHECKSUMS, {path.name: _checksum(path) for path in sorted(partial.iterdir())})
        _fsync(partial)
        shutil.rmtree(target, ignore_errors=True)  # it exists only if it is damaged
        os.replace(partial, target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _fsync(folder)


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint, or None. Damaged ones are skipped with a warning."""
    for path in _steps(folder):
        if (what := damage(path)) is None:
            return path
        log.warning("%s is damaged (%s): it is not used, the checkpoint before it is", path, what)
    return None


def damage(path: Path) -> str | None:
    """Return the damage of a checkpoint's files in words, judged by their checksums, or None if it is whole."""
    try:
        run_dir = path.parents[1]
        expected = read_json(path / CHECKSUMS, dict[str, str], inside=run_dir)
        if not {"trunk.safetensors", "objective.safetensors", "optimizer.safetensors", STATE} <= expected.keys():
            return f"{CHECKSUMS} names too few files"
        for name, checksum in expected.items():
            if name != Path(name).name:
                return f"{name} is not in the folder"
            check_plain(path / name, inside=run_dir)
            if _checksum(path / name) != checksum:
                return f"{name} has another checksum"
    except (OSError, ValueError) as error:
        return str(error)
    return None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load(path: Path, *, trunk: nn.Module, objective: nn.Module, optimizers: Optimizers | None = None) -> Progress:
    """Load a checkpoint into trunk and objective, and into the optimizers if they are given. Return the run's progress.

    Raises:
        FileError: a file is no plain safetensors file, or its tensors do not fit. The message names three that do not.
    """
    progress = read_json(path / STATE, Progress)
    if progress.step != _step(path):
        raise FileError(f"{path / STATE}: step {progress.step}, and the folder is that of step {_step(path)}; delete {path}")
    load_trunk(path, trunk)
    _load_module(objective, path / "objective.safetensors")
    if optimizers is not None:
        _restore_optimizers(optimizers, path / "optimizer.safetensors")
    return progress


def load_trunk(path: Path, trunk: nn.Module) -> None:
    """Load the trunk of a checkpoint.

    Raises:
        FileError: the file is no plain safetensors file, or its tensors do not fit. The message names three that do not.
    """
    _load_module(trunk, path / "trunk.safetensors")


def unshared_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict with one name per tensor. Tied embeddings have two, which safetensors refuses."""
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


def _read_tensors(path: Path, expected: Mapping[str, Tensor], whose: str, *, may_lack: bool = False) -> dict[str, Tensor]:
    """Return the tensors of a file. Their names and shapes are compared with the expected ones before any is loaded.

    Args:
        path: a safetensors file.
        expected: tensors with the names, shapes and types that the file has to have.
        whose: the owner of the tensors, for the message.
        may_lack: whether the file may lack some of them.

    Raises:
        FileError: names, shapes or types differ.
    """
    check_plain(path)
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise FileError(
                f"{path}: not a safetensors file of ours (its header exceeds {MAX_HEADER_BYTES:,} bytes); "
                f"delete the folder {path.parent.name}, and the checkpoint before it is taken"
            )
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
        unmatched = set(shapes) - set(expected) if may_lack else set(expected) ^ set(shapes)
        wrong = sorted(unmatched) + [
            f"{name}: {shapes[name]} in the file, {tuple(expected[name].shape)} in the model"
            for name in sorted(set(expected) & set(shapes))
            if shapes[name] != tuple(expected[name].shape)
        ]
        device = str(next((tensor.device for tensor in expected.values()), "cpu"))
        tensors = {} if wrong else load_file(path, device=device)
    except SafetensorError as error:
        raise FileError(
            f"{path} is damaged ({error}); delete the folder {path.parent.name}, and the checkpoint before it is taken"
        ) from None
    wrong += [
        f"{name}: {tensor.dtype} in the file, {expected[name].dtype} in the model"
        for name, tensor in tensors.items()
        if tensor.dtype != expected[name].dtype
    ]
    if wrong:
        more = f"; and {len(wrong) - MAX_NAMED} more" if len(wrong) > MAX_NAMED else ""
        raise FileError(
            f"{path} does not fit {whose}: {'; '.join(wrong[:MAX_NAMED])}{more}; take the config that it was trained with"
        )
    return tensors


def _load_module(module: nn.Module, path: Path) -> None:
    tensors = _read_tensors(path, unshared_state(module), type(module).__name__)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise FileError(f"{path}: {name} holds NaN or infinite weights, so the run has diverged; train it again")
    module.load_state_dict(tensors, strict=False)


def _restore_optimizers(optimizers: Optimizers, path: Path) -> None:
    # a parameter that never had a gradient has no state
    optimizers.load_state(_read_tensors(path, optimizers.expected_state(), "the optimizer", may_lack=True))
