"""Every probe has to distinguish three scripted players exactly: a cheater, a solver and a uniform guesser."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch

from pitfalls.evaluation.score import evaluate
from pitfalls.objectives.next_token import NextToken
from pitfalls.probes import REASONS, REGISTRY, ProbedModel, absent_probes, run_probes
from pitfalls.probes.arm_following import random_wrong_arm
from pitfalls.probes.learning_order import _since
from pitfalls.runs.counts import Evaluation
from pitfalls.runs.records import CurvePoint
from pitfalls.seeding import generator
from pitfalls.tasks.path_star import PathStar

TASK = PathStar(3, 4, 15)
N = 12 * 3
"""Number of graphs. Each occurs with its three goals, so a first hop that ignores the goal is right in exactly a third."""
ALL, NONE = {"k": N, "n": N}, {"k": 0, "n": N}
THIRD, REST = {"k": 12, "n": N}, {"k": 24, "n": N}


def point(samples: int, evaluation: Evaluation) -> CurvePoint:
    return CurvePoint(samples, "test", evaluation)


@pytest.fixture
def examine(make_objective, make_player) -> Callable[..., ProbedModel]:
    """A function that makes a scripted player, with an objective by name and its evaluations."""

    def make(kind: str, name: str = "next_token", task: PathStar = TASK, **changes: Any) -> ProbedModel:
        objective = make_objective(name, task=task)
        player = make_player(kind, task, **changes)
        graphs = task.sample(N // task.degree, generator(0, "test"), targets_per_graph=task.degree)
        final = evaluate(player, objective, task, graphs)
        return ProbedModel(player.eval(), objective, task, graphs, 0, {"test": final}, [point(0, final), point(100, final)])

    return make


def probe(name: str, probed: ProbedModel) -> Any:
    """Return the result of a probe as dicts and lists."""
    return msgspec.to_builtins(REGISTRY[name](probed))


# ------------------------------------------------------------------ each probe


def test_arm_following(examine):
    """Guards against a forced hop that may be right, and a cheat that is only recognised with one kind of last token."""
    nowhere = {"to_its_leaf": NONE, "to_the_goal": NONE, "back": NONE, "elsewhere": NONE}
    assert probe("arm_following", examine("cheater")) == nowhere | {"follows": ALL, "to_its_leaf": ALL}
    copying = probe("arm_following", examine("cheater", copies_goal=True))
    assert copying == nowhere | {"follows": ALL, "to_the_goal": ALL}
    assert probe("arm_following", examine("solver")) == nowhere | {"follows": NONE, "back": ALL}
    assert probe("arm_following", examine("guesser")) == nowhere | {"follows": NONE, "elsewhere": ALL}


class GoalThenPath(NextToken):
    """The goal is written twice, before the path and at its end."""

    def view(self, batch):
        return batch._replace(target=torch.cat([batch.target[:, -1:], batch.target], 1))

    def unview(self, tokens):
        return tokens[:, 1:]

    def written_length(self, target_length):
        return target_length + 1


class GoalMoved(NextToken):
    """The goal is written before the rest of the path, and not again."""

    def view(self, batch):
        return batch._replace(target=batch.target.roll(1, 1))

    def unview(self, tokens):
        return tokens.roll(-1, 1)


class HopLate(NextToken):
    """The first hop is written after the node that follows it."""

    def view(self, batch):
        return batch._replace(target=batch.target[:, [0, 2, 1, 3]])

    def unview(self, tokens):
        return tokens[:, [0, 2, 1, 3]]


def goal_first_player(make_scripted: Callable[..., Any], plans: bool) -> Any:
    """Return a trunk that writes the goal, and then the right path, or the start and what the edge list says."""

    def script(row: list[int]) -> list[int]:
        prompt = torch.tensor([row[: TASK.prompt_length]])
        edges, start, goal = TASK.edges(prompt)[0].tolist(), int(TASK.start(prompt)), int(TASK.goal(prompt))
        child, parent = dict(edges), {b: a for a, b in edges}
        path = [goal]
        while path[0] != start:
            path.insert(0, parent[path[0]])
        after = [start] * (TASK.prompt_length - 1) + [goal]
        if plans:
            return (after + path + [0] * len(row))[: len(row)]
        return (after + [start] + [child.get(token, start) for token in row[TASK.prompt_length + 1 :]])[: len(row)]

    return make_scripted(TASK, script)


@pytest.mark.parametrize(("kind", "ends"), [(GoalThenPath, "to_its_leaf"), (GoalMoved, "to_the_goal")])
def test_an_arm_is_forced_on_methods_that_write_the_goal_first(examine, make_scripted, kind, ends):
    """Guards against a probe that refuses every other order of writing, though the prompt states the goal."""
    results = []
    for plans in (False, True):
        probed = examine("solver")
        probed.objective.__class__ = kind
        probed = ProbedModel(**{**vars(probed), "trunk": goal_first_player(make_scripted, plans)})
        results.append(probe("arm_following", probed))
    nowhere = {"to_its_leaf": NONE, "to_the_goal": NONE, "back": NONE, "elsewhere": NONE}
    assert results == [nowhere | {"follows": ALL, ends: ALL}, nowhere | {"follows": NONE, "back": ALL}]


def test_wrong_arms_are_arms_wrong_and_uniform():
    rows = PathStar(4, 3, 12).sample(3000, generator(1, "test"))
    task = PathStar(4, 3, 12)
    arm = random_wrong_arm(task, rows, generator(2, "probe"))
    assert task.verify(rows.prompt, arm).unique().tolist() == [1], "each is a legal walk to another leaf"
    edge = task.edges(rows.prompt)
    hops = edge[:, :, 1][edge[:, :, 0] == task.start(rows.prompt)[:, None]].view(-1, 4)
    place = (hops == arm[:, 1:2]).int().argmax(1)
    assert (place.bincount(minlength=4) - 750).abs().max() < 5 * math.sqrt(3000 * 3 / 16), "no place in the list is preferred"
    again = random_wrong_arm(task, rows, generator(2, "probe"))
    assert torch.equal(arm, again)


def test_first_hop(examine):
    """A cheater's greedy choice is the child with the smallest value, whatever the goal. Exactly a third is right."""
    nothing = {"other_node": NONE, "elsewhere": NONE}
    assert probe("first_hop", examine("cheater")) == {"right": THIRD, "other_child": REST, **nothing}
    assert probe("first_hop", examine("solver")) == {"right": ALL, "other_child": NONE, **nothing}
    guess = probe("first_hop", examine("guesser"))  # the first token of all, node value 0
    assert sum(kind["k"] for kind in guess.values()) == N
    assert guess["elsewhere"]["k"] > 0 < guess["other_node"]["k"]


