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
from safetensors.torch import save_file

from pitfalls.experiment.build import build, load_run
from pitfalls.experiment.cli import console, terminal_table
from pitfalls.experiment.config import load_config, resolve
from pitfalls.experiment.hydra_app import compose, override
from pitfalls.experiment.run import train_run
from pitfalls.experiment.sweep_tables import failed_runs, sweep_table, sweeps_of
from pitfalls.results.kept import keep, read_result
from pitfalls.runs import run_folder
from pitfalls.runs.sweeps import Job, Sweep, SweepIncompleteError
from pitfalls.schemas import ConfigError, PitfallsError, printable
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
    assert len(text) <= 1000
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


# ------------------------------------------------------------------ what a run writes


@pytest.mark.parametrize("place", ["", "checkpoint", "checkpoint/step_00000012", "metrics.jsonl", "running.lock", "tensorboard"])
def test_a_run_does_not_write_through_a_link(run_dir: Path, tmp_path: Path, place: str):
    """Guards against `train.py` on a stranger's folder that writes, or deletes, outside of it."""
    elsewhere = tmp_path / "elsewhere"
    (run_dir / "record.json").unlink()
    if place == "tensorboard":
        (run_dir / place).mkdir()
    shutil.move(run_dir / place, elsewhere)
    (run_dir / place).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    with pytest.raises(PitfallsError, match="a link, and a run writes to its own folder alone") as caught:
        train_run(resolve(compose([*TINY, override("runs_dir", tmp_path)])), make_display=lambda config: [])
    one_line(caught.value)
    assert {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "name", ["record.json", "resolved_config.json", "metrics.jsonl", "failure.json", "running.lock", "checkpoint"]
)
def test_a_run_does_not_train_where_it_cannot_write(run_dir: Path, tmp_path: Path, name: str):
    """Guards against hours of training whose checkpoint, or record, cannot be written."""
    (run_dir / "record.json").unlink()
    if name == "checkpoint":
        shutil.rmtree(run_dir / name)
        (run_dir / name).write_text("x")
    else:
        (run_dir / name).unlink(missing_ok=True)
        (run_dir / name).mkdir()
    with pytest.raises(PitfallsError, match=rf"{name}: no (plain file|folder), and the run writes .* there; delete it"):
        train_run(resolve(compose([*TINY, override("runs_dir", tmp_path)])), make_display=lambda config: [])


def test_a_file_in_place_of_the_lists_of_sweeps_is_named(tmp_path: Path):
    (tmp_path / "sweeps").write_text("x")
    with pytest.raises(
        PitfallsError, match=r"sweeps: a file, and the lists of sweeps are kept in a folder of this name; move it away"
    ):
        Sweep((Job((), tmp_path / "a-run"),)).write()


def test_a_step_beyond_the_end_is_refused(run_dir: Path, tmp_path: Path):
    """Guards against a run that counts as trained because a file says so."""
    (run_dir / "record.json").unlink()
    newest = checkpoint.latest(run_dir / "checkpoint")
    state = json.loads((newest / "state.json").read_text()) | {"step": 10**12}
    (newest / "state.json").write_text(json.dumps(state))
    sums = json.loads((newest / "checksums.json").read_text())
    (newest / "checksums.json").write_text(json.dumps(sums | {"state.json": checkpoint._checksum(newest / "state.json")}))
    newest.rename(newest.with_name(f"step_{10**12:08d}"))
    with pytest.raises(PitfallsError, match=r"step 1000000000000 of training.n_steps=12; delete it"):
        train_run(resolve(compose([*TINY, override("runs_dir", tmp_path)])), make_display=lambda config: [])


# ------------------------------------------------------------------ what is printed

RED, BELL, REVERSED = "\x1b[31m", "\x07", "\u202e"
FOREIGN = f"{RED}a{BELL}b\nc{REVERSED}d\r[bold]e[/bold]"


def assert_printable(text: str) -> None:
    assert all(character.isprintable() or character == "\n" for character in text), repr(text)


