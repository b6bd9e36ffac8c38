"""Whole kept runs with made-up numbers, for all tests of tables, claims and figures."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from pitfalls.results.kept import Kept, Result, Star
from pitfalls.results.plans import Cell
from pitfalls.runs.counts import Count, Evaluation
from pitfalls.runs.probe_records import ArmFollowing, FirstHopNode, LearningOrder, Moments, Probes, Uncertainty, Verifier
from pitfalls.runs.records import ConfigRecord, CurvePoint, Example, Hardware, Reading, Record, SampleCost, TaskRecord

N = 1000
"""Number of test graphs of every evaluation, unless a position is not answered."""
NOTHING = Count(0, 0)
"""The count of a method that does not answer."""
EXAMPLE = Example(
    edges=[(1, 2), (3, 4), (0, 1), (5, 6), (4, 7), (2, 5), (0, 3), (7, 8)],
    start=0,
    goal=8,
    target=["0", "3", "4", "7", "8"],
    answer=["0", "1", "2", "5", "8"],
    outcome="wrong_arm_then_goal",
    answered=[0, 1, 2, 3, 4],
    reading=Reading([1.0, 0.5, 1.0, 1.0, 1.0], [1.0, 0.5, 1.0, 1.0, 1.0], [0.0, 0.69, 0.0, 0.0, 0.0]),
)


def count(k: int | None, n: int = N) -> Count:
    """Return the count k of n, or that of a method that does not answer if k is None."""
    return NOTHING if k is None else Count(k, n)


def an_evaluation(
    exact: int | None,
    *,
    first_hop: int | None = None,
    others: int | None = N,
    length: int = 5,
    broken: int = 0,
    decoder: str = "",
) -> Evaluation:
    """Return the counts of one evaluation.

    Args:
        exact: right paths, or None for a method that answers no whole paths.
        first_hop: right first hops, by default as many as right paths.
        others: right tokens at every position between first hop and goal. If None, only the first hop is answered.
        length: target positions.
        broken: broken walks.
        decoder: name of the decoding procedure.
    """
    hop = (exact or 0) if first_hop is None else first_hop
    ends = None if others is None else N
    positions = [count(ends), count(hop), *[count(others)] * (length - 3), count(ends)][:length]
    right, wrong, walks = (None,) * 3 if exact is None else (exact, N - exact - broken, broken)
    return Evaluation(
        exact_match=count(exact),
        first_hop=count(hop),
        free_position_accuracy=positions,
        forced_position_accuracy=positions,
        right_arm=count(right),
        wrong_arm=count(wrong),
        broken_walk=count(walks),
        decoder=decoder or "autoregressive",
        wrong_arm_then_goal=count(None if exact is None else 0),
    )


def entropy(*means: float) -> Uncertainty:
    """Return the result of the probe with these mean entropies by position, in nats."""
    return Uncertainty([Moments(100 * mean, 1.0, 100) for mean in means])


def follows(k: int, *, to_its_leaf: int = 0) -> ArmFollowing:
    """Return the result of the probe if k of 1,000 answers follow a wrong arm. The rest of these have the goal as last token."""
    return ArmFollowing(count(k), count(to_its_leaf), count(k - to_its_leaf), count(0), count(N - k))


def hop_nodes(right: int, other_child: int) -> FirstHopNode:
    """Return the result of the probe with counts of the node after the start."""
    return FirstHopNode(count(right), count(other_child), count(N - right - other_child), count(0))


def verifier(**solved: int) -> Verifier:
    """Return the result of the probe with graphs solved within k samples, given as ``k8=991``."""
    return Verifier({name[1:]: count(k) for name, k in solved.items()})


def order(*samples: int | None) -> LearningOrder:
    """Return the result of the probe with the samples after which each position was learned."""
    return LearningOrder(0.9, list(samples))


def a_kept(
    exact: int | None = 500,
    seed: int = 0,
    *,
    objective: str = "next_token",
    settings: Mapping[str, Any] = {},
    architecture: str = "gpt2",
    model: str | None = None,
    graph: Star = (2, 5, 50),
    train_graphs: int | None = None,
    n_steps: int = 100,
    batch_size: int = 100,
    samples: int | None = None,
    precision: str = "fp32",
    train: int | None = None,
    curve: Sequence[int] | None = None,
    probes: Probes = Probes(),  # noqa: B008 - frozen
    examples: Sequence[Example] = (),
    flops: float | None = None,
    runs_dir: str = "runs",
    **evaluation: Any,
) -> Kept:
    """Return a whole kept run, checked against the types of its file.

    Args:
        exact: right paths of 1,000 test graphs, or None for a method that answers no whole paths.
        seed: root seed.
        objective: name of the objective.
        settings: its parameters.
        architecture: of the model.
        model: its name, by default that of the smallest preset of the architecture.
        graph: d, l and N.
        train_graphs: number of fixed training graphs, or None for new graphs in every batch.
        n_steps: steps of the budget.
        batch_size: samples of a step.
        samples: number of samples seen, by default the whole budget.
        precision: of training.
        train: right paths of 1,000 training graphs, if they were evaluated.
        curve: right paths at samples 0, 1,000, 2,000 and so on, by default one evaluation at the end.
        probes: results of the probes.
        examples: example answers.
        flops: of a training sample, or None for a record without its cost.
        runs_dir: folder that the run was made in.
        evaluation: other arguments of `an_evaluation`.
    """
    degree, length, n_values = graph
    seen = n_steps * batch_size if samples is None else samples
    test = an_evaluation(exact, length=length, **evaluation)
    points = [CurvePoint(seen, "test", test)]
    if curve is not None:
        points = [CurvePoint(1000 * i, "test", an_evaluation(k, length=length)) for i, k in enumerate(curve)]
    name = model or {"gpt2": "gpt_tiny"}.get(architecture, f"{architecture}_tiny")
    config = ConfigRecord(
        task=TaskRecord(degree, length, n_values, train_graphs, test_graphs=N, targets_per_graph=1),
        model={"name": name, "architecture": architecture, "init_from": None},
        objective={"name": objective, **settings},
        training={"n_steps": n_steps, "batch_size": batch_size, "precision": precision},
        seed=seed,
        runs_dir=runs_dir,
    )
    tag = "".join(f"-{value}" for value in settings.values())
    run = f"{objective}{tag}-{name}-{degree}-{length}-{n_values}-{n_steps}-s{seed}"
    record = Record(
        run=re.sub(r"[^A-Za-z0-9_.,=-]", "_", run),
        seed=seed,
        samples_seen=seen,
        stopped_early=False,
        n_parameters=7,
        wall_s=1800.0,
        evaluation={"test": test} | ({} if train is None else {"train": an_evaluation(train, length=length)}),
        config=config,
        commit="c0ffee0123",
        dirty=False,
        finished="2026-11-22",
        steps=n_steps,
        cpu_s=1800.0,
        supervised_positions=list(range(length)),
        probes=probes,
        examples=list(examples),
        versions={"python": "3.11"},
        hardware=Hardware("a CPU", 2, "Linux"),
        n_objective_parameters=1234,
        horizon=length,
        cost=UNSET if flops is None else SampleCost(flops, flops / 1e9 * 31),
    )
    return whole(Kept(record, tuple(points)))


def whole(kept: Kept) -> Kept:
    """Return a kept run after a round trip through its file, because structs are checked only when they are read."""
    return msgspec.json.decode(msgspec.json.encode(kept), type=Kept)


def a_result(
    exact: int | None = 500,
    seed: int = 0,
    *,
    label: str | None = None,
    cell: str | None = None,
    expect: Mapping[str, tuple[float, float]] = {},
    overrides: Sequence[str] = (),
    **run: Any,
) -> Result:
    """Return a run of a set.

    Args:
        exact: as `a_kept`.
        seed: as `a_kept`.
        label: label of its cell, by default the objective in words.
        cell: name of its cell, by default made from its other arguments.
        expect: bounds for its seeds.
        overrides: overrides of its cell. Those of the objective's parameters are in its config as well.
        run: other arguments of `a_kept`.
    """
    own = dict(text.removeprefix("objective.").split("=") for text in overrides if text.startswith("objective."))
    kept = a_kept(exact, seed, settings=own, **run)
    name = cell or "-".join((label or kept.objective, *map(str, kept.star), str(kept.budget), *overrides)).replace(" ", "_")
    words = label or kept.objective.replace("_", " ")
    return Result(kept.record, kept.curve, Cell(name, "objectives", tuple(overrides), words, dict(expect), (0, 1, 2)))
