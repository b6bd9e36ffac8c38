"""The functions for notebooks: answers are those of the evaluation, states those of the model, and a mistake is one line."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import pitfalls
from pitfalls.evaluation.decoding import decode
from pitfalls.experiment.build import Run, build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.graph_checks import check_graph
from pitfalls.experiment.hydra_app import compose
from pitfalls.models.hf_internals import attention_name, blocks
from pitfalls.runs.run_folder import is_finished
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import Outcome, PathStar
from tests.longer_view import Twice
from tests.tiny_runs import TINY

EDGES = [(1, 2), (3, 4), (5, 1), (5, 3)]
"""G(2,3): 5 -> 1 -> 2 and 5 -> 3 -> 4."""


def make_run(*overrides: str) -> Run:
    """An untrained run on G(2,3), whose outputs differ from token to token."""
    wide = [] if any("mamba" in text for text in overrides) else ["model.weight_init_std=0.5"]
    tiny = [text for text in TINY if not text.startswith("model")] if "model=mamba" in "".join(overrides) else TINY
    run = build(resolve(compose([*tiny, *wide, *overrides])))
    run.trunk.eval()
    return run


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(params=["gpt_nano", "mamba_tiny", "mamba2_tiny"])
def any_model(request: pytest.FixtureRequest) -> Run:
    return make_run(f"model={request.param}", "model.n_layers=2", "model.width=32")


# ------------------------------------------------------------------ runs


def test_train_trains_once_and_the_run_can_be_loaded(tmp_path: Path):
    """Guards against a path that hydra's grammar reads in another way, and a call that trains again."""
    runs_dir = tmp_path / "it's, a {folder}"
    folder = pitfalls.train(TINY, runs_dir=runs_dir, quiet=True)
    assert folder.parent == runs_dir
    assert is_finished(folder)
    before = (folder / "record.json").stat().st_mtime_ns
    assert pitfalls.train(TINY, runs_dir=str(runs_dir), quiet=True) == folder
    assert (folder / "record.json").stat().st_mtime_ns == before
    run = pitfalls.load_run(str(folder))
    assert repr(run) == "Run(next_token, gpt_nano with 14,144 parameters, G(2,3) on 20 node values, seed 0)"
    assert not run.trunk.training


def test_train_leaves_the_process_as_it_was(tmp_path: Path):
    """Guards against a notebook that is slower, or draws other numbers, after it has trained a run."""
    torch.set_num_threads(2)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    try:
        pitfalls.train(TINY, runs_dir=tmp_path, quiet=True)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.rand(3), expected)
    finally:
        torch.set_num_threads(1)


def test_quiet_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture):
    """Guards against a notebook whose text is lost among lines of training."""
    pitfalls.train(TINY, runs_dir=tmp_path, quiet=True)
    assert capfd.readouterr().err == ""