def test_texts_of_files_are_safe_for_a_terminal(run_dir: Path, tmp_path: Path, capsys):
    """Guards against escape sequences, line breaks and markup in the reason of a failure, in an override, and in a sweep."""
    (run_dir / "record.json").unlink()
    failure = {"error": FOREIGN * 1000, "overrides": [FOREIGN], "traceback": ""}
    (run_dir / "failure.json").write_text(json.dumps(failure))
    (tmp_path / "sweeps").mkdir()
    jobs = {"jobs": [{"overrides": [FOREIGN], "run": run_dir.name}]}
    (tmp_path / "sweeps" / "0123abcd.json").write_text(json.dumps(jobs))
    (sweep,) = sweeps_of(tmp_path)
    console().print(terminal_table(sweep_table(sweep)))
    for line in failed_runs([sweep]):
        assert_printable(line)
        assert len(line) < 2000
        assert line.count("\n") == 1
    shown = capsys.readouterr().out
    assert_printable(shown)
    assert "[" in shown, "markup is text"
    with pytest.raises(PitfallsError) as caught:
        raise SweepIncompleteError(sweep.jobs[0].text())
    assert_printable(one_line(caught.value))


def test_a_command_that_would_not_print_is_not_shown(run_dir: Path, tmp_path: Path):
    """Guards against a command to copy that holds an escape sequence, or that is the default run."""
    (run_dir / "record.json").unlink()
    told = {"error": "x", "traceback": ""}
    for overrides, line in (
        (["training.lr=1e30", "runs_dir=a b"], "python scripts/train.py training.lr=1e30 'runs_dir=a b'"),
        ([], "python scripts/train.py "),
        ([RED], "its command has characters that do not print: give the one that started it"),
    ):
        (run_dir / "failure.json").write_text(json.dumps(told | {"overrides": overrides}))
        (shown,) = failed_runs(sweeps_of(tmp_path))
        assert shown.splitlines()[1].strip() == line.strip()
    (run_dir / "failure.json").write_text("{")
    (shown,) = failed_runs(sweeps_of(tmp_path))
    assert shown.endswith("its command is not known: give the one that started it")


@pytest.mark.parametrize("name", [FOREIGN, "x" * 5_000_000])
def test_names_in_files_do_not_reach_the_terminal_raw(run_dir: Path, name: str):
    """Guards against error lines of megabytes, with the names of tensors or fields that a stranger chose."""
    newest = checkpoint.latest(run_dir / "checkpoint")
    save_file({name[:100_000]: torch.zeros(1)}, newest / "trunk.safetensors")
    with pytest.raises(PitfallsError) as caught:
        checkpoint.load(newest, trunk=load_run_parts(run_dir), objective=torch.nn.Identity())
    assert_printable(one_line(caught.value))
    (run_dir / "record.json").write_text(json.dumps({name: 1}))
    with pytest.raises(PitfallsError) as caught:
        run_folder.read_record(run_dir)
    assert_printable(one_line(caught.value))
    replaced(run_dir, f"{json.dumps(name[:100_000])}: 1")
    with pytest.raises(PitfallsError) as caught:
        load_config(run_dir)
    assert_printable(one_line(caught.value))


def load_run_parts(run_dir: Path) -> torch.nn.Module:
    """Return the trunk of a run with its initial weights."""
    return build(load_config(run_dir)).trunk


def test_long_texts_keep_their_end():
    """Guards against a message whose remedy, which stands at its end, is cut off."""
    error = PitfallsError("key=" + "x" * 10_000_000 + ": too long; write less")
    assert str(error).startswith("key=xxx")
    assert str(error).endswith("x: too long; write less")
    assert len(str(error)) <= 1000
    assert printable("plain é 日本 text") == "plain é 日本 text"
    assert printable(f"a{RED}\t\n b{REVERSED}") == r"a\x1b[31m b\u202e"


def test_an_untouched_folder_is_read(run_dir: Path):
    """Guards against checks that refuse everything."""
    assert load_run(run_dir).config.seed == 0
    assert run_folder.read_record(run_dir).run == run_dir.name
    assert len(run_folder.read_metrics(run_dir)) == 17
