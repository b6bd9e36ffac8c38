"""Arm following: if the first hop is forced onto a wrong arm, does the model walk on along that arm?

    forced   start, u        u: a uniformly random child of the start that is not on the way to the goal
    read     the remaining l-2 tokens, by the method's own inference, greedily

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
from pitfalls.runs.probe_records import ArmFollowing
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.path_star import PathStar


def measure(probed: ProbedModel) -> ArmFollowing | None:
    """Return the counts of answers by where they go after the forced first hop.

    ``to_its_leaf``: the answer follows the forced arm to its end. ``to_the_goal``: the same, but the last token is the goal.
    Both count as ``follows``. ``back``: the answer returns to the right path. ``elsewhere``: anything else.

    The result is None if a first hop cannot be forced, because answers are written from the goal on or all at once. It is
    also None if no wrong arm exists, and for l < 4, where the only remaining token is the goal of the prompt.
    """
    task = probed.task
    if not probed.can_be_forced or task.degree < 2 or task.path_length < 4:
        return None
    draws, answers, arms = probed.draws(0), [], []
    for rows in probed.slices():
        arm = random_wrong_arm(task, rows, draws)
        with torch.no_grad():
            procedure = PROCEDURES[probed.objective.decoders[0]]
            answer = procedure.answer(probed.trunk, probed.objective, rows.prompt, task.target_length, prefix=arm[:, :2])
        answers.append(answer)
        arms.append(arm)
    answer, arm = torch.cat(answers), torch.cat(arms)
    target = probed.graphs.target
    inner = (answer[:, 2:-1] == arm[:, 2:-1]).all(1)
    to_leaf = inner & (answer[:, -1] == arm[:, -1])
    to_goal = inner & (answer[:, -1] == target[:, -1])
    back = (answer[:, 2:] == target[:, 2:]).all(1)
    kinds = {"to_its_leaf": to_leaf, "to_the_goal": to_goal, "back": back, "elsewhere": ~(to_leaf | to_goal | back)}
    return ArmFollowing(follows=count(to_leaf | to_goal), **{name: count(hits) for name, hits in kinds.items()})


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
