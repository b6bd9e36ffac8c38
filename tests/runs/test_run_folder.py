"""Run identity, atomic files, and the errors for missing or broken files."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pitfalls.runs import provenance, run_folder
from pitfalls.runs.files import FileError, write_json
from pitfalls.runs.records import ConfigRecord
from pitfalls.schemas import Config
from tests.tiny_runs import LINES, ROWS, a_record, plain

ROOT = Path(__file__).resolve().parents[2]


def leaves(data: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        if isinstance(value, dict):
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key)


def changed(data: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a copy with another value at one place."""
    copy = json.loads(json.dumps(data))
    place = copy
    for key in path[:-1]:
        place = place[key]
    old = "" if path[-1] == "init_from" else place[path[-1]]
    if isinstance(old, list | str):
        place[path[-1]] = [1] if isinstance(old, list) else f"{old}x"
    else:
        place[path[-1]] = 1 if old is None else not old if old in (True, False) else old + 1
    assert place[path[-1]] != old
    return copy


# ------------------------------------------------------------------ identity


def test_the_id_changes_with_everything_that_changes_numbers(config: Config):
    """Guards against two runs with other numbers that share a folder (defect 21 of the official code)."""
    data = asdict(config)
    own = run_folder.run_id(data)
    ids = {".".join(path): run_folder.run_id(changed(data, path)) for path in leaves(data)}
    assert len(ids) > 30
    same = {key for key, value in ids.items() if value == own}
    assert same == set(run_folder.NOT_IDENTITY), "each of them has to be a key of the config, too"
    rest = [value for key, value in ids.items() if key not in same]
    assert len(set(rest)) == len(rest)


def test_the_id_knows_the_run_that_a_trunk_comes_from_wherever_its_folder_lies(config: Config):
    """Guards against an identity that is lost with a move, and a config without init_from that is another run than before."""
    starts = [None, "runs/a", "/elsewhere/runs/a", "runs/b"]
    ids = [run_folder.run_id(asdict(replace(config, model=replace(config.model, init_from=start)))) for start in starts]
    assert ids[1] == ids[2]
    assert len(set(ids)) == 3
    without = asdict(config)
    del without["model"]["init_from"]
    assert run_folder.run_id(without) == ids[0]


def test_a_key_that_is_new_does_not_rename_the_runs_before_it(config: Config):
    """Guards against a folder that is not found again, because a later version knows one more choice."""
    data = asdict(config)
    without = {key: value for key, value in data.items() if key != "optimizer"}
    assert run_folder.run_id(data) == run_folder.run_id(without)
    assert run_folder.run_id(data | {"optimizer": {"name": "muon"}}) != run_folder.run_id(without)