def test_a_wrong_override_is_a_pitfalls_error(tmp_path: Path):
    """Guards against hydra's own traceback."""
    with pytest.raises(pitfalls.PitfallsError, match=r"did you mean training\.lr"):
        pitfalls.train([*TINY, "training.lrr=1"], runs_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ graphs typed by hand

MISTAKES = {
    "edge 1 is (3, 4, 5): an edge is a pair": ([(1, 2), (3, 4, 5), (5, 1), (5, 3)], 5, 4),
    "edges=7: give a list of (parent, child) pairs": (7, 5, 4),
    "edge 0 is 7: an edge is a pair": ([7, (3, 4), (5, 1), (5, 3)], 5, 4),
    "edge 0 has 'a': a node value is an integer": ([("a", 2), (3, 4), (5, 1), (5, 3)], 5, 4),
    "edge 0 has 1.0: a node value is an integer": ([(1.0, 2), (3, 4), (5, 1), (5, 3)], 5, 4),
    "edge 1 has 20: the node values of this run are 0 to 19": ([(1, 2), (3, 20), (5, 1), (5, 3)], 5, 20),
    "the start has -1: the node values": (EDGES, -1, 4),
    "the goal has 20: the node values": (EDGES, 5, 20),
    "3 edges: a graph of this run, G(2,3), has 4": (EDGES[:3], 5, 2),
    "node 4 has two parents, 3 and 1": ([(3, 4), (1, 4), (5, 1), (5, 3)], 5, 4),
    "node 2 has two parents, 1 and 1": ([(1, 2), (1, 2), (5, 1), (5, 3)], 5, 2),
    "an edge leads from 4 into the start, 5": ([(4, 5), (3, 4), (5, 1), (5, 3)], 5, 4),
    "the start, 9, has 0 arms": (EDGES, 9, 4),
    "the start, 5, has 1 arms": ([(5, 1), (1, 2), (6, 7), (7, 6)], 5, 2),
    "node 1 has 2 children: arms branch at the start, 5, alone": ([(1, 2), (1, 4), (5, 1), (5, 3)], 5, 4),
    "the arm 5 1 2 3 has 4 nodes: in this run, G(2,3), an arm has 3": ([(1, 2), (2, 3), (5, 1), (5, 4)], 5, 4),
    "the arm 5 3 has 2 nodes": ([(5, 3), (5, 1), (1, 2), (6, 7)], 5, 2),
    "the goal, 3, is not the end of an arm; the ends are 2, 4": (EDGES, 5, 3),
    "the goal, 11, is not the end of an arm": (EDGES, 5, 11),
}


@pytest.mark.parametrize("message", MISTAKES)
@pytest.mark.usefixtures("as_for_users")
def test_a_mistake_in_a_graph_is_one_clear_line(run: Run, message: str):
    """Guards against an answer to a graph that is none of the run's: it means nothing and looks like one that does."""
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        pitfalls.answer(run, *MISTAKES[message])
    assert "\n" not in str(caught.value)


WRONG_CALLS = {
    "run='runs/a' is a str: give a run, pitfalls.load_run(folder)": lambda run: pitfalls.answer("runs/a", EDGES, 5, 4),
    "run=1 is a int: give a run": lambda run: pitfalls.hidden_states(1, torch.tensor([[1]])),
    "run=2 is a int: give a run": lambda run: pitfalls.export(2, "a"),
    "begin=5: give a list of node values, for example begin=[5]": lambda run: pitfalls.answer(run, EDGES, 5, 4, begin=5),
    "begin={1, 5}: give a list of node values, for example begin=[5, 1]": lambda run: pitfalls.answer(
        run, EDGES, 5, 4, begin={5, 1}
    ),
    "begin has True: a node value is an integer": lambda run: pitfalls.answer(run, EDGES, 5, 4, begin=[True]),
    "n_graphs=True: it must be a whole number": lambda run: pitfalls.compare(run, run, True),
    "tokens: rows of 1 to ": lambda run: pitfalls.hidden_states(run, pitfalls.prompt(run, EDGES, 5, 4) + 100),
    "(the task's), got [1, 0]": lambda run: pitfalls.hidden_states(run, pitfalls.prompt(run, EDGES, 5, 4)[:, :0]),
    "answer=5: give a list of node values": lambda run: pitfalls.prompt(run, EDGES, 5, 4, answer=5),
    "tokens is no integer tensor [B,T]: give pitfalls.prompt(": lambda run: pitfalls.hidden_states(run, EDGES),
    "tokens is no integer tensor": lambda run: pitfalls.attention(run, torch.tensor([1, 2])),
    "overrides='seed=1': give a list of overrides, for example ['seed=1']": lambda run: pitfalls.train("seed=1"),
}


@pytest.mark.parametrize("message", WRONG_CALLS)
@pytest.mark.usefixtures("as_for_users")
def test_a_wrong_call_is_one_clear_line(run: Run, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Guards against a bare TypeError or AttributeError from deep inside, for example for a folder in the place of its run."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        WRONG_CALLS[message](run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", [PathStar(2, 3, 20), PathStar(1, 2, 4), PathStar(5, 4, 30)], ids=str)
def test_every_graph_of_a_task_is_accepted(run: Run, task: PathStar):
    """Guards against a check that refuses a right graph, and a prompt with other tokens than the training's."""
    graphs = task.sample(50, generator(0, "test"))
    own = replace(run, task=task)
    for i, (start, *_, goal) in enumerate(graphs.target.tolist()):
        edges = task.edges(graphs.prompt)[i].tolist()
        assert check_graph(task, edges, start, goal)[1] == graphs.target[i].tolist()
        assert torch.equal(pitfalls.prompt(own, edges, start, goal), graphs.prompt[i : i + 1])


def test_edges_may_be_an_array(run: Run):
    """Guards against errors for numpy's integers, and for edges that can be iterated only once."""
    expected = pitfalls.prompt(run, EDGES, 5, 4)
    assert torch.equal(pitfalls.prompt(run, np.array(EDGES), np.int64(5), np.int64(4)), expected)
    assert torch.equal(pitfalls.prompt(run, iter(EDGES), 5, 4), expected)
    assert pitfalls.answer(run, iter(EDGES), 5, 4).target == ("5", "3", "4")


def test_prompt_can_hold_the_beginning_of_an_answer(run: Run):
    tokens = pitfalls.prompt(run, EDGES, 5, 4, answer=[5, 3])
    assert run.task.vocabulary.text(tokens[0]) == "1 2 | 3 4 | 5 1 | 5 3 / 5 4 = 5 3"
    with pytest.raises(ConfigError, match="answer has 20: the node values"):
        pitfalls.prompt(run, EDGES, 5, 4, answer=[20])


# ------------------------------------------------------------------ answers


def test_answer_is_the_objectives_own(objective_name: str):
    """Guards against an answer that is decoded, ordered or judged in another way than the evaluation does."""
    run = make_run(f"objective={objective_name}")
    found = pitfalls.answer(run, EDGES, 5, 4)
    tokens = pitfalls.prompt(run, EDGES, 5, 4)
    expected = decode(run.trunk, run.objective, tokens, 3)
    assert found.tokens == tuple(map(run.task.vocabulary.symbol, expected[0].tolist()))
    assert found.target == ("5", "3", "4")
    outcome = Outcome(int(run.task.verify(tokens, expected))).name.lower().replace("_", " ")
    assert found.outcome == (None if objective_name == "first_hop" else outcome)


@pytest.mark.parametrize("name", ["next_token", "reversed", "teacherless", "random_order", "belief_state"])
def test_probabilities_stand_at_the_position_of_their_token(name: str):
    """Guards against probabilities of reversed targets that are read from the wrong end."""
    run = make_run(f"objective={name}")
    found = pitfalls.answer(run, EDGES, 5, 4)
    assert found.probabilities.shape == (3, run.task.vocabulary.size)
    assert torch.allclose(found.probabilities.sum(1), torch.ones(3))
    assert [run.task.vocabulary.symbol(int(i)) for i in found.probabilities.argmax(1)] == list(found.tokens)


def test_an_answer_that_is_longer_than_the_path_is_shown_as_the_path(run: Run, make_objective):
    """Guards against probabilities at the wrong places, and a beginning that lands on another token than the start."""
    objective = make_objective("next_token", task=run.task)
    objective.__class__ = Twice
    longer = replace(run, objective=objective)
    found = pitfalls.answer(longer, EDGES, 5, 4)
    assert found.probabilities.shape == (3, run.task.vocabulary.size)
    with pytest.raises(ConfigError, match="does not write its answer from the start on"):
        pitfalls.answer(longer, EDGES, 5, 4, begin=[5, 1])


def test_a_cheater_follows_the_arm_that_it_is_put_on(run: Run, make_player, make_objective):
    """Guards against a beginning that the model does not read."""
    task = PathStar(3, 4, 15)
    edges = [(0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9)]
    objective = make_objective("next_token", task=task)
    cheater = replace(run, task=task, trunk=make_player("cheater", task), objective=objective)
    for begin, answer in (([0, 4], "0 4 5 6"), ([0, 7], "0 7 8 9"), ([0, 7, 8], "0 7 8 9"), ([0, 1, 2, 3], "0 1 2 3")):
        found = pitfalls.answer(cheater, edges, 0, 3, begin=begin)
        right = found.tokens == found.target
        assert repr(found) == f"Answer({answer}: {'right arm' if right else 'wrong arm'})"


@pytest.mark.parametrize("name", ["reversed", "teacherless"])
def test_who_does_not_write_from_the_start_on_cannot_go_on(name: str):
    """Guards against a forced first hop that becomes the last token, or is ignored."""
    with pytest.raises(ConfigError, match=f"objective={name} does not write its answer from the start on"):
        pitfalls.answer(make_run(f"objective={name}"), EDGES, 5, 4, begin=[5, 1])


def test_a_beginning_fits_the_answer(run: Run):
    with pytest.raises(ConfigError, match="an answer of this run has 3 tokens"):
        pitfalls.answer(run, EDGES, 5, 4, begin=[5, 3, 4, 4])
    with pytest.raises(ConfigError, match="begin has 99"):
        pitfalls.answer(run, EDGES, 5, 4, begin=[5, 99])


# ------------------------------------------------------------------ inside the model


def test_hidden_states_are_those_between_the_blocks(any_model: Run):
    """Guards against states after the final norm, and a list that is shifted by one block."""
    run = any_model
    tokens = run.task.sample(4, generator(0, "test")).prompt
    states = pitfalls.hidden_states(run, tokens)
    assert states.shape == (3, 4, 15, 32)
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda _, args, output: outputs.append(output if torch.is_tensor(output) else output[0]))
        for block in blocks(run.trunk.lm)
    ]
    with torch.no_grad():
        logits = run.trunk.logits(run.trunk(tokens).normed)
        assert torch.equal(states[1:], torch.stack(outputs))
        assert torch.equal(run.trunk.logits(run.trunk.norm(states[-1])), logits)
    for hook in hooks:
        hook.remove()
    if not run.trunk.recurrent:
        positions = run.trunk.lm.base_model.wpe.weight[:15]
        assert torch.allclose(states[0], run.trunk.embed(tokens) + positions)


