"""Past the goal: each kind of token written there is counted correctly."""

import msgspec
import pytest
import torch

from pitfalls.evaluation.decoding import decode
from pitfalls.experiment.config import resolve, run_dir_of
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.language import past_the_goal
from pitfalls.language.lab_record import PastGoal
from pitfalls.language.lab_tables import path_star as table
from pitfalls.runs.counts import Count
from pitfalls.runs.files import read_json
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from tests.longer_view import Twice
from tests.tiny_runs import TINY


@pytest.fixture
def graphs(task):
    return task.sample(32, generator(0, "probe"))


@pytest.mark.parametrize("name", ["next_token", "reversed"])
def test_the_beginning_is_the_answer(make_trunk, make_objective, graphs, name):
    """Guards against errors in the order of reversed answers, and in the cache."""
    trunk, objective = make_trunk().eval(), make_objective(name)
    length = graphs.target.shape[1]
    written, entropy = past_the_goal.write_on(trunk, objective, graphs.prompt, length + past_the_goal.n_more(length))
    assert torch.equal(objective.unview(written[:, :length]), decode(trunk, objective, graphs.prompt, length))
    with torch.no_grad():
        whole = torch.cat([graphs.prompt, written], 1)
        log_p = trunk.logits(trunk(whole[:, :-1]).normed)[:, graphs.prompt.shape[1] - 1 :].log_softmax(-1)
    torch.testing.assert_close(entropy, -(log_p.exp() * log_p).sum(-1), rtol=1e-4, atol=1e-4)


def test_an_answer_that_is_longer_than_the_path_is_refused(make_trunk, make_objective, graphs):
    """Guards against tokens of the path that are counted as written past the goal, and too many positions."""
    objective = make_objective("next_token")
    objective.__class__ = Twice
    with pytest.raises(ConfigError, match="Twice writes more tokens than the path"):
        past_the_goal.measure_past_goal(make_trunk().eval(), objective, graphs, 10)


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        (4, "the same node"),
        (0, "start"),
        (1, "its own path"),
        (5, "another arm"),
        (9, "not in the graph"),
        (12, "a symbol"),
    ],
)
def test_what_stands_after_the_end(token, kind):
    """The graph has ten node values, the path 0 1 4 and another arm 0 5 6."""
    prompt = [0, 1, 10, 5, 6, 10, 1, 4, 10, 0, 5, 11, 0, 4, 12]
    assert past_the_goal._kind([0, 1, 4, token], prompt, 3, 10) == kind


def test_a_model_that_repeats_itself_is_in_a_loop(make_trunk, make_objective, task, graphs, monkeypatch):
    """The model writes the goal for ever, which is a loop of period one in every text."""
    trunk, objective = make_trunk().eval(), make_objective("next_token")
    goal = graphs.target[:, -1:]
    written = torch.cat([graphs.target, goal.expand(-1, past_the_goal.n_more(graphs.target.shape[1]))], 1)
    monkeypatch.setattr(past_the_goal, "write_on", lambda *_: (written, torch.full(written.shape, 0.25)))
    found = past_the_goal.measure_past_goal(trunk, objective, graphs, task.n_values)
    assert found["exact_match"].value == found["loops"].value == found["next"]["the same node"] == 1
    assert found["periods"] == [(1, 32)]
    assert found["entropy_in_loop"].value == 0.25
    about = {"run": "a", "objective": "next token", "graph": "G(2,4)", "seed": 0, "samples": 9, "forced": None}
    entry = msgspec.convert(msgspec.to_builtins(found | about | {"after_right": [Count(9, 10)] * 4}), PastGoal)
    row = dict(zip(table([entry]).header, table([entry]).rows[0], strict=True))
    assert row["error after its own, first hop right"] == "0.1000"
    assert row["error after gold tokens"] == "-"
    assert row["entropy of the first hop"] == "0.250"


def test_a_method_that_fills_in_has_no_end(make_trunk, make_objective, task, graphs):
    """The error is one line with the reason."""
    with pytest.raises(ConfigError, match="MaskedDiffusion does not write token by token"):
        past_the_goal.measure_past_goal(make_trunk().eval(), make_objective("masked_diffusion"), graphs, task.n_values)


def test_the_script_measures_runs_and_keeps_other_entries(tmp_path, run_script):
    """The same run twice is one entry. The table is made from the file."""
    config = resolve(compose([*TINY, f"runs_dir={tmp_path}"]))
    train_run(config, make_display=lambda config: [])
    tiny_run = run_dir_of(config)
    arguments = ("--runs", tiny_run, "--graphs", 8, "--runs-dir", tmp_path, "--threads", 1)
    for _ in range(2):
        done = run_script("degenerate", *arguments)
        assert done.returncode == 0, done.stderr
    entries = read_json(tmp_path / "degeneration" / "path_star.json", list[PastGoal])
    assert [entry.graphs for entry in entries] == [8]
    assert entries[0].run in str(tiny_run)
    assert "| next token |" in (tmp_path / "degeneration" / "path_star.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model=PRESET or --runs RUN: give one of the two, and not both"),
        (["model=smollm2", "--runs", "x"], "model=PRESET or --runs RUN: give one of the two, and not both"),
        (["task=g2_5"], "task=g2_5: only the model is chosen here"),
        (["model=smollm2", "model.source=elsewhere", "model.revision=" + 40 * "a"], "it is not smollm2; name its results"),
        (["model=gpt_tiny"], "model=gpt_tiny: not a pretrained language model"),
        (["model=cheese"], "cheese"),
        (["model=smollm2", "--threads", "0"], "--threads: '0' is not an integer in 1..1024"),
        (["model=smollm2", "--quick", "--keep"], "--quick --keep: too little is measured to be kept"),
        (["--runs", "nowhere"], "nowhere/resolved_config.json: no such file, so nowhere is not the folder of a run"),
    ],
)
def test_a_wrong_command_line_is_one_line(words, message, run_script):
    """The error comes before anything is loaded or measured."""
    done = run_script("degenerate", *words)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
