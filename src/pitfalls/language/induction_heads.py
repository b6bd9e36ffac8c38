"""Induction heads and loops: the effect of silencing the strongest induction heads, compared with as many random heads.

An induction head (Olsson et al. 2022, arXiv 2209.11895) attends from a token to the one after its previous occurrence. Heads are
silenced by setting their output to zero, through transformers' attention interface. This works for any model that uses it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pitfalls.language.lab_parts import (
    Choice,
    Ending,
    GreedyText,
    HeadReading,
    HeadReadings,
    HeadScores,
    HeadTexts,
    Step,
    formed_loops,
    just_formed,
    unit_of,
)
from pitfalls.language.lab_settings import LabPlan
from pitfalls.language.reading import read
from pitfalls.language.writing import GREEDY, write
from pitfalls.models.cpu.attention import attend, attention_weights
from pitfalls.models.cpu.keywords import ATTENTION_INERT, refuse_keywords, refuse_short_window
from pitfalls.models.hf_internals import attention_modules, attention_set_to, is_stateful, register_attention
from pitfalls.seeding import generator

NAME = "observed"
"""Name under which `observed_attention` is registered in transformers."""
N_TRIED, TOLERANCE = 8, 1e-3
"""Number of tokens on which the observed model is compared with the original one, and the largest difference allowed.

The difference is in standard deviations of the logits.
"""
N_ROWS, N_REPEATED = 4, 50
"""Number of random sequences on which heads are scored, and of tokens in each. Each sequence is written twice."""
N_TEXTS, N_READ = 6, 256
"""Number of prose texts on which the general damage is measured, and of tokens of each."""
Head = tuple[int, int]
"""Layer and head."""


@dataclass
class Ablation:
    """The measurements of this file on one model. The heads are scored only once."""

    lm: PreTrainedModel
    plan: LabPlan
    prompts: Sequence[Sequence[int]]
    prose: Sequence[Sequence[int]]
    """Tokens of each prose text."""
    beginning: Sequence[int]
    """Tokens before every text of this model."""
    greedy: Callable[[], list[GreedyText]]
    end: Ending

    @cached_property
    def scores(self) -> list[list[float]]:
        """The induction score of every head (`induction_scores`)."""
        return induction_scores(self.lm, self.beginning, self.plan.settings.seed)

    def chosen(self, choice: Choice, n: int, draw: int) -> list[Head]:
        """Return the n strongest heads, or n of the others at random."""
        heads = [(layer, head) for layer, row in enumerate(self.scores) for head in range(len(row))]
        ranked = sorted(heads, key=lambda place: -self.scores[place[0]][place[1]])
        if choice == "strongest":
            return ranked[:n]
        others = ranked[n:]
        order = torch.randperm(len(others), generator=generator(self.plan.settings.seed, "probe", 1000 * n + draw)).tolist()
        return [others[i] for i in order[:n]]

    def read(self, choice: Choice, n: int, draw: int) -> HeadReading:
        """Read formed loops and prose while heads are silenced."""
        heads = self.chosen(choice, n, draw)
        with silenced(self.lm, heads):
            return HeadReading(heads, loop_probability(self.lm, self.greedy()), prose_loss(self.lm, self.prose))

    def write(self, choice: Choice, n: int, draw: int) -> list[list[int]]:
        """Write greedy texts from scratch while heads are silenced."""
        with silenced(self.lm, self.chosen(choice, n, draw)):
            return write(self.lm, self.prompts, self.plan.settings.loop_tokens, GREEDY, self.end)

    def steps(self) -> Iterator[Step[Any]]:
        """Yield the scores, loops and prose for each set of silenced heads, and texts from scratch for sets of middle size."""
        settings, n_heads = self.plan.settings, sum(map(len, heads_of_layers(self.lm)))
        sizes = [n for n in settings.silenced if 2 * n <= n_heads]
        sets: list[tuple[Choice, int, int]] = [("none", 0, 0), *(("strongest", n, 0) for n in sizes)]
        sets += [("random", n, draw) for n in sizes for draw in range(settings.random_draws)]
        yield Step(HeadScores(), lambda: self.scores)
        for choice, n, draw in sets:
            yield Step(HeadReadings(choice, n, draw), partial(self.read, choice, n, draw))
        for choice, n, draw in sets:
            if n in sizes[len(sizes) // 2 :][:1]:
                yield Step(HeadTexts(choice, n, draw), partial(self.write, choice, n, draw))


@torch.no_grad()
def has_heads(lm: PreTrainedModel) -> bool:
    """Return whether every attention layer uses transformers' interface, and our attention gives the same result as the original.

    It is False for models with attention code of their own, and for options that our attention lacks (soft caps, sinks).
    """
    modules = attention_modules(lm)
    if is_stateful(lm) or not heads_of_layers(lm):
        return False
    tokens = torch.arange(2, 2 + N_TRIED, device=lm.device)[None]
    seen: list[Tensor] = []
    before = lm(input_ids=tokens, use_cache=False).logits
    try:
        with observed(lm), _with(modules, "looks", [seen.append] * len(modules)):
            ours = lm(input_ids=tokens, use_cache=False).logits
    except NotImplementedError:
        return False
    return len(seen) == len(modules) and bool((ours - before).abs().max() <= TOLERANCE * before.std())


def observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Return the output of softmax attention.

    If the module has `looks`, that function gets the attention weights. If it has `head_scales`, heads are multiplied by them.

    Raises:
        NotImplementedError: the model asks for dropout, a cap of the scores, sinks or a shorter window.
    """
    refuse_keywords("observed attention", others | {"dropout": dropout or None}, (*ATTENTION_INERT, "is_causal"))
    refuse_short_window("observed attention", sliding_window, key.shape[2])
    weights = attention_weights(query, key, attention_mask, scaling)
    if (looks := getattr(module, "looks", None)) is not None:
        looks(weights)
    output = attend(weights, value)
    scales = getattr(module, "head_scales", None)
    return output if scales is None else output * scales[:, None].to(output.dtype), None


