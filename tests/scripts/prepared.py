"""What the commands in messages.txt name in braces: runs, models and files, whole ones and damaged ones. Nothing is trained."""

import json
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors.torch import load_file, save_file

from pitfalls.experiment.build import build
from pitfalls.experiment.config import ROOT, resolve, run_dir_of, write_config
from pitfalls.experiment.hydra_app import compose, override
from pitfalls.runs import run_folder
from pitfalls.runs.files import write_json
from pitfalls.training import checkpoint
from pitfalls.training.optimizers import make_optimizers
from tests.tiny_runs import LINES, TINY, a_record

WORDS = ["<s>", "</s>", *map(str, range(20)), "of", "and", "to", "in", "|", "/", "=", "$", "_", "#", "[", "]", ".", ";", "é"]
WEIGHTS = "model.safetensors"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
SaveLM = Callable[[str, list[str], int, int], Path]


class Prepared:
    """The folders and files by name. Each is made when a command first names it."""

    def __init__(self, root: Path, save_lm: SaveLM) -> None:
        self.root, self._save_lm = root, save_lm
        self.made: dict[str, Path] = {"top": ROOT}

    def __getitem__(self, name: str) -> Path:
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def __contains__(self, name: str) -> bool:
        return name in self.made or name in NAMES or name.partition(":")[0] in ("file", "preset")

    def shown(self, text: str) -> str:
        """Return a text with names in braces in place of the paths of what was made."""
        for name, path in sorted(self.made.items(), key=lambda item: -len(str(item[1]))):
            kind, _, content = name.partition(":")
            text = text.replace(str(path), f"{{{kind}}}")
            text = text.replace(path.name, f"{{{kind}}}") if content else text
        return text.replace(str(self.root), "{folder}")

    def _make(self, name: str) -> Path:
        if name.startswith("file:"):
            path = self.root / f"file{len(self.made)}"
            path.write_bytes(name.removeprefix("file:").replace("\\n", "\n").encode())
            return path
        if name.startswith("preset:"):
            path = self.root / f"presets{len(self.made)}"
            (path / "experiment").mkdir(parents=True)
            text = name.removeprefix("preset:").replace("\\n", "\n").replace("\\xff", "\udcff")
            (path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{text}\n", errors="surrogateescape")
            return path
        if name in PLACES:
            path = self.root / name
            PLACES[name](path)
            return path
        if name in RUNS:
            return self._run(*RUNS[name])
        if name in SPOILED_RUNS:
            whole = self["run"]
            path = Path(shutil.copytree(whole, self.root / name / whole.name))
            SPOILED_RUNS[name](path)
            return path
        kind, size, spoil = MODELS[name]
        path = self.root / name
        shutil.copytree(self._save_lm(kind, WORDS, size, 128), path)
        spoil(path)
        return path

    def _run(self, *overrides: str) -> Path:
        """Make a run with its first weights and made-up numbers, as training would leave it."""
        tiny = [text for text in TINY if not (text.startswith("model") and overrides[:1] == ("model=mamba_tiny",))]
        config = resolve(compose([*tiny, *overrides, override("runs_dir", self.root / "runs")]))
        run, run_dir = build(config), run_dir_of(config)
        optimizers = make_optimizers(run.trunk, run.objective, config.optimizer, config.training)
        parts: dict[str, Any] = {"trunk": run.trunk, "objective": run.objective, "optimizers": optimizers}
        checkpoint.save(run_dir / run_folder.CHECKPOINT, **parts, progress=checkpoint.Progress(step=12, finished=True))
        write_config(config, run_dir / run_folder.CONFIG)
        (run_dir / run_folder.METRICS).write_text(LINES)
        record = msgspec.structs.replace(a_record(config), run=run_dir.name)
        write_json(run_dir / run_folder.RECORD, record)
        return run_dir


def _readme(path: Path) -> None:
    path.mkdir()
    (path / "README.md").write_text("# Mine\n")


def _one_file(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("mine\n")


def _bad_results(path: Path) -> None:
    (path / "records").mkdir(parents=True)
    (path / "records" / "next_token-s0.json").write_text("{}")


PLACES: dict[str, Callable[[Path], object]] = {
    "empty": Path.mkdir,
    "new": lambda path: None,
    "work": Path.mkdir,
    "full": _one_file,
    "with_readme": _readme,
    "bad_results": _bad_results,
    "pipe": os.mkfifo,
    "zip": lambda path: path.write_bytes(b"PK\x03\x04rest"),
    "cut_gz": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00rest"),
    "lfs": lambda path: path.write_bytes(POINTER),
    "utf16": lambda path: path.write_bytes("1,2|1,3/1,2=1,2\n".encode("utf-16")),
    "latin1": lambda path: path.write_bytes(b"claims: \xe9"),
}
"""Folders and files that are no run and no model."""

RUNS: dict[str, tuple[str, ...]] = {
    "run": (),
    "reversed": ("objective=reversed",),
    "first_hop": ("objective=first_hop",),
    "teacherless": ("objective=teacherless",),
    "belief": ("objective=belief_state",),
    "mamba": ("model=mamba_tiny", "model.n_layers=2", "model.width=32"),
    "longer": ("task=g2_5", "model.n_layers=1"),
    "other_values": ("task.n_values=10",),
}
"""Whole runs, by what makes each another one. G(2,3) on 20 node values has 64 test graphs."""


def _edit(run_dir: Path, **changes: Any) -> None:
    path = run_dir / run_folder.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without(name: str, run_dir: Path) -> None:
    path = run_dir / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _written(name: str, text: str, run_dir: Path) -> None:
    (run_dir / name).write_text(text)


def _step(run_dir: Path) -> Path:
    return next((run_dir / run_folder.CHECKPOINT).iterdir())


def _sums(step: Path) -> None:
    """Write the checksums of changed files, as somebody does who wants them to be read."""
    names = [path.name for path in step.iterdir() if path.name != checkpoint.CHECKSUMS]
    write_json(step / checkpoint.CHECKSUMS, {name: checkpoint._checksum(step / name) for name in sorted(names)})


def _trunk(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], run_dir: Path) -> None:
    path = _step(run_dir) / "trunk.safetensors"
    save_file(change(load_file(path)), path)
    _sums(path.parent)


def _bytes_of_trunk(data: bytes, run_dir: Path) -> None:
    path = _step(run_dir) / "trunk.safetensors"
    path.write_bytes(data)
    _sums(path.parent)


def _nan(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor * torch.nan for name, tensor in tensors.items()}


def _moved_step(run_dir: Path) -> None:
    step = _step(run_dir)
    step.rename(step.with_name("step_00000099"))


def _renamed_record(run_dir: Path) -> None:
    path = run_dir / run_folder.RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": "another"}))


def _link(name: str, run_dir: Path) -> None:
    (run_dir / name).unlink()
    (run_dir / name).symlink_to(ROOT / "README.md")


def _failed(run_dir: Path) -> None:
    _without(run_folder.RECORD, run_dir)
    (run_dir / run_folder.FAILURE).write_text(json.dumps({"error": "ValueError: x", "overrides": [], "traceback": ""}))


SPOILED_RUNS: dict[str, Callable[[Path], None]] = {
    "stopped": partial(_without, run_folder.RECORD),
    "failed": _failed,
    "no_checkpoint": partial(_without, run_folder.CHECKPOINT),
    "config_of_nobody": partial(_edit, widht=3),
    "config_out_of_range": partial(_edit, seed=-1),
    "config_of_text": partial(_edit, seed="one"),
    "config_lacks_keys": partial(_edit, task={"degree": 2}),
    "config_no_group": partial(_edit, task=3),
    "config_no_architecture": partial(_edit, model={"architecture": "rnn"}),
    "config_no_number": lambda run_dir: _edit(
        run_dir, task=json.loads((run_dir / run_folder.CONFIG).read_text())["task"] | {"degree": "two"}
    ),
    "config_no_json": partial(_written, run_folder.CONFIG, "{"),
    "config_is_a_link": partial(_link, run_folder.CONFIG),
    "config_too_large": partial(_written, run_folder.CONFIG, " " * 2**19),
    "old_record": partial(_written, run_folder.RECORD, "{}"),
    "record_is_a_folder": lambda run_dir: (_without(run_folder.RECORD, run_dir), (run_dir / run_folder.RECORD).mkdir()),
    "renamed": _renamed_record,
    "diverged": partial(_trunk, _nan),
    "other_weights": partial(_trunk, lambda tensors: {"a": torch.ones(2)}),
    "no_weights": partial(_bytes_of_trunk, b"\x08" + bytes(7) + b"no JSON!"),
    "large_header": partial(_bytes_of_trunk, b"\xff" * 64),
    "moved_step": _moved_step,
    "bad_metrics": partial(_written, run_folder.METRICS, "{}\n"),
}
"""Copies of {run} with one thing changed."""


def _keep(path: Path) -> None:
    pass


def _with(path: Path, **changes: Any) -> None:
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def _tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], path: Path) -> None:
    save_file(change(load_file(path / WEIGHTS)), path / WEIGHTS, metadata={"format": "pt"})


