"""The table of decoding strategies: its counts are right."""

import pytest
import torch

from pitfalls.evaluation.decoding import decode
from pitfalls.evaluation.strategies import N_ANSWERS, StrategyScore, score_strategies, strategy_table
from pitfalls.models.factory import build_trunk
from pitfalls.runs.counts import Count
from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import PathStar
from tests.conftest import TINY_MODEL
from tests.longer_view import Twice

LENGTH = 4


@pytest.fixture
def graphs(task):
    return task.sample(64, generator(0, "probe"))


def rows_of(trunk, objective, graphs, **others):
    return {row.name: row for row in score_strategies(trunk, objective, graphs, 2, 0, **others)}


def test_an_oracle_and_a_guesser_are_told_apart(make_trunk, make_objective, graphs, monkeypatch):
    """An oracle is always right. A guesser of the arm is right 1 time in d, and its k answers score as k guesses."""
    trunk, objective = make_trunk().eval(), make_objective("next_token")
    monkeypatch.setattr("pitfalls.evaluation.strategies.decode", lambda *_, **__: graphs.target)
    assert rows_of(trunk, objective, graphs)["best of 2 samples, verified"].solved.share == 1
    many = graphs._replace(prompt=graphs.prompt.repeat(16, 1), target=graphs.target.repeat(16, 1))

    def guesser(trunk, objective, prompt, length, *, procedure=None, generator=None):
        wrong = torch.rand(len(prompt), generator=generator) < 0.5
        return torch.where(wrong[:, None], 0, many.target[: len(prompt)])

    monkeypatch.setattr("pitfalls.evaluation.strategies.decode", guesser)
    rows = rows_of(trunk, objective, many)
    for k, guess in zip(N_ANSWERS, (0.75, 0.9375, 0.99609375), strict=True):
        row = rows[f"best of {k} samples, verified"]
        assert row.guess == guess
        assert row.solved.share == pytest.approx(guess, abs=0.05)


def test_a_longer_answer_is_written_to_its_end_by_every_strategy(make_trunk, make_objective, graphs):
    """Guards against `generate` and its assistant stopping after L tokens, so that the path is cut off."""
    trunk, objective = make_trunk(weight_init_std=1.0).eval(), make_objective("next_token")
    objective.__class__ = Twice
    rows = rows_of(trunk, objective, graphs, assistant=trunk.lm)
    assert rows["autoregressive"].passes == rows["generate: greedy"].passes == LENGTH + 2
    right = (decode(trunk, objective, graphs.prompt, LENGTH) == graphs.target).all(1).sum()
    assert {rows[name].solved.k for name in ("autoregressive", "generate: greedy", "generate: greedy, assisted")} == {int(right)}


def test_passes_are_counted_in_sequences(make_trunk, make_objective, graphs):
    """Greedy decoding reads one per token, four beams four, k answers k times as many. Drafts read fewer, whole blocks one."""
    trunk, objective = make_trunk(weight_init_std=1.0).eval(), make_objective("multi_token")
    rows = rows_of(trunk, objective, graphs, assistant=trunk.lm)
    right = (decode(trunk, objective, graphs.prompt, LENGTH) == graphs.target).all(1).sum()
    same = ("autoregressive", "self speculative", "tree", "generate: greedy", "generate: greedy, assisted")
    assert {rows[name].solved.k for name in same} == {int(right)}
    assert rows["autoregressive"].passes == rows["generate: greedy"].passes == LENGTH
    assert rows["generate: beam search 4"].passes == 4 * LENGTH
    assert rows["best of 8 samples, verified"].passes == 8 * LENGTH
    assert rows["blockwise"].passes == 1
    assert rows["tree"].passes <= rows["self speculative"].passes < LENGTH
    assert all(row.graphs_per_s > 0 and row.solved.n == 64 for row in rows.values())


@pytest.mark.parametrize("name", ["belief_state", "masked_diffusion"])
def test_generate_reads_no_method_with_other_logits(make_trunk, make_objective, graphs, name):
    """Guards against `generate` for methods whose next token does not come from the language model's own head."""
    assert not any(row.startswith("generate") for row in rows_of(make_trunk().eval(), make_objective(name), graphs))


def test_an_assistant_that_does_not_fit_is_told_first(make_trunk, make_objective, graphs, monkeypatch):
    """Two assistants are refused before anything is decoded: one with other logits, and one with too few positions."""
    trunk = make_trunk().eval()
    monkeypatch.setattr("pitfalls.evaluation.strategies.decode", None)
    with pytest.raises(ConfigError, match="BeliefState does not answer from its model's next-token logits"):
        rows_of(trunk, make_objective("belief_state"), graphs, assistant=trunk.lm)
    trunk.lm.config.n_positions = 22
    with pytest.raises(ConfigError, match="reads 22 tokens"):
        rows_of(trunk, make_objective("next_token"), graphs, assistant=trunk.lm)


def test_a_long_path_has_no_endless_tree(make_trunk, make_objective, monkeypatch):
    """Two branches at each of 19 depths would be half a million nodes. Only 63 are verified."""
    task = PathStar(2, 20, 40)
    trunk = build_trunk(
        TINY_MODEL,
        n_tokens=task.vocabulary.size,
        n_positions=task.n_positions + 64,
        generator=generator(0, "init"),
        device=torch.device("cpu"),
    ).eval()
    objective = make_objective("multi_token", task=task)
    prompt = task.sample(2, generator(0, "data")).prompt
    read = []
    trunk.lm.base_model.register_forward_pre_hook(lambda m, a, k: read.append(k["inputs_embeds"].shape[1]), with_kwargs=True)
    answer = decode(trunk, objective, prompt, 20, procedure="tree")
    assert max(read) <= prompt.shape[1] + 20 + 62
    assert torch.equal(answer, decode(trunk, objective, prompt, 20, procedure="autoregressive"))


def test_answers_are_in_canonical_order(make_trunk, make_objective, graphs, monkeypatch):
    """A reversed answer of `generate` is put into canonical order before it is judged."""
    trunk, objective = make_trunk().eval(), make_objective("reversed")
    monkeypatch.setattr("pitfalls.evaluation.strategies.generate", lambda *_, **__: graphs.target.flip(1))
    assert rows_of(trunk, objective, graphs)["generate: greedy"].solved.share == 1


def test_a_row_of_the_table_says_what_was_counted():
    """Guards against columns in another order: 3 of 4 graphs, and a guess of one half."""
    table = strategy_table([StrategyScore("autoregressive", Count(3, 4), 0.5, 5.0, 1234.4)], "a run")
    assert dict(zip(table.header, table.rows[0], strict=True)) == {
        "strategy": "autoregressive",
        "exact match": "0.750",
        "95 % interval": "0.301 to 0.954",
        "a guess of the arm": "0.500",
        "sequences read": "5.00",
        "graphs/s": "1,234",
    }
