"""A linear probe for repetition: do the hidden states show that the text repeats? A probe of the position alone is the control.

There are two texts of equal length per prompt: a greedy one, which may loop, and a top-p sample, which rarely does. So positions
occur with and without repetition. A token counts as repeating from the second copy of a loop on.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from transformers import PreTrainedModel

from pitfalls.language.generation import RULES
from pitfalls.language.lab_parts import Ending, GreedyText, LayerAreas, RepetitionSign, Step
from pitfalls.language.lab_settings import LabPlan
from pitfalls.language.repetition import find_loops
from pitfalls.language.writing import write

TOP_P = next(rule for rule in RULES if rule.name == "top-p 0.9")
RIDGE = 1e-2
"""Factor of the squared weights in the loss of the probe, which is added to the mean cross-entropy."""
MAX_ITERATIONS, GRADIENT = 1000, 1e-7
"""Limits of the fit: iterations, and largest component of the gradient. scikit-learn's 1e-4 moves areas by up to 3e-4."""


def steps(
    lm: PreTrainedModel,
    plan: LabPlan,
    prompts: Sequence[Sequence[int]],
    greedy: Callable[[], list[GreedyText]],
    end: Ending,
) -> Iterator[Step[Any]]:
    """Yield the part with the probes' areas."""

    def measure() -> list[LayerAreas]:
        sampled = write(lm, prompts, plan.settings.loop_tokens, TOP_P, end, plan.settings.seed)
        pairs = [[text.tokens, other] for text, other in zip(greedy(), sampled, strict=True)]
        return by_layer(lm, prompts, pairs, plan.settings.n_folds)

    yield Step(RepetitionSign(), measure)


def by_layer(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], pairs: Sequence[Sequence[list[int]]], n_folds: int
) -> list[LayerAreas]:
    """Return the areas under the ROC curve: first of the probe that knows only the position, then of one probe per layer.

    Args:
        lm: the model.
        prompts: P prompts.
        pairs: the two texts after each prompt.
        n_folds: number of groups of prompts. Each group is held out once, and its probe is fitted to the others.
    """
    labels = [torch.cat([torch.tensor(repeating(text)) for text in texts]) for texts in pairs]
    positions = [torch.cat([_position(len(text)) for text in texts]) for texts in pairs]
    layers, states = _states(lm, prompts, pairs)
    features: list[tuple[int | None, list[Tensor]]] = [(None, positions)]
    features += [(layer, [of_prompt[i] for of_prompt in states]) for i, layer in enumerate(layers)]
    return [LayerAreas(layer, held_out(x, labels, n_folds)) for layer, x in features]


def repeating(text: Sequence[int]) -> list[bool]:
    """Return, for each token, whether it belongs to a second or later copy of a loop."""
    flags = [False] * len(text)
    for loop in find_loops(text):
        flags[loop.start + loop.period : loop.end] = [True] * (loop.end - loop.start - loop.period)
    return flags


def _position(n: int) -> Tensor:
    """Return Float[n,3]: each place from 1 on, its square and its logarithm."""
    place = torch.arange(1.0, n + 1)
    return torch.stack([place, place.square(), place.log()], 1)


@torch.no_grad()
def _states(
    lm: PreTrainedModel, prompts: Sequence[Sequence[int]], pairs: Sequence[Sequence[list[int]]]
) -> tuple[list[int], list[list[Tensor]]]:
    """Return five layers, and by prompt and layer the Float[T,D] states at the tokens of both texts."""
    found = []
    for prompt, texts in zip(prompts, pairs, strict=True):
        tokens = torch.tensor([[*prompt, *text] for text in texts], device=lm.device)
        hidden = lm.base_model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states
        last = len(hidden) - 1
        layers = sorted({0, last // 4, last // 2, 3 * last // 4, last})
        found.append([hidden[layer][:, len(prompt) :].float().flatten(0, 1).cpu() for layer in layers])
    return layers, found


def held_out(features: Sequence[Tensor], labels: Sequence[Tensor], n_folds: int) -> list[float | None]:
    """Return by prompt the area under the ROC curve of a probe that is fitted to the prompts of the other folds.

    Args:
        features: Float[T,D] of each prompt.
        labels: Bool[T] of each prompt.
        n_folds: number of groups of prompts. Prompt i is in group i mod n_folds.

    Returns:
        One number per prompt. It is None if all or none of the tokens repeat, in the prompt or in the other folds.
    """
    n = len(features)
    found: list[float | None] = [None] * n
    for fold in range(min(n_folds, n)):
        others = [i for i in range(n) if i % n_folds != fold]
        x, y = torch.cat([features[i] for i in others]), torch.cat([labels[i] for i in others])
        if not _has_both(y):
            continue
        probe = fit_probe(x, y)
        for i in range(fold, n, n_folds):
            if _has_both(labels[i]):
                found[i] = float(roc_auc_score(labels[i].numpy(), probe.decision_function(features[i].double().numpy())))
    return found


def _has_both(labels: Tensor) -> bool:
    """Return whether some tokens repeat and some do not."""
    return bool(labels.any()) and not bool(labels.all())


def fit_probe(x: Tensor, y: Tensor) -> Any:
    """Return a scikit-learn pipeline: a logistic regression on standardised features, fitted.

    The loss is the mean cross-entropy + RIDGE * |w|^2, without a penalty on the intercept. scikit-learn minimises C * the sum
    of the cross-entropies + |w|^2 / 2, which is the same for C = 1 / (2 * n * RIDGE).

    Args:
        x: Float[n,D] features.
        y: Bool[n] labels.
    """
    regression = LogisticRegression(C=1 / (2 * len(y) * RIDGE), tol=GRADIENT, max_iter=MAX_ITERATIONS)
    return make_pipeline(StandardScaler(), regression).fit(x.double().numpy(), y.numpy())