def test_first_hop_in_isolation(examine):
    """A method that answers that token alone gets the same numbers."""
    assert probe("first_hop", examine("cheater", "first_hop")) == probe("first_hop", examine("cheater"))


def test_forced_free(examine):
    led, lost = {"k": 12, "n": 12}, {"k": 0, "n": 24}
    cheater = probe("forced_free", examine("cheater"))
    assert cheater["forced"] == [ALL, THIRD, ALL, ALL]
    assert cheater["after_right"] == [led] * 4
    assert cheater["after_wrong"] == [{"k": 24, "n": 24}, lost, lost, lost]
    copying = probe("forced_free", examine("cheater", copies_goal=True))
    assert copying["after_wrong"] == [{"k": 24, "n": 24}, lost, lost, {"k": 24, "n": 24}]
    solver = probe("forced_free", examine("solver"))
    assert solver == {"forced": [ALL] * 4, "after_right": [ALL] * 4, "after_wrong": [{"k": 0, "n": 0}] * 4}
    guesser = probe("forced_free", examine("guesser"))
    assert max(c["k"] for c in guesser["forced"]) < N / 2


def test_uncertainty(examine):
    """The cheater has ln d at the first hop and 0 elsewhere, the solver 0 everywhere, and the guesser ln V."""

    def means(kind: str) -> list[float]:
        return [c["sum"] / c["n"] for c in probe("uncertainty", examine(kind))["entropy"]]

    assert means("cheater") == pytest.approx([0, math.log(3), 0, 0], abs=1e-6)
    assert means("solver") == pytest.approx([0, 0, 0, 0], abs=1e-6)
    assert means("guesser") == pytest.approx([math.log(TASK.vocabulary.size)] * 4, rel=1e-6)
    first_hop = probe("uncertainty", examine("cheater"))["entropy"][1]
    assert first_hop["n"] == N
    assert first_hop["sum_sq"] == pytest.approx(N * math.log(3) ** 2, rel=1e-5)


