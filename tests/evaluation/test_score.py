"""One function scores everything: counts, outcomes, and the difference between forced and free."""

import msgspec
import pytest
import torch

from pitfalls.evaluation.score import evaluate, examples, forced_answer, score
from pitfalls.runs.counts import Count, Evaluation
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar
from tests.tiny_runs import plain

ALL = (0, 1, 2)
SMALL = PathStar(2, 3, 8)
PROMPTS = torch.tensor(
    [
        [5, 1, 8, 1, 2, 8, 5, 3, 8, 3, 4, 9, 5, 2, 10],  # 5 1 2 and 5 3 4, goal 2
        [3, 4, 8, 5, 1, 8, 1, 2, 8, 5, 3, 9, 5, 4, 10],  # the same graph, goal 4
    ]
)
HAND = Batch(PROMPTS, torch.tensor([[5, 1, 2], [5, 3, 4]]))


def counts(evaluation: Evaluation) -> dict[str, object]:
    """Return the fields of an evaluation as (k, n) pairs."""
    return {
        name: [(c.k, c.n) for c in value] if isinstance(value, list) else (value.k, value.n)
        for name, value in msgspec.structs.asdict(evaluation).items()
        if name != "decoder"
    }


def test_hand_written_answers():
    """One row takes the wrong arm, and its forced reading after it is right. The other jumps to the goal."""
    answer = torch.tensor([[5, 3, 4], [5, 1, 4]])
    forced = torch.tensor([[5, 3, 2], [5, 3, 4]])
    assert counts(score(answer, forced, HAND, SMALL, ALL, decoder="x")) == {
        "exact_match": (0, 2),
        "first_hop": (0, 2),
        "free_position_accuracy": [(2, 2), (0, 2), (1, 2)],
        "forced_position_accuracy": [(2, 2), (1, 2), (2, 2)],
        "right_arm": (0, 2),
        "wrong_arm": (1, 2),
        "wrong_arm_then_goal": (1, 2),
        "broken_walk": (0, 2),
    }


def test_right_answers_without_a_forced_reading():
    evaluation = score(HAND.target, None, HAND, SMALL, ALL, decoder="x")
    assert counts(evaluation) == {
        "exact_match": (2, 2),
        "first_hop": (2, 2),
        "free_position_accuracy": [(2, 2)] * 3,
        "forced_position_accuracy": [(0, 0)] * 3,
        "right_arm": (2, 2),
        "wrong_arm": (0, 2),
        "wrong_arm_then_goal": (0, 2),
        "broken_walk": (0, 2),
    }
    assert evaluation.decoder == "x"


def test_a_forced_reading_that_is_all_wrong_still_counts():
    """Guards against `if forced:` where the counts are zero: wrong is not the same as absent."""
    evaluation = score(HAND.target, torch.full((2, 3), 7), HAND, SMALL, ALL, decoder="x")
    assert counts(evaluation)["forced_position_accuracy"] == [(0, 2)] * 3


def test_unsupervised_positions_count_nothing():
    """Guards against a table that shows chance, or zero, where a method answers nothing."""
    evaluation = score(HAND.target, HAND.target, HAND, SMALL, (1,), decoder="x")
    assert counts(evaluation) == {
        "exact_match": (0, 0),
        "first_hop": (2, 2),
        "free_position_accuracy": [(0, 0), (2, 2), (0, 0)],
        "forced_position_accuracy": [(0, 0), (2, 2), (0, 0)],
        "right_arm": (0, 0),
        "wrong_arm": (0, 0),
        "wrong_arm_then_goal": (0, 0),
        "broken_walk": (0, 0),
    }


def test_first_hop_reports_its_one_position_only(make_objective, trunk, batch, task):
    evaluation = evaluate(trunk, make_objective("first_hop"), task, batch)
    assert [c.n for c in evaluation.free_position_accuracy] == [0, 8, 0, 0]
    assert [c.n for c in evaluation.forced_position_accuracy] == [0, 0, 0, 0]
    assert evaluation.first_hop.n == 8
    assert evaluation.exact_match == evaluation.right_arm == evaluation.broken_walk == Count(0, 0)
    assert evaluation.exact_match.share is None


