"""The analyses of runs and models for the scripts: mistakes are refused before any compute, files stay in their folder."""

import json
import runpy
import sys

import msgspec
import pytest
import torch
import yaml

from pitfalls.experiment import degeneration_lab
from pitfalls.experiment.cli import terminal_table
from pitfalls.experiment.config import ROOT, resolve, run_dir_of
from pitfalls.experiment.evaluate_run import decode_run
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.loading import load_language_model
from pitfalls.experiment.run import train_run
from pitfalls.language.lab_record import LabRecord
from pitfalls.results.formats import Table
from pitfalls.runs.files import read_json
from pitfalls.schemas import ConfigError
from tests.language.conftest import TOPICS, model_config, plan
from tests.tiny_runs import TINY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a tiny run, by objective."""
    runs_dir = tmp_path_factory.mktemp("runs")

    def train(objective):
        config = resolve(compose([*TINY, f"objective={objective}", f"runs_dir={runs_dir}"]))
        if not run_dir_of(config).exists():
            train_run(config, make_display=lambda config: [])
        return run_dir_of(config)

    return train


def test_every_strategy_answers_the_graphs_that_were_asked_for(trained):
    """Guards against a number of graphs that is not the one in the table's title."""
    scores = decode_run(trained("next_token"), 8, 0)
    assert {score.solved.n for score in scores} == {8}
    assert {"autoregressive", "generate: greedy", "best of 8 samples, verified"} <= {score.name for score in scores}


@pytest.mark.parametrize("n", [0, 65])
def test_graphs_that_a_run_does_not_have_are_refused(trained, tmp_path, n):
    """Guards against silently answering fewer graphs than requested: there are 64."""
    with pytest.raises(ConfigError, match=f"--graphs {n}: from 1 to 64"):
        decode_run(trained("next_token"), n, 0)
    with pytest.raises(ConfigError, match=f"--graphs {n}: from 1 to 64"):
        degeneration_lab.past_goal_of_runs([trained("next_token")], n, tmp_path)


def test_an_objective_without_whole_paths_is_refused(trained):
    """Guards against an exact match of zero for a model that was never asked for one."""
    with pytest.raises(ConfigError, match="objective=first_hop does not answer whole paths"):
        decode_run(trained("first_hop"), 8, 0)


def test_a_run_has_no_revision(trained):
    """Guards against an option that does nothing."""
    with pytest.raises(ConfigError, match=r"--revision abc: .* is a run and has none"):
        load_language_model(str(trained("next_token")), "abc")


@pytest.fixture
def small_lab(tmp_path, monkeypatch):
    """A folder like conf/degeneration with a lab that takes a second."""
    small = plan()
    conf = tmp_path / "conf"
    conf.mkdir()
    (conf / "full.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(small.settings)))
    (conf / "prompts.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(small.prompts)))
    (conf / "units.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(small.units)))
    (conf / "claims.yaml").write_bytes((degeneration_lab.LAB_CONF / "claims.yaml").read_bytes())
    monkeypatch.setattr(degeneration_lab, "LAB_CONF", conf)


@pytest.mark.usefixtures("small_lab")
def test_a_lab_stays_in_its_folder_and_is_measured_once(save_lm, lab_words, tmp_path, monkeypatch):
    """Guards against a user's own lab in results/, and against parts that are measured twice."""
    model = model_config(save_lm("gpt2", lab_words, len(lab_words), 128))
    lines, drawn = [], []
    monkeypatch.setattr(degeneration_lab.lab_figures, "write", lambda record, folder: drawn.append(folder))
    lab = degeneration_lab.run_lab(model, "full", tmp_path / "runs", lines.append)
    assert lab.folder.parent == tmp_path / "runs" / "degeneration"
    assert lab.folder.name.startswith("tiny-full-")
    assert read_json(lab.folder / "record.json", LabRecord) == lab.record
    assert {path.name for path in lab.folder.glob("*.md")} == {f"{name}.md" for name in lab.tables}
    assert drawn == [lab.folder]
    n_parts = len(list((lab.folder / "parts").iterdir()))
    assert len(lines) == n_parts
    again = degeneration_lab.run_lab(model, "full", tmp_path / "runs", lines.append)
    assert len(lines) == n_parts
    assert again.record == lab.record
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "runs"]


@pytest.fixture(scope="session")
def lab_words():
    """Return the words of a tokenizer that knows the lab's prose."""
    from pydoc_data.topics import topics

    return ["<s>", "</s>", *dict.fromkeys(" ".join(topics[name] for name in TOPICS).split())][:400]


def test_the_terminal_shows_what_people_see():
    """Guards against columns that are for the CSV file alone, and brackets in a cell, which rich takes for markup."""
    shown = terminal_table(Table("t", ("name", "n", "evidence"), (("[bold]", "1", "long"),), shown=("name", "n")))
    assert [column.header.plain for column in shown.columns] == ["name", "n"]
    assert [column.justify for column in shown.columns] == ["left", "right"]
    assert next(iter(shown.columns[0].cells)).plain == "[bold]"


def test_decode_prints_one_object(trained, monkeypatch, capsys):
    """All scripts do so with --json. Here the script runs in this process, which has torch already."""
    words = [str(trained("next_token")), "--graphs", "4", "--threads", str(torch.get_num_threads()), "--json"]
    monkeypatch.setattr(sys, "argv", ["decode.py", *words])
    runpy.run_path(str(ROOT / "scripts" / "decode.py"), run_name="__main__")
    found = json.loads(capsys.readouterr().out)
    assert found["graphs"] == 4
    assert found["strategies"][0]["name"] == "autoregressive"
    assert found["strategies"][0]["solved"]["n"] == 4