def test_snowball(examine):
    assert probe("snowball", examine("cheater")) == {
        "predicted": pytest.approx(1 / 3),
        "measured": THIRD,
        "given_right_first_hop": {"k": 12, "n": 12},
    }
    assert probe("snowball", examine("solver")) == {"predicted": 1, "measured": ALL, "given_right_first_hop": ALL}
    guesser = probe("snowball", examine("guesser"))
    assert guesser["predicted"] < 0.01
    assert guesser["measured"] == NONE


def test_other_decodings(examine):
    """All rows are answered by each procedure, except by procedures whose answers are the method's own."""

    def blockwise(kind: str, n_drafted: int) -> Any:
        probed = examine(kind, "multi_token")
        probed.objective.draft_logits = lambda trunk, hidden: trunk.logits(hidden.normed[:, -1:].repeat(1, n_drafted, 1))
        return probe("other_decodings", probed)

    assert blockwise("solver", 1) == {"blockwise": ALL}
    assert blockwise("cheater", 1) == {"blockwise": THIRD}
    assert blockwise("solver", 2) == {"blockwise": NONE}, "every token twice"
    assert probe("other_decodings", examine("solver")) is None


def test_verifier(examine):
    """The cheater gains what guesses of an arm gain: the expected counts of 108 rows, within four standard deviations."""
    assert probe("verifier", examine("solver")) == {"solved": dict.fromkeys(("1", "2", "4", "8"), ALL)}
    assert probe("verifier", examine("guesser")) == {"solved": dict.fromkeys(("1", "2", "4", "8"), NONE)}
    cheaters = [examine("cheater")]
    cheaters += [ProbedModel(**{**vars(cheaters[0]), "seed": seed}) for seed in range(1, 3)]
    solved = [probe("verifier", probed)["solved"] for probed in cheaters]
    for k in (1, 2, 4, 8):
        p, n = 1 - (2 / 3) ** k, 3 * N
        hits = sum(one[str(k)]["k"] for one in solved)
        assert abs(hits - n * p) < 4 * math.sqrt(n * p * (1 - p))


def test_memorisation(examine):
    probed = examine("cheater")
    assert probe("memorisation", probed) is None, "training never repeats a graph"
    fixed = ProbedModel(**{**vars(probed), "evaluations": {**probed.evaluations, "train": examine("solver").evaluations["test"]}})
    assert probe("memorisation", fixed) == {"train": ALL, "test": THIRD}


def test_learning_order(examine, make_evaluation):
    cheater, solver, guesser = (probe("learning_order", examine(kind)) for kind in ("cheater", "solver", "guesser"))
    assert cheater["samples"] == [0, None, 0, 0]
    assert solver["samples"] == [0, 0, 0, 0]
    assert guesser["samples"] == [None] * 4


def test_learned_means_from_then_on():
    """Guards against a lucky evaluation early on, and a position that was learned and lost again."""
    assert _since([0, 10, 20, 30], [False, True, False, True]) == 30
    assert _since([0, 10, 20], [True, True, False]) is None
    assert _since([0, 10, 20], [False, True, True]) == 10