@contextlib.contextmanager
def observed(lm: PreTrainedModel) -> Iterator[None]:
    """Within this context, the model attends by `observed_attention`."""
    register_attention(NAME, observed_attention)
    with attention_set_to(lm, NAME):
        yield


def heads_of_layers(lm: PreTrainedModel) -> list[range]:
    """Return the range of heads of every attention layer."""
    n = getattr(lm.config.get_text_config(), "num_attention_heads", 0)
    return [range(n) for _ in attention_modules(lm)] if n else []


@torch.no_grad()
def induction_scores(lm: PreTrainedModel, beginning: Sequence[int], seed: int) -> list[list[float]]:
    """Return the induction score by layer and head.

    It is the mean attention, in a second copy of random tokens, to the token after the previous occurrence.
    """
    size = lm.get_input_embeddings().weight.shape[0]
    once = torch.randint(size, (N_ROWS, N_REPEATED), generator=generator(seed, "probe", 1))
    found: list[list[float]] = []
    here = torch.arange(N_REPEATED, 2 * N_REPEATED) + len(beginning)
    start = torch.tensor(beginning, dtype=torch.long).expand(N_ROWS, -1)

    def note(weights: Tensor) -> None:
        found.append(weights[:, :, here, here - N_REPEATED + 1].mean((0, 2)).tolist())

    modules = attention_modules(lm)
    with observed(lm), _with(modules, "looks", [note] * len(modules)):
        lm(input_ids=torch.cat([start, once, once], 1).to(lm.device), use_cache=False)
    return found


@contextlib.contextmanager
def silenced(lm: PreTrainedModel, heads: Sequence[Head]) -> Iterator[None]:
    """Within this context, the output of these heads is zero."""
    modules = attention_modules(lm)
    scales = [torch.ones(len(row), device=lm.device) for row in heads_of_layers(lm)]
    for layer, head in heads:
        scales[layer][head] = 0.0
    with observed(lm), _with(modules, "head_scales", scales):
        yield


@contextlib.contextmanager
def _with(modules: Sequence[nn.Module], name: str, values: Sequence[Any]) -> Iterator[None]:
    """Within this context, each module has its value as the attribute ``name``."""
    for module, value in zip(modules, values, strict=True):
        object.__setattr__(module, name, value)
    try:
        yield
    finally:
        for module in modules:
            object.__delattr__(module, name)


def loop_probability(lm: PreTrainedModel, texts: Sequence[GreedyText]) -> list[float]:
    """Return the mean probability of the tokens of the fourth copy, for each formed loop."""
    formed = formed_loops(texts)
    whole = [[*just_formed(text, loop), *unit_of(text, loop)] for text, loop in formed]
    return [reading.since(-loop.period).p.mean().item() for reading, (_, loop) in zip(read(lm, whole), formed, strict=True)]


def prose_loss(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[float]:
    """Return the mean cross-entropy of each text in nats, without its first token."""
    return [-reading.since(1).log_p.mean().item() for reading in read(lm, [text[:N_READ] for text in texts[:N_TEXTS]])]
