"""Run folders from strangers: no code runs, no file outside is read, nothing hangs, and the error is one line."""

import json
import os
import pickle
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

from pitfalls.experiment.build import load_run
from pitfalls.experiment.config import load_config, resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.results.kept import keep, read_result
from pitfalls.runs import run_folder
from pitfalls.schemas import ConfigError, PitfallsError
from pitfalls.training import checkpoint
from tests.tiny_runs import TINY, a_record, plain


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    runs_dir = tmp_path_factory.mktemp("runs")
    record = train_run(resolve(compose([*TINY, f"runs_dir={runs_dir}"])), make_display=lambda config: [])
    return runs_dir / record.run


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be tampered with."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


def one_line(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 1000
    return text


CONFIGS = {
    '"_target_": "os.system"': "_target_: there is no such key",
    '"hydra": {"run": {"dir": "x"}}': "hydra: there is no such key",
    '"task": {"degree": 2}': "task.n_values: the key is missing",
    '"model": null': "model.architecture=None: choose one of",
    '"model": {"architecture": ["gpt2"]}': "model.architecture=['gpt2']: choose one of",
    '"objective": {"name": "os.system"}': "objective.name=os.system",
    '"objective": {"name": {}}': "objective.name={}",
    '"trackers": ["os.system"]': "trackers=os.system",
    '"seed": 99999999999999999999': "seed",
    '"seed": NaN': "invalid",
    '"seed": 0x1F': "malformed",
    '"seed": 1e999': "out of range",
    '"seed": true': "Expected `int`, got `bool`",
    '"seed": "0"': "Expected `int`, got `str`",
    '"seed": ' + "[" * 100_000 + "]" * 100_000: "recursion",
    '"\\u001b[31m": 1': "\\x1b[31m: there is no such key",
}
"""Replaced keys of a run's config, and what the message says."""


def replaced(run_dir: Path, entry: str) -> None:
    """Replace a key of the config of a run by an entry of its JSON, as text."""
    path = run_dir / "resolved_config.json"
    data, key = json.loads(path.read_text()), json.loads(entry.partition(":")[0])
    data.pop(key, None)
    path.write_text(f"{json.dumps(data)[:-1]}, {entry}}}")


@pytest.mark.parametrize("entry", CONFIGS)
def test_a_config_names_no_code_and_no_secret(run_dir: Path, entry: str):
    replaced(run_dir, entry)
    with pytest.raises(ConfigError) as caught:
        load_config(run_dir)
    assert CONFIGS[entry] in one_line(caught.value)


@pytest.mark.parametrize("spelled", ["${oc.env:SECRET}", "\\u0024{oc.env:SECRET}", "${oc.decode:'1'}", "\\\\${oc.env:SECRET}"])
def test_a_config_is_not_interpolated(run_dir: Path, monkeypatch: pytest.MonkeyPatch, spelled: str):
    """Guards against an environment variable of the reader in an error, or in the name of a model that a hub is asked for."""
    monkeypatch.setenv("SECRET", "hunter2")
    replaced(run_dir, f'"runs_dir": "{spelled}"')
    assert load_config(run_dir).runs_dir == json.loads(f'"{spelled}"')
    source = {"name": "m", "architecture": "pretrained", "init_from": None, "source": json.loads(f'"{spelled}"')}
    replaced(run_dir, f'"model": {json.dumps(source | {"revision": "0" * 40, "dtype": "fp32", "new_tokens": False})}')
    with pytest.raises(ConfigError, match="no such folder") as caught:
        load_config(run_dir)
    assert "hunter2" not in one_line(caught.value)


def test_doubling_interpolations_take_no_memory(run_dir: Path):
    """Guards against 1 kB of interpolations, each twice the one before it, that take all memory."""
    doubling = {f"k{i}": f"${{k{i + 1}}}${{k{i + 1}}}" for i in range(60)}
    path = run_dir / "resolved_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | doubling))
    started = time.monotonic()
    with pytest.raises(ConfigError, match="k0: there is no such key"):
        load_config(run_dir)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("size", [100_000, 200_000])
def test_a_config_of_many_keys_is_refused_at_once(run_dir: Path, size: int):
    """Guards against minutes of waiting at 250 kB of keys or of brackets."""
    many = ",".join(f'"k{i}":[]' for i in range(size // 12))
    replaced(run_dir, f'"task": {{{many}}}')
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"task.k0: there is no such key"):
        load_config(run_dir)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("text", ["", "0", "[]", "null", "{}{}", "{", "\t", "a: 1", "\ufeff{}"])
def test_a_config_that_is_no_mapping_is_one_line(tmp_path: Path, text: str):
    (tmp_path / "resolved_config.json").write_text(text)
    with pytest.raises(ConfigError, match="resolved_config.json: ") as caught:
        load_config(tmp_path)
    one_line(caught.value)


def test_a_config_of_billions_is_refused_at_once(run_dir: Path):
    """Guards against a config with which the evaluation of a run builds a model of terabytes."""
    text = (run_dir / "resolved_config.json").read_text()
    for name in ("width", "n_layers", "degree", "n_values"):
        changed, n = re.subn(rf'"{name}": \d+', f'"{name}": 2000000000', text)
        assert n == 1
        (run_dir / "resolved_config.json").write_text(changed)
        started = time.monotonic()
        with pytest.raises(ConfigError, match=f"{name}=2000000000"):
            load_run(run_dir)
        assert time.monotonic() - started < 2


class Bomb:
    """An object whose unpickling runs a command."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch bombed",)


@pytest.mark.parametrize("name", ["trunk.safetensors", "objective.safetensors"])
def test_pickled_weights_are_not_unpickled(run_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    newest = checkpoint.latest(run_dir / "checkpoint")
    (newest / name).write_bytes(pickle.dumps(Bomb()))
    sums = json.loads((newest / "checksums.json").read_text())
    (newest / "checksums.json").write_text(json.dumps(sums | {name: checkpoint._checksum(newest / name)}))
    with pytest.raises(PitfallsError, match=name):
        load_run(run_dir)
    assert not (tmp_path / "bombed").exists()


def header(size: int, text: bytes = b"") -> bytes:
    return size.to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        header(2**40),
        header(2**23),
        header(5, b"{}"),
        header(2, b"{}"),
        header(2, b"[]"),
        header(72, b'{"x":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,39999999996]}}'),
    ],
)
def test_tensor_files_of_another_kind_are_one_line(tmp_path: Path, data: bytes):
    """Guards against a header that claims terabytes."""
    (tmp_path / "trunk.safetensors").write_bytes(data)
    with pytest.raises(PitfallsError, match="trunk.safetensors") as caught:
        checkpoint.load_trunk(tmp_path, torch.nn.Linear(2, 2))
    one_line(caught.value)


@pytest.mark.parametrize("place", ["record.json", "metrics.jsonl", "resolved_config.json", "checkpoint"])
def test_links_are_not_followed(run_dir: Path, tmp_path: Path, place: str):
    """Guards against a folder that shows other files of the reader's disk."""
    elsewhere = tmp_path / "elsewhere"
    shutil.move(run_dir / place, elsewhere)
    (run_dir / place).symlink_to(elsewhere)
    reader = {"record.json": run_folder.read_record, "metrics.jsonl": run_folder.read_metrics}.get(place, load_run)
    with pytest.raises(PitfallsError, match=str(run_dir)) as caught:
        reader(run_dir)
    one_line(caught.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("place", ["record.json", "metrics.jsonl", "resolved_config.json"])
def test_pipes_hang_nobody(run_dir: Path, place: str):
    (run_dir / place).unlink()
    os.mkfifo(run_dir / place)
    reader = {"record.json": run_folder.read_record, "metrics.jsonl": run_folder.read_metrics}.get(place, load_config)
    with pytest.raises(PitfallsError, match="plain file"):
        reader(run_dir)


def test_a_kept_record_cannot_name_a_place(tmp_path: Path, config):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text(json.dumps(plain(a_record(config)) | {"run": "/etc/passwd"}))
    with pytest.raises(PitfallsError, match=r"\$\.run"):
        keep(tmp_path / "run", tmp_path / "kept.json")
    (tmp_path / "kept.json").write_text(json.dumps({"record": plain(a_record(config)) | {"run": "../x"}, "curve": []}))
    with pytest.raises(PitfallsError, match="not a kept record"):
        read_result(None, tmp_path / "kept.json")


def test_an_untouched_folder_is_read(run_dir: Path):
    """Guards against checks that refuse everything."""
    assert load_run(run_dir).config.seed == 0
    assert run_folder.read_record(run_dir).run == run_dir.name
    assert len(run_folder.read_metrics(run_dir)) == 17