def test_learning_order_reads_the_test_graphs(examine):
    probed = examine("solver")
    train = [msgspec.structs.replace(point, split="train") for point in examine("guesser").curve]
    assert probe("learning_order", ProbedModel(**{**vars(probed), "curve": [*train, *probed.curve]}))["samples"] == [0] * 4
    assert probe("learning_order", ProbedModel(**{**vars(probed), "curve": train})) is None


# ------------------------------------------------------------------ where they apply


def test_what_applies_to_which_method(examine):
    """A probe that makes no sense for a method is None, and not a number that means something else."""

    def missing(name: str, task: PathStar = TASK) -> set[str]:
        found = run_probes(examine("solver", name, task))
        return {probe for probe in REGISTRY if getattr(found, probe) is None}

    alone = {"memorisation", "other_decodings"}
    assert missing("next_token") == alone
    assert missing("teacherless") == alone | {"arm_following"}
    assert missing("masked_diffusion") == {"memorisation"}, "it goes on from what it is given, and has further decodings"
    assert missing("reversed") == alone | {"arm_following"}, "no first hop can be forced on what is written last"
    assert missing("first_hop") == set(REGISTRY) - {"first_hop"}
    assert missing("next_token", PathStar(3, 3, 15)) == alone | {"arm_following"}, "what remains is the goal"
    assert missing("next_token", PathStar(1, 4, 15)) == alone | {"arm_following"}, "there is no wrong arm"


def test_the_reason_of_an_absent_probe_is_the_true_one(examine):
    """Guards against "does not apply to this method" where the graph or the training is the reason."""

    def reason(probed: ProbedModel, name: str = "arm_following") -> str:
        found, reasons = run_probes(probed), absent_probes(probed)
        assert set(reasons) == {name for name in REGISTRY if getattr(found, name) is None}
        return reasons[name]

    assert set(REASONS) == set(REGISTRY) - {"first_hop"}
    assert reason(examine("solver", task=PathStar(3, 3, 15))) == (
        "on G(3,3) only the goal is left to write after the first hop, and the prompt states it"
    )
    assert reason(examine("solver", task=PathStar(1, 4, 15))) == "G(1,4) has no wrong arm"
    assert "own decoding (parallel) takes no beginning" in reason(examine("solver", "teacherless"))
    late = examine("solver")
    late.objective.__class__ = HopLate
    for probed in (examine("solver", "reversed"), late):
        assert reason(probed) == "the method writes nodes of the path before the first hop, so none can be forced on it"
    assert "not whole paths" in reason(examine("solver", "first_hop"))
    assert "not whole paths" in reason(examine("solver", "first_hop"), "verifier")
    assert reason(examine("solver", "first_hop"), "uncertainty") == "the method has no predictions under teacher forcing"
    assert reason(examine("solver"), "memorisation") == "training never repeats a graph (task.train_graphs=null)"
    assert "(autoregressive)" in reason(examine("solver"), "other_decodings")
    unwatched = ProbedModel(**{**vars(examine("solver")), "curve": []})
    assert reason(unwatched, "learning_order") == "there are no evaluations from its training (metrics.jsonl)"


def test_reversed_readings_are_in_canonical_order(examine, make_scripted):
    """Guards against positions in the order of training: a trunk unsure of the token that it writes first, the goal."""

    def script(row: list[int]) -> list[Any]:
        return [list(range(10)) if t == TASK.prompt_length - 1 else 0 for t in range(len(row))]

    probed = ProbedModel(**{**vars(examine("solver", "reversed")), "trunk": make_scripted(TASK, script)})
    means = [c["sum"] / c["n"] for c in probe("uncertainty", probed)["entropy"]]
    assert means == pytest.approx([0, 0, 0, math.log(10)], abs=1e-6)


def test_probes_do_not_depend_on_each_other_or_on_what_ran_before(examine):
    first, second = run_probes(examine("cheater")), run_probes(examine("cheater"))
    assert first == second
    assert probe("verifier", examine("cheater")) == msgspec.to_builtins(first.verifier)


def test_the_mode_is_restored(examine):
    probed = examine("solver")
    probed.trunk.train()
    run_probes(probed)
    assert probed.trunk.training