# ------------------------------------------------------------------ adding up


def test_batch_rows_do_not_change_counts(objective, trunk, task):
    """Guards against averages of averages, and a last slice that is dropped: 9 rows in slices of 1, 4, 9, 100."""
    batch = task.sample(9, generator(3, "data"))
    whole = evaluate(trunk, objective, task, batch, batch_rows=100)
    for rows in (1, 4, 9):
        assert evaluate(trunk, objective, task, batch, batch_rows=rows) == whole
    assert whole.first_hop.n == 9


def test_the_sum_is_the_evaluation_of_both_parts(make_objective, make_cheater, task):
    batch, objective, cheater = task.sample(30, generator(3, "data")), make_objective("next_token"), make_cheater(task)
    first, second = batch.rows(0, 11), batch.rows(11, 30)
    total = evaluate(cheater, objective, task, first) + evaluate(cheater, objective, task, second)
    assert total == evaluate(cheater, objective, task, batch)
    assert 0 < total.exact_match.k < 30


def test_counts_add_and_divide():
    assert Count(1, 4) + Count(2, 3) == Count(3, 7)
    assert Count(1, 4).share == 0.25
    assert Count(0, 4).share == 0.0
    assert Count(0, 0).share is None


def test_nothing_to_evaluate_is_an_error(objective, trunk, task, batch):
    with pytest.raises(ValueError, match="batch is empty"):
        evaluate(trunk, objective, task, batch.rows(0, 0))


def test_json_holds_counts_and_no_rounded_shares(make_objective, trunk, task, batch):
    data = plain(evaluate(trunk, make_objective("next_token"), task, batch))
    assert data["exact_match"] == {"k": data["exact_match"]["k"], "n": 8}
    assert len(data["free_position_accuracy"]) == len(data["forced_position_accuracy"]) == 4
    assert data["decoder"] == "autoregressive"


# ------------------------------------------------------------------ the cheat


@pytest.mark.parametrize("d", [2, 3, 5])
def test_a_cheater_scores_one_over_d(make_objective, make_cheater, d: int):
    """The paper's signature: forced accuracy 1, 1/d, 1 .. 1, exact match 1/d, everything else the wrong arm.

    The cheater takes the arm that is listed first, and every graph occurs with each of its d goals. So its score is exactly 1/d.
    """
    task = PathStar(d, 4, 30)
    batch = task.sample(12, generator(0, "data"), targets_per_graph=d)
    evaluation = evaluate(make_cheater(task), make_objective("next_token"), task, batch)
    n = 12 * d
    assert counts(evaluation) == {
        "exact_match": (12, n),
        "first_hop": (12, n),
        "free_position_accuracy": [(n, n), (12, n), (12, n), (12, n)],
        "forced_position_accuracy": [(n, n), (12, n), (n, n), (n, n)],
        "right_arm": (12, n),
        "wrong_arm": (n - 12, n),
        "wrong_arm_then_goal": (0, n),
        "broken_walk": (0, n),
    }


def test_forced_and_free_are_different_fields(make_objective, make_cheater, task, batch):
    """Guards against defect 7 of the official code: both were written to the same key. Always the wrong arm tells them apart."""
    cheater = make_cheater(task, arm=lambda hop, hops: next(h for h in hops if h != hop))
    evaluation = evaluate(cheater, make_objective("next_token"), task, batch)
    assert [c.share for c in evaluation.free_position_accuracy] == [1, 0, 0, 0]
    assert [c.share for c in evaluation.forced_position_accuracy] == [1, 0, 1, 1]


def test_oracles_score_everything(objective, objective_name, make_oracle, task, batch):
    """Guards against positions reported in the order of training: reversed is scored from start to goal like all others."""
    evaluation = evaluate(make_oracle(objective, batch), objective, task, batch)
    assert evaluation.first_hop == Count(8, 8)
    if objective_name != "first_hop":
        assert evaluation.exact_match == evaluation.right_arm == Count(8, 8)
        assert evaluation.forced_position_accuracy == evaluation.free_position_accuracy == [Count(8, 8)] * 4