def test_every_kept_run_has_the_name_that_it_was_trained_under():
    """Guards against an identity that a later version computes otherwise. New keys stand at what was done then."""
    kept = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*/records/*.json"))]
    assert len(kept) > 300
    for record in (each["record"] for each in kept):
        config = {"optimizer": {"name": "adamw"}} | record["config"]
        assert run_folder.run_name(config) == record["run"]


def test_the_id_ignores_the_order_of_keys(config: Config):
    data = asdict(config)
    turned = {key: dict(reversed(v.items())) if isinstance(v, dict) else v for key, v in reversed(data.items())}
    assert list(turned) != list(data)
    assert run_folder.run_id(turned) == run_folder.run_id(data)


def test_the_id_survives_a_round_trip_through_files(config: Config):
    """Guards against a resume that does not find its own folder."""
    data = asdict(config)
    assert run_folder.run_id(json.loads(json.dumps(data))) == run_folder.run_id(data)


def test_the_id_is_the_same_in_every_process(config: Config):
    """Guards against `hash`, which is salted."""
    code = "import json, sys; from pitfalls.runs import run_folder; print(run_folder.run_id(json.load(sys.stdin)))"
    done = subprocess.run(
        [os.sys.executable, "-c", code], input=json.dumps(asdict(config)), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == run_folder.run_id(asdict(config))


def test_values_of_other_types_are_other_runs():
    """Guards against keys that are joined as text: 1 and "1" and null differ."""
    ids = {run_folder.run_id({"a": value}) for value in (1, "1", None, "null", 1.5, True)}
    assert len(ids) == 6


def test_a_run_is_named_by_what_is_in_it(config: Config):
    data = asdict(config)
    assert run_folder.run_name(data) == f"next_token-tiny-g2_4-n10-online-s0-{run_folder.run_id(data)}"
    data["task"]["train_graphs"] = 200
    assert "-fixed200-" in run_folder.run_name(data)
    assert msgspec.convert(data, ConfigRecord).graph == "G(2,4)"


# ------------------------------------------------------------------ atomic files


def test_json_is_written_and_replaced(tmp_path: Path):
    path = tmp_path / "record.json"
    for data in ({"a": [1, 2.5, None]}, {"b": "ä"}):
        write_json(path, data)
        assert json.loads(path.read_text()) == data
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("operation", ["fsync", "replace"])
def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str):
    """Guards against a half-written record, which would count as finished."""
    path = tmp_path / "record.json"
    write_json(path, {"old": True})

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, operation, crash)
        with pytest.raises(OSError, match="no space"):
            write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"], "on a full disk, half a file would stay in the way"
    write_json(path, {"new": True})
    assert json.loads(path.read_text()) == {"new": True}


def test_nan_is_refused(tmp_path: Path):
    """Guards against a file that is not JSON, although Python reads it."""
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "record.json", {"loss": float("nan")})
    assert not (tmp_path / "record.json").exists()


# ------------------------------------------------------------------ reading


def test_a_missing_record_says_what_to_do(tmp_path: Path):
    assert not run_folder.is_finished(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"record\.json: no record, so this run has not finished; train it"):
        run_folder.read_record(tmp_path)


@pytest.mark.parametrize("text", ["", '{"conf', "[1, 2]", "{}", "null"])
def test_a_broken_record_is_refused_with_the_remedy(tmp_path: Path, text: str):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(FileError, match=r"record\.json: .*delete the file"):
        run_folder.read_record(tmp_path)


def test_a_record_is_read_as_written(tmp_path: Path, config: Config):
    record = a_record(config)
    write_json(tmp_path / "record.json", record)
    assert run_folder.is_finished(tmp_path)
    assert run_folder.read_record(tmp_path) == record


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("run", "../elsewhere", "run"),
        ("seed", -1, "seed"),
        ("wall_s", "long", "wall_s"),
        ("evaluation", {}, "the split `test` is missing"),
        ("evaluation", {"test": {}}, "exact_match"),
        ("evaluation", {"validation": {}}, "validation"),
        ("probes", {"verifier": {"solved": {"1": {"k": 5, "n": 4}}}}, "no count of k among n"),
        ("config", {"task": {}}, "degree"),
        ("hardware", {}, "cpu"),
        ("probes", {"uncertainty": {"entropy": [{"sum": 1.0, "sum_sq": 1.0, "n": 0}]}}, ">= 1 - at .*n"),
        (
            "probes",
            {"uncertainty": {"entropy": [{"sum": 1.0, "sum_sq": 1.0, "n": 4}]}},
            "entropy: 1 entries for",
        ),
    ],
)
def test_a_record_of_other_content_is_refused_by_name(tmp_path: Path, config: Config, key: str, value: Any, message: str):
    """Guards against tables made of what a stranger wrote."""
    write_json(tmp_path / "record.json", plain(a_record(config)) | {key: value})
    with pytest.raises(FileError, match=message):
        run_folder.read_record(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("training", "precision", None, "training.precision: None is no text"),
        ("training", "n_steps", "x", "training.n_steps: 'x' is no positive integer"),
        ("training", "batch_size", 0, "training.batch_size: 0 is no positive integer"),
        ("model", "architecture", None, "model.architecture: None is no text"),
        ("objective", "name", "", "objective.name: '' is no text"),
    ],
)
def test_a_config_without_what_reports_read_is_refused(tmp_path: Path, config: Config, part, key, value, message):
    """Guards against a KeyError in the middle of a report, or a table of made-up budgets."""
    record = plain(a_record(config))
    record["config"][part][key] = value
    write_json(tmp_path / "record.json", record)
    with pytest.raises(FileError, match=message):
        run_folder.read_record(tmp_path)


@pytest.mark.parametrize("torn", ["", '{"step": 3, "lo', "{", '{"step": 3}garbage'])
def test_a_torn_last_line_of_metrics_is_left_out(tmp_path: Path, torn: str):
    """Guards against a run that cannot be resumed or plotted after a power cut."""
    (tmp_path / "metrics.jsonl").write_text(LINES + torn)
    assert run_folder.read_metrics(tmp_path) == ROWS


@pytest.mark.parametrize("line", ["garbage", "[1]", '{"kind": "train"}', '{"kind": "eval", "step": 1}', LINES.split("}")[0]])
def test_another_broken_line_of_metrics_is_refused_by_its_number(tmp_path: Path, line: str):
    """Guards against a learning curve that silently ends where a disk lost a sector."""
    (tmp_path / "metrics.jsonl").write_text(LINES + line + "\n" + LINES)
    with pytest.raises(FileError, match=r"metrics\.jsonl line 3: "):
        run_folder.read_metrics(tmp_path)


def test_no_metrics_are_no_rows(tmp_path: Path):
    assert run_folder.read_metrics(tmp_path) == []


# ------------------------------------------------------------------ where a result comes from


def git(root: Path, *args: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", *identity, "-C", str(root), *args], check=True, capture_output=True)


def test_a_change_of_code_makes_a_tree_dirty_and_a_new_result_does_not(tmp_path: Path):
    """Guards against results of uncommitted code, and a second result refused because the first one is not committed yet."""
    for name in ("src/a.py", "conf/b.yaml", "scripts/c.py", "constraints.txt", "results/d.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1\n")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    found = provenance.environment(tmp_path)
    assert len(found["commit"]) == 40
    assert found["dirty"] is False
    (tmp_path / "results/e.json").write_text("2\n")
    (tmp_path / "results/d.json").write_text("2\n")
    assert provenance.environment(tmp_path)["dirty"] is False
    for name in ("src/a.py", "src/new.py", "conf/b.yaml", "scripts/c.py", "constraints.txt"):
        (tmp_path / name).write_text("2\n")
        assert provenance.environment(tmp_path)["dirty"] is True, name
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", name)
        assert provenance.environment(tmp_path)["dirty"] is False


def test_outside_a_checkout_the_commit_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance.environment(tmp_path)
    assert found["commit"] is None
    assert found["dirty"] is None
    assert set(found["versions"]) == {"python", *provenance.VERSIONED}
    assert found["hardware"].n_cpus >= 1
    json.dumps(msgspec.to_builtins(found), allow_nan=False)


def test_records_are_read_without_torch():
    """Guards against reports that take seconds to start."""
    code = "import sys, pitfalls.runs.run_folder; sys.exit(any(m in sys.modules for m in ('torch', 'hydra', 'transformers')))"
    assert subprocess.run([os.sys.executable, "-c", code], check=False).returncode == 0
