"""Where the time of a training step goes: its parts, each timed by itself in the shapes that a step of next token gives them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GPT2LMHeadModel

from pitfalls.benchmark.lines import Measure, per_second
from pitfalls.cell import Cell, make_run_splits
from pitfalls.models import last_block
from pitfalls.models.trunk import causal_mask
from pitfalls.objectives.base import cross_entropy
from pitfalls.training.trainer import make_optimizer

N_REPEATS = 4


@dataclass(frozen=True)
class Part:
    """One part, and how often a step runs it."""

    name: str
    run: Callable[[], object]
    times: int = 1


def parts(cell: Cell) -> list[Part]:
    """The parts of a step of next token on a GPT-2, one target per graph.

    Raises:
        TypeError: another architecture.
    """
    lm = cell.trunk.lm
    if not isinstance(lm, GPT2LMHeadModel):
        raise TypeError(f"{type(lm).__name__}: only a GPT-2 is taken apart")
    stream = make_run_splits(cell).train
    device = torch.device(cell.config.training.device)
    batch = stream.batch(0).to(device)
    first = batch.prompt.shape[1] - 1
    tokens = torch.cat([batch.prompt, batch.target[:, :-1]], 1)
    states = cell.trunk.embed(tokens).detach()
    mask = causal_mask(tokens.shape[1], tokens.shape[1], states.dtype, states.device)
    positions = torch.arange(tokens.shape[1], device=device)
    block, n_full = lm.transformer.h[0], len(lm.transformer.h) - 1
    optimizer = make_optimizer([cell.trunk], cell.config.training)
    for parameter in cell.trunk.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    gradients = {parameter: parameter.grad for parameter in cell.trunk.parameters()}

    def embed() -> Tensor:
        return cell.trunk.embed(tokens) + lm.transformer.wpe(positions)

    def loss(x: Tensor) -> Tensor:
        return cross_entropy(cell.trunk.logits(cell.trunk.norm(x)), batch.target)

    def update() -> None:
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(cell.trunk.parameters(), 1e9)
        optimizer.step()

    return [
        Part("data", lambda: stream.batch(0)),
        Part("embeddings", _both_ways(embed)),
        Part("attention", _both_ways(lambda x: block.attn(x, attention_mask=mask)[0], states), n_full),
        Part("mlp", _both_ways(block.mlp, states), n_full),
        Part("norms", _both_ways(lambda x: block.ln_2(block.ln_1(x)), states), n_full),
        Part("last_block", _both_ways(lambda x: last_block.run_from(block, x, None, mask, first), states)),
        Part("head_and_loss", _both_ways(loss, states[:, first:])),
        Part("clip_and_optimizer", update),
    ]


def _both_ways(forward: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """Forward, and backward into inputs and weights."""
    leaves = [x.clone().requires_grad_() for x in inputs]

    def run() -> None:
        output = forward(*leaves)
        output.backward(torch.ones_like(output))
        for leaf in leaves:
            leaf.grad = None

    return run


def seconds_per_step(cell: Cell, part: Part) -> Measure:
    """Seconds that the part takes of a step; the first repetition is left out."""

    def measured() -> list[float]:
        seconds: list[float] = []
        for _ in range(N_REPEATS):
            cell.trunk.zero_grad(set_to_none=True)
            seconds.append(part.times / per_second(1, part.run))
        return seconds[1:]

    return measured


def shares(seconds: Sequence[tuple[str, float]], step_s: float) -> dict[str, float]:
    """Shares of a whole step; ``rest`` is Python, logging and what the parts by themselves do not show."""
    known = {name: value / step_s for name, value in seconds}
    return known | {"rest": 1 - sum(known.values())}