def _weights(data: bytes, path: Path) -> None:
    (path / WEIGHTS).write_bytes(data)


def _index(places: object, path: Path) -> None:
    (path / WEIGHTS).rename(path / "model-00001-of-00002.safetensors")
    (path / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": places}))


def _adapter(path: Path) -> None:
    (path / "config.json").rename(path / "adapter_config.json")


def _wrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}


def _short_tokenizer(path: Path) -> None:
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {"<s>": 0, "</s>": 1, "1": 2}
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))


N = len(WORDS)
MODELS: dict[str, tuple[str, int, Callable[[Path], object]]] = {
    "model": ("llama", N, _keep),
    "few_positions": ("llama", N, partial(_with, max_position_embeddings=16)),
    "model_mamba": ("mamba", N, _keep),
    "wrapped": ("llama", N, partial(_tensors, _wrapped)),
    "nan_model": ("llama", N, partial(_tensors, _nan)),
    "int8": ("llama", N, partial(_tensors, lambda t: t | {"lm_head.weight": t["lm_head.weight"].to(torch.int8)})),
    "pointer": ("llama", N, partial(_weights, POINTER)),
    "cut_off": ("llama", N, partial(_weights, b"\xff" * 64)),
    "empty_weights": ("llama", N, partial(_weights, b"")),
    "pickled": ("llama", N, lambda path: (path / WEIGHTS).rename(path / "pytorch_model.bin")),
    "no_index": ("llama", N, partial(_index, [])),
    "half": ("llama", N, partial(_index, {"a": "model-00002-of-00002.safetensors"})),
    "adapter": ("llama", N, _adapter),
    "quantised": ("llama", N, partial(_with, quantization_config={"quant_method": "gptq", "bits": 4})),
    "no_type": ("llama", N, partial(_with, model_type=None)),
    "unknown_type": ("llama", N, partial(_with, model_type="no_such_model")),
    "huge": ("llama", N, partial(_with, num_hidden_layers=1_000_000)),
    "config_pointer": ("llama", N, lambda path: (path / "config.json").write_bytes(POINTER)),
    "config_large": ("llama", N, lambda path: (path / "config.json").write_bytes(b" " * (2**24 + 1))),
    "config_cut": ("llama", N, lambda path: (path / "config.json").write_text("{")),
    "no_config": ("llama", N, lambda path: (path / "config.json").unlink()),
    "small_vocabulary": ("llama", N, _short_tokenizer),
    "few_rows": ("llama", 12, _keep),
    "one_row": ("llama", 1, partial(_with, bos_token_id=None, eos_token_id=None)),
    "no_tokenizer": ("llama", N, lambda path: (path / "tokenizer.json").write_bytes(b"")),
}
"""Models as save_pretrained writes them: the family, the number of embeddings, and what is changed."""

NAMES = {*PLACES, *RUNS, *SPOILED_RUNS, *MODELS}
