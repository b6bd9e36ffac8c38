"""Is there a sign in the hidden states that the text repeats itself? A linear probe, beside one that knows only the position.

Two texts of one length per prompt: a greedy one, which may loop, and a top-p sample, which seldom does, so that positions occur
with and without repetition. A token counts as repeating from the second copy of a loop on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from pitfalls.language.generation import RULES
from pitfalls.language.loops import write
from pitfalls.language.repetition import find_loops
from pitfalls.language.settings import LabPlan

TOP_P = next(rule for rule in RULES if rule.name == "top-p 0.9")
RIDGE = 1e-2
"""On the weights of standardised features, beside the mean cross-entropy."""
N_ITERATIONS = 60


def steps(
    lm: PreTrainedModel, plan: LabPlan, prompts: Sequence[Sequence[int]], greedy: Callable[[], Any], end: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """One part."""

    def measure() -> list[dict[str, Any]]:
        sampled = write(lm, prompts, plan.settings.loop_tokens, TOP_P, end, plan.settings.seed)
        pairs = [[list(text["tokens"]), other] for text, other in zip(greedy(), sampled, strict=True)]
        return by_layer(lm, prompts, pairs, plan.settings.n_folds)

    yield "sign", measure


def by_layer(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], pairs: Sequence[Sequence[list[int]]], n_folds: int
) -> list[dict[str, Any]]:
    """Areas under the ROC curve, by layer and prompt, of a probe that was fitted to other prompts; layer None: position only.

    Args:
        lm: the model.
        prompts: P prompts.
        pairs: texts after each.
        n_folds: groups of prompts; each is held out once.

    Returns:
        ``layer`` (0: embeddings), ``auc`` by prompt (None where all or no tokens repeat).
    """
    labels = [torch.cat([torch.tensor(repeating(text)) for text in texts]) for texts in pairs]
    positions = [torch.cat([_position(len(text)) for text in texts]) for texts in pairs]
    layers, states = _states(lm, prompts, pairs)
    features: list[tuple[int | None, list[Tensor]]] = [(None, positions)]
    features += [(layer, [of_prompt[i] for of_prompt in states]) for i, layer in enumerate(layers)]
    return [{"layer": layer, "auc": held_out(x, labels, n_folds)} for layer, x in features]


def repeating(text: Sequence[int]) -> list[bool]:
    """Whether each token belongs to a second or later copy of a loop."""
    flags = [False] * len(text)
    for loop in find_loops(text):
        flags[loop.start + loop.period : loop.end] = [True] * (loop.end - loop.start - loop.period)
    return flags


def _position(n: int) -> Tensor:
    place = torch.arange(1.0, n + 1)
    return torch.stack([place, place.square(), place.log()], 1)


@torch.no_grad()
def _states(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], pairs: Sequence[Sequence[list[int]]]
) -> tuple[list[int], list[list[Tensor]]]:
    """Five layers, and by prompt and layer the states of both texts' tokens, Float[T,D]."""
    found = []
    for prompt, texts in zip(prompts, pairs, strict=True):
        tokens = torch.tensor([[*prompt, *text] for text in texts], device=lm.device)
        hidden = lm.base_model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states
        last = len(hidden) - 1
        layers = sorted({0, last // 4, last // 2, 3 * last // 4, last})
        found.append([hidden[layer][:, len(prompt) :].float().flatten(0, 1).cpu() for layer in layers])
    return layers, found


def held_out(features: Sequence[Tensor], labels: Sequence[Tensor], n_folds: int) -> list[float | None]:
    """By prompt: the area under the ROC curve of a logistic regression on the prompts of the other folds."""
    n = len(features)
    found: list[float | None] = [None] * n
    for fold in range(min(n_folds, n)):
        held = [i for i in range(n) if i % n_folds == fold]
        others = [i for i in range(n) if i % n_folds != fold]
        x, y = torch.cat([features[i] for i in others]), torch.cat([labels[i] for i in others])
        if y.all() or not y.any():
            continue
        score = logistic(x, y)
        for i in held:
            found[i] = roc_area(score(features[i]), labels[i])
    return found


def logistic(x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """A ridge logistic regression on standardised features; returns Float[N,D] -> Float[N] log-odds.

    Args:
        x: Float[N,D].
        y: Bool[N].
    """
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    weights = torch.zeros(x.shape[1] + 1, requires_grad=True)
    inputs, wanted = (x - mean) / std, y.float()
    optimizer = torch.optim.LBFGS([weights], max_iter=N_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = inputs @ weights[1:] + weights[0]
        loss = F.binary_cross_entropy_with_logits(logits, wanted) + RIDGE * weights[1:].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = weights.detach()
    return lambda new: (new - mean) / std @ fitted[1:] + fitted[0]


def roc_area(scores: Tensor, labels: Tensor) -> float | None:
    """How often a token that repeats scores above one that does not (ties count half); None where one kind is missing."""
    yes, no = scores[labels], scores[~labels]
    if not len(yes) or not len(no):
        return None
    above = (yes[:, None] > no[None]).float() + 0.5 * (yes[:, None] == no[None]).float()
    return above.mean().item()
