"""Induction heads and loops: the heads that look at what followed the previous copy are silenced, and as many others.

An induction head (Olsson et al. 2022, arXiv 2209.11895) attends from a token to the one after its previous occurrence. Heads are
silenced by setting their output to zero, through transformers' attention interface, so any model that uses it can be read.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from pitfalls.language.loops import GREEDY, formed_loops, just_formed, unit, write
from pitfalls.language.reading import read
from pitfalls.language.settings import LabPlan
from pitfalls.models.cpu.attention import attend, attention_weights
from pitfalls.seeding import generator

NAME = "observed"
N_TRIED, TOLERANCE = 8, 1e-3
"""Tokens on which the model is compared with itself, and how far it may be off, in standard deviations of its logits."""
N_ROWS, N_REPEATED = 4, 50
"""Random sequences that stand there twice, on which heads are scored."""
N_TEXTS, N_READ = 6, 256
"""Prose on which the general damage is measured: texts, and tokens of each."""
Texts = list[dict[str, Any]]
Head = tuple[int, int]
"""Layer and head."""


@dataclass
class Ablation:
    """What the parts of this file share; the heads are scored once."""

    lm: PreTrainedModel
    plan: LabPlan
    prompts: Sequence[Sequence[int]]
    texts: Sequence[Sequence[int]]
    """Prose."""
    beginning: Sequence[int]
    """What stands before every text of this model."""
    greedy: Callable[[], Texts]
    end: str

    @cached_property
    def scores(self) -> list[list[float]]:
        """See `induction_scores`."""
        return induction_scores(self.lm, self.beginning, self.plan.settings.seed)

    def chosen(self, kind: str, n: int, draw: int) -> list[Head]:
        """The n strongest heads, or n of the others."""
        heads = [(layer, head) for layer, row in enumerate(self.scores) for head in range(len(row))]
        ranked = sorted(heads, key=lambda place: -self.scores[place[0]][place[1]])
        if kind == "strongest":
            return ranked[:n]
        others = ranked[n:]
        order = torch.randperm(len(others), generator=generator(self.plan.settings.seed, "probe", 1000 * n + draw)).tolist()
        return [others[i] for i in order[:n]]

    def read(self, kind: str, n: int, draw: int) -> dict[str, Any]:
        """Without these heads: formed loops and prose."""
        heads = self.chosen(kind, n, draw)
        with silenced(self.lm, heads):
            return {"heads": heads, "loops": loop_probability(self.lm, self.greedy()), "prose": prose_loss(self.lm, self.texts)}

    def write(self, kind: str, n: int, draw: int) -> list[list[int]]:
        """Without these heads: greedy texts from scratch."""
        with silenced(self.lm, self.chosen(kind, n, draw)):
            return write(self.lm, self.prompts, self.plan.settings.loop_tokens, GREEDY, self.end)

    def steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Scores; formed loops and prose per set of silenced heads; for sets of middle size, texts from scratch."""
        settings, n_heads = self.plan.settings, sum(map(len, heads_of_layers(self.lm)))
        sizes = [n for n in settings.silenced if 2 * n <= n_heads]
        sets = [("none", 0, 0), *(("strongest", n, 0) for n in sizes)]
        sets += [("random", n, draw) for n in sizes for draw in range(settings.random_draws)]
        yield "heads/scores", lambda: self.scores
        for kind, n, draw in sets:
            yield f"heads/read/{kind}/{n}/{draw}", partial(self.read, kind, n, draw)
        for kind, n, draw in sets:
            if n in sizes[len(sizes) // 2 :][:1]:
                yield f"heads/write/{kind}/{n}/{draw}", partial(self.write, kind, n, draw)


@torch.no_grad()
def has_heads(lm: PreTrainedModel) -> bool:
    """Whether every attention layer goes through transformers' interface, and gives the same there as without us.

    Models with attention code of their own, and with options that ours does not have (soft caps, sinks), are left out.
    """
    modules = attention_modules(lm)
    if lm._is_stateful or not heads_of_layers(lm):
        return False
    tokens = torch.arange(2, 2 + N_TRIED, device=lm.device)[None]
    seen: list[Tensor] = []
    before = lm(input_ids=tokens, use_cache=False).logits
    with observed(lm), _with(modules, "looks", [seen.append] * len(modules)):
        ours = lm(input_ids=tokens, use_cache=False).logits
    return len(seen) == len(modules) and bool((ours - before).abs().max() <= TOLERANCE * before.std())


def observed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: object,
) -> tuple[Tensor, None]:
    """Softmax attention that tells `looks`, if the module has it, where each head looks, and scales heads by `head_scales`."""
    weights = attention_weights(query, key, attention_mask, scaling)
    if (looks := getattr(module, "looks", None)) is not None:
        looks(weights)
    output = attend(weights, value)
    scales = getattr(module, "head_scales", None)
    return output if scales is None else output * scales[:, None].to(output.dtype), None


@contextlib.contextmanager
def observed(lm: PreTrainedModel) -> Iterator[None]:
    """Within, the model attends by `observed_attention`."""
    AttentionInterface.register(NAME, observed_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    before = lm.config._attn_implementation
    lm.set_attn_implementation(NAME)
    try:
        yield
    finally:
        lm.set_attn_implementation(before)


def attention_modules(lm: PreTrainedModel) -> list[nn.Module]:
    """Its attention layers, in order: those that transformers numbers by layer and that project queries."""
    kinds = ("q_proj", "c_attn", "qkv_proj", "query_key_value", "Wqkv")
    return [m for m in lm.modules() if hasattr(m, "layer_idx") and any(hasattr(m, kind) for kind in kinds)]


def heads_of_layers(lm: PreTrainedModel) -> list[range]:
    """The heads of every attention layer."""
    n = getattr(lm.config.get_text_config(), "num_attention_heads", 0)
    return [range(n) for _ in attention_modules(lm)] if n else []


@torch.no_grad()
def induction_scores(lm: PreTrainedModel, beginning: Sequence[int], seed: int) -> list[list[float]]:
    """By layer and head: mean attention, from the second copy of random tokens, to the one after the previous occurrence."""
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
    """Within, the output of these heads is zero."""
    modules = attention_modules(lm)
    scales = [torch.ones(len(row), device=lm.device) for row in heads_of_layers(lm)]
    for layer, head in heads:
        scales[layer][head] = 0.0
    with observed(lm), _with(modules, "head_scales", scales):
        yield


@contextlib.contextmanager
def _with(modules: Sequence[nn.Module], name: str, values: Sequence[Any]) -> Iterator[None]:
    for module, value in zip(modules, values, strict=True):
        object.__setattr__(module, name, value)
    try:
        yield
    finally:
        for module in modules:
            object.__delattr__(module, name)


def loop_probability(lm: PreTrainedModel, texts: Texts) -> list[float]:
    """By formed loop: mean probability of the tokens of its fourth copy."""
    formed = formed_loops(texts)
    whole = [[*just_formed(text, loop), *unit(text, loop)] for text, loop in formed]
    return [reading.since(-loop.period).p.mean().item() for reading, (_, loop) in zip(read(lm, whole), formed, strict=True)]


def prose_loss(lm: PreTrainedModel, texts: Sequence[Sequence[int]]) -> list[float]:
    """By text: mean cross-entropy in nats, of all but the first token."""
    return [-reading.since(1).log_p.mean().item() for reading in read(lm, [text[:N_READ] for text in texts[:N_TEXTS]])]