def test_hooks_are_removed(run: Run):
    """Guards against a model that collects states for ever."""
    pitfalls.hidden_states(run, pitfalls.prompt(run, EDGES, 5, 4))
    assert not any(block._forward_pre_hooks for block in blocks(run.trunk.lm))


def test_attention_is_what_the_blocks_compute(run: Run):
    """Guards against weights of another implementation, without the causal mask or the scaling."""
    tokens = run.task.sample(4, generator(0, "test")).prompt
    before = attention_name(run.trunk.lm)
    weights = pitfalls.attention(run, tokens)
    assert weights.shape == (4, 4, 4, 15, 15)
    assert attention_name(run.trunk.lm) == before
    assert torch.equal(weights, weights.tril())
    states = pitfalls.hidden_states(run, tokens)
    for block, read, found in zip(blocks(run.trunk.lm), states, weights, strict=False):
        with torch.no_grad():
            query, key, _ = block.attn.c_attn(block.ln_1(read)).view(4, 15, 3, 4, 4).permute(2, 0, 3, 1, 4)
        scores = (query @ key.mT / 2).masked_fill(torch.ones(15, 15, dtype=torch.bool).triu(1), -torch.inf)
        assert torch.allclose(found, scores.softmax(-1), atol=1e-5)


def test_a_mamba_has_no_attention():
    """Guards against an AttributeError from within transformers."""
    run = make_run("model=mamba2_tiny", "model.n_layers=1")
    with pytest.raises(ConfigError, match="model=mamba2_tiny is recurrent, so not every block has attention"):
        pitfalls.attention(run, pitfalls.prompt(run, EDGES, 5, 4))