def test_forced_readings_are_in_canonical_order(make_objective, make_oracle, batch):
    objective = make_objective("reversed")
    assert torch.equal(forced_answer(make_oracle(objective, batch), objective, batch), batch.target)


def test_forced_readings_force_what_training_forced(make_objective, make_scripted, task, batch):
    """Guards against a reversed method that is forced with forward targets: it reads parents off the edges, from the goal on."""

    def retrace(row: list[int]) -> list[int]:
        prompt = torch.tensor([row[: task.prompt_length]])
        parent = {b: a for a, b in task.edges(prompt)[0].tolist()}
        goal = int(task.goal(prompt))
        wanted = [goal] * task.prompt_length + [parent.get(token, goal) for token in row[task.prompt_length :]]
        return wanted[: len(row)]

    evaluation = evaluate(make_scripted(task, retrace), make_objective("reversed"), task, batch)
    assert evaluation.forced_position_accuracy == evaluation.free_position_accuracy == [Count(8, 8)] * 4


# ------------------------------------------------------------------ examples


def test_examples_are_the_answers_token_by_token(make_objective, make_player, task):
    """A cheater copies the goal, for every goal of three graphs. Its answers, probabilities and outcomes are known exactly."""
    batch = task.sample(3, generator(0, "data"), targets_per_graph=2)
    shown = plain(examples(make_player("cheater", task, copies_goal=True), make_objective("next_token"), task, batch))
    assert sorted(example["outcome"] for example in shown) == ["right_arm"] * 3 + ["wrong_arm_then_goal"] * 3
    for example, prompt, target in zip(shown, batch.prompt, batch.target.tolist(), strict=True):
        assert example["edges"] == task.edges(prompt[None])[0].tolist()
        assert [example["start"], example["goal"]] == [target[0], target[-1]]
        assert example["target"] == list(map(str, target))
        assert example["answer"][-1] == str(example["goal"])
        right = example["answer"] == example["target"]
        assert example["reading"]["p_answer"] == [1, 0.5, 1, 1]
        assert example["reading"]["p_target"] == ([1, 0.5, 1, 1] if right else [1, 0.5, 0, 1])
        assert example["reading"]["entropy"] == pytest.approx([0, 0.6931, 0, 0], abs=1e-4)


def test_examples_of_a_reversed_method_are_in_canonical_order(make_objective, make_scripted, task, batch):
    """The trunk is unsure of the token that it writes first. That is the goal, the last one in canonical order."""

    def script(row: list[int]) -> list[object]:
        return [[0, 1] if t == task.prompt_length - 1 else 2 for t in range(len(row))]

    shown = examples(make_scripted(task, script), make_objective("reversed"), task, batch)
    assert shown[0].reading.entropy == pytest.approx([0, 0, 0, 0.6931], abs=1e-4)
    assert shown[0].answer == ["2", "2", "2", "0"]


def test_examples_of_one_position_have_no_outcome(make_objective, trunk, task, batch):
    example = examples(trunk, make_objective("first_hop"), task, batch)[0]
    assert (example.outcome, example.answered, example.reading) == (None, [1], None)


# ------------------------------------------------------------------ side effects


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_eval_inside_and_restored_outside(make_objective, make_oracle, task, batch, training: bool):
    """Guards against defect 8 of the official code: evaluation leaves train mode behind, or never enters eval mode."""
    objective = make_objective("next_token")
    oracle = make_oracle(objective, batch).train(training)
    evaluate(oracle, objective, task, batch)
    assert len(oracle.modes) == 4 + 1
    assert not any(oracle.modes)
    assert oracle.training is training


def test_evaluation_changes_nothing(objective, trunk, task, batch):
    """Guards against an evaluation that disturbs training: weights, gradients, global randomness."""
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    state = torch.get_rng_state()
    evaluate(trunk, objective, task, batch)
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())
    assert all(p.grad is None for p in trunk.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_given_procedure_is_used_and_recorded(make_objective, trunk, task, batch):
    objective = make_objective("next_token")
    assert evaluate(trunk, objective, task, batch, procedure="autoregressive").decoder == "autoregressive"
    with pytest.raises(ValueError, match="parallel: NextToken cannot decode by it"):
        evaluate(trunk, objective, task, batch, procedure="parallel")
