"""Arm following: if the first hop is forced onto a wrong arm, does the model walk on along that arm?

    forced   start, u        u: a uniformly random child of the start that is not on the way to the goal
    read     the remaining l-2 tokens, by the method's own inference, greedily

A method may write its tokens in another order, or more of them (`Objective.view`). Then everything is forced that it writes up
to the first hop. That must be what the prompt states anyway, start and goal: no other node of the path may stand before it. A
goal that is written there is forced as it is, so an answer can then follow the arm to the goal only.

A Clever Hans reads each token off the one before it, so it walks along the forced arm. It can read the last token off the one
before it, or copy it from the prompt, which states the goal. Teacher forcing cannot distinguish the two, so both count as the
cheat. A model that plans returns to the right path, or does something else.

Source: Bachmann & Nagarajan (2024), section 4.5, from memory. The measure is ours.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from pitfalls.evaluation.decoding import PROCEDURES
from pitfalls.probes.probed_model import ProbedModel, count
from pitfalls.runs.counts import FIRST_HOP
from pitfalls.runs.probe_records import ArmFollowing
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar


def measure(probed: ProbedModel) -> ArmFollowing | None:
    """Return the counts of answers by where they go after the forced first hop.

    ``to_its_leaf``: the answer follows the forced arm to its end. ``to_the_goal``: the same, but the last token is the goal.
    Both count as ``follows``. ``back``: the answer returns to the right path. ``elsewhere``: anything else.

    The result is None if a first hop cannot be forced, because answers are written from the goal on or all at once. It is
    also None if no wrong arm exists, and for l < 4, where the only remaining token is the goal of the prompt. See `absent`.
    """
    if absent(probed) is not None:
        return None
    task, objective = probed.task, probed.objective
    procedure, n_forced = PROCEDURES[objective.decoders[0]], _first_hop_place(probed) + 1
    n_written = objective.written_length(task.target_length)
    draws, answers, arms = probed.draws(0), [], []
    for rows in probed.slices():
        arm = random_wrong_arm(task, rows, draws)
        forced = objective.view(Batch(rows.prompt, torch.cat([arm[:, :2], rows.target[:, 2:]], 1))).target[:, :n_forced]
        with torch.no_grad():
            answer = procedure.answer(probed.trunk, objective, rows.prompt, n_written, prefix=forced)
        answers.append(objective.unview(answer))
        arms.append(arm)
    answer, arm = torch.cat(answers), torch.cat(arms)
    target = probed.graphs.target
    inner = (answer[:, 2:-1] == arm[:, 2:-1]).all(1)
    to_leaf = inner & (answer[:, -1] == arm[:, -1])
    to_goal = inner & (answer[:, -1] == target[:, -1])
    back = (answer[:, 2:] == target[:, 2:]).all(1)
    kinds = {"to_its_leaf": to_leaf, "to_the_goal": to_goal, "back": back, "elsewhere": ~(to_leaf | to_goal | back)}
    return ArmFollowing(follows=count(to_leaf | to_goal), **{name: count(hits) for name, hits in kinds.items()})


def absent(probed: ProbedModel) -> str | None:
    """Return the reason why the question makes no sense, or None if it does."""
    task, decoder = probed.task, probed.objective.decoders[0]
    if task.degree < 2:
        return f"{task} has no wrong arm"
    if task.path_length < 4:
        return f"on {task} only the goal is left to write after the first hop, and the prompt states it"
    if probed.is_partial is not None:
        return probed.is_partial
    if not PROCEDURES[decoder].takes_prefix:
        return f"no first hop can be forced: the method's own decoding ({decoder}) takes no beginning of an answer"
    if _states_the_path_before(probed):
        return "the method writes nodes of the path before the first hop, so none can be forced on it"
    return None


def _first_hop_place(probed: ProbedModel) -> int:
    """Return the place of the first hop among the tokens that the method writes."""
    return probed.objective.places(probed.task.target_length)[FIRST_HOP]


def _states_the_path_before(probed: ProbedModel) -> bool:
    """Return whether a token up to the first hop changes with a node of the path besides start, first hop and goal."""
    rows, n_forced = probed.graphs.rows(0, 1), _first_hop_place(probed) + 1
    other = rows.target.clone()
    other[:, FIRST_HOP + 1 : -1] += 1
    before, after = (probed.objective.view(Batch(rows.prompt, target)).target[:, :n_forced] for target in (rows.target, other))
    return not torch.equal(before, after)


def random_wrong_arm(task: PathStar, rows: Batch, draws: torch.Generator) -> Int[Tensor, "B L"]:
    """Return the start and all nodes of a wrong arm for each row, drawn uniformly from the arms without the goal."""
    edge, start = task.edges(rows.prompt), task.start(rows.prompt)
    first = (edge[:, :, 0] == start[:, None]) & (edge[:, :, 1] != rows.target[:, 1:2])
    place = torch.multinomial(first.float(), 1, generator=draws)
    arm = [start[:, None], edge[:, :, 1].gather(1, place)]
    for _ in range(task.path_length - 2):
        place = (edge[:, :, 0] == arm[-1]).int().argmax(1, keepdim=True)
        arm.append(edge[:, :, 1].gather(1, place))
    return torch.cat(arm, 1)
