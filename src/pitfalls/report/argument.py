"""What a finished run shows, in one sentence: it has no lookups, it guesses the first hop, or it solves the graph."""

from pitfalls.results.kept import LOOKUPS, Kept

NEAR = 0.05
"""Largest distance from 1/d at which a first hop counts as a guess. It is the margin of most claims (conf/claims.yaml)."""


def sentence(run: Kept) -> str:
    """Return what a run shows, with its numbers. An objective without a forced reading is judged by its answers alone."""
    test, others, d = run.record.test, run.other_positions, run.degree
    hop = test.first_hop.share or 0.0
    guesses = abs(hop - run.chance) <= NEAR
    if not test.exact_match.n:
        told = f"a guess among {d} arms" if guesses else f"1 in {d} would be a guess"
        return f"trained on the first hop alone, it is right {hop:.2f} of the time: {told}"
    found = "" if others is None else f"every other token is right given the path so far ({others:.2f}), "
    if run.solved:
        return f"solved: {run.exact_match:.3f} of the paths on new graphs are right"
    if others is not None and others < LOOKUPS:
        return f"it does not follow edges yet: some token is right {others:.2f} of the time, so it proves nothing"
    if guesses:
        return f"{_by_heart(run)}{found}and the right arm is taken {hop:.2f} of the time, 1 in {d}: the first hop is a guess"
    return f"{_by_heart(run)}{found}and the first hop is right {hop:.2f} of the time (a guess: {run.chance:.2f})"


def _by_heart(run: Kept) -> str:
    train = run.record.evaluation.get("train")
    if train is None or not train.exact_match.n:
        return ""
    return f"{train.exact_match.share:.2f} of its training graphs are fitted; on new ones "