# ------------------------------------------------------------------ a picture


def test_plot_graph_draws_every_node_edge_and_step():
    """Guards against a picture in which an arm, or a step that is no edge, is missing."""
    axes = Figure().subplots()
    pitfalls.plot_graph(axes, EDGES, 5, 4, answer=["5", "3", "2"])
    nodes = [text for text in axes.texts if text.get_text()]
    arrows = [text.arrow_patch for text in axes.texts if not text.get_text()]
    assert sorted(text.get_text() for text in nodes) == ["1", "2", "3", "4", "5"]
    assert len({text.get_position() for text in nodes}) == 5
    assert [arrow.get_linestyle() == "--" for arrow in arrows] == [False] * 4 + [True]
    assert len({arrow.get_edgecolor() for arrow in arrows}) == 2


def test_plot_graph_passes_over_what_is_no_node():
    axes = Figure().subplots()
    pitfalls.plot_graph(axes, EDGES, 5, 4, answer=["5", "=", "19"])
    assert len(axes.texts) == 9


NO_STARS = {
    "the start, 99, has no arms: no edge begins there": (EDGES, 99, 4),
    "the goal, 99, is not the end of an arm; the ends are 2, 4": (EDGES, 5, 99),
    "edges=5: give a list of (parent, child) pairs": (5, 5, 4),
    "edge 4 is 7: an edge is a pair": ([*EDGES, 7], 5, 4),
    "the goal has '4': a node value is an integer": (EDGES, 5, "4"),
    "node 1 has two parents, 5 and 2": ([*EDGES, (2, 1)], 5, 4),
    "the edge (6, 7) belongs to no arm: no path leads to it from the start, 5": ([*EDGES, (6, 7)], 5, 4),
}


@pytest.mark.parametrize("message", NO_STARS)
@pytest.mark.usefixtures("as_for_users")
def test_plot_graph_draws_stars_alone(message: str):
    """Guards against a KeyError, and arms in a circle, which are followed for ever."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        pitfalls.plot_graph(Figure().subplots(), *NO_STARS[message])
