"""The behaviour of next-token models that are right 1 time in d, over all kept runs: ``results/cheat``."""

import math
from collections.abc import Sequence

from pitfalls.claims.measures import MEASURES
from pitfalls.results.formats import Table
from pitfalls.results.groups import by_seed, seeds_of_configs, training_text
from pitfalls.results.kept import Kept
from pitfalls.results.statistics import blind_guess
from pitfalls.runs.counts import FIRST_HOP

N_ANSWERS = 8
HEADER = (
    "graph, N",
    "model",
    "training data",
    "samples, precision",
    "exact match",
    "other positions",
    "follows a wrong arm to its leaf",
    "follows it, then says the goal",
    "first-hop entropy (ln d)",
    "largest other entropy",
    "wrong at the first hop",
    "best of 8 (blind guess)",
)
SHOWN = (
    "graph, N",
    "model",
    "samples, precision",
    "exact match",
    "other positions",
    "follows a wrong arm to its leaf",
    "first-hop entropy (ln d)",
    "best of 8 (blind guess)",
)
NOTE = (
    "Each seed's value; the CSV has four columns more. Other positions: the lowest accuracy of a position besides the first hop, "
    "given the gold tokens before it. Below 0.95 the lookups are not learned, and the rest of the row says nothing about the "
    "cheat. Follows a wrong arm: put onto a wrong arm, the model walks on along it. It ends at that arm's leaf, or it says the "
    "goal of the prompt last. Teacher forcing cannot tell reading the last token off the edges from copying it; the paper, as "
    "far as it is known, counts the former alone. A dash: the path is too short to tell. Entropies are in nats. Wrong at the "
    "first hop: the share of the wrong answers. Best of 8: graphs solved by one of eight samples, beside blind guesses of an arm."
)


def cheat(kept: Sequence[Kept]) -> Table:
    """Return the table: one row per next-token config, with the values of all seeds."""
    groups = [runs for runs in seeds_of_configs(kept) if runs[0].objective == "next_token"]
    groups.sort(key=lambda runs: (*runs[0].star, runs[0].model, runs[0].record.samples_seen))
    return Table("The Clever-Hans cheat", HEADER, tuple(_row(runs) for runs in groups), NOTE, SHOWN)


def _row(runs: Sequence[Kept]) -> tuple[str, ...]:
    first = runs[0]

    def values(name: str) -> list[float | None]:
        return [None if (found := MEASURES[name](run)) is None else found.value for run in runs]

    hops = [None if run.entropies is None else run.entropies[FIRST_HOP] for run in runs]
    arms = [run.record.probes.arm_following for run in runs]
    return (
        first.graph_text,
        first.model,
        first.data_text,
        training_text(runs),
        by_seed(values("exact_match")),
        by_seed(values("other_positions")),
        by_seed([None if arm is None else arm.to_its_leaf.share for arm in arms]),
        by_seed([None if arm is None else arm.to_the_goal.share for arm in arms]),
        f"{by_seed(hops, 2)} ({math.log(first.degree):.2f})",
        by_seed(values("other_entropy"), 2),
        by_seed(values("wrong_at_first_hop")),
        f"{by_seed([_best(run) for run in runs])} ({blind_guess(first.degree, N_ANSWERS):.3f})",
    )


def _best(run: Kept) -> float | None:
    """Return the share of graphs with a right answer among eight samples."""
    probe = run.record.probes.verifier
    count = None if probe is None else probe.solved.get(str(N_ANSWERS))
    return None if count is None else count.share
