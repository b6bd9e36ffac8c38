"""One check of a model of transformers before it is used: does `Trunk` compute what the model itself computes?

Transformers has hundreds of architectures. Some change the logits after the unembedding, ignore a mask, or keep a state that no
mask hides. A forward pass of the model itself tells, for every architecture alike.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Conv1D, PreTrainedModel

from pitfalls.models.hf_internals import attention_set_to, can_choose_attention, quiet
from pitfalls.models.trunk import Trunk
from pitfalls.schemas import ConfigError

TOLERANCE = {torch.float32: 2e-3, torch.float64: 2e-3}
"""Largest difference as a share of the standard deviation of the logits, by dtype of the weights."""
COARSE = 0.1
"""The same for bf16 and fp16, which round to three digits."""
LARGE_LOGITS = 30.0
"""Standard deviation of the logits at which the unembedding is compared: a cap or a scale shows only at large logits."""
N_CACHED = 3
"""Number of tokens that are read one by one into the cache."""


@torch.no_grad()
def check_trunk_reads(
    trunk: Trunk, n_positions: int, vocabulary_size: int, as_typed: str, needs: tuple[str, ...], *, untrained: bool = False
) -> None:
    """Check that a trunk computes what its model computes, with and without a cache, and that masks hide tokens.

    Args:
        trunk: the trunk of a model. Its mode and weights stay as they are.
        n_positions: T, the length of the longest sequence of the task.
        vocabulary_size: number of token ids of the task.
        as_typed: the key that chooses the model, with its value, for the message.
        needs: what the objective sets itself: "masks", "positions" or both.
        untrained: whether to compare with larger weights, because a leak changes little while the weights are small.

    Raises:
        ConfigError: something differs, or the model cannot be run. The message says what.
    """
    training, generator = trunk.training, torch.Generator().manual_seed(0)
    tokens = torch.randint(vocabulary_size, (1, n_positions), generator=generator).to(trunk.lm.device)
    name = type(trunk.lm).__name__
    trunk.eval()
    try:
        large = _large_weights(trunk) if untrained else nullcontext()
        with large, nullcontext() if tokens.is_cuda else quiet():  # quiet about kernels for GPUs
            wrong = _wrong(trunk, tokens, vocabulary_size, needs)
    except Exception as error:  # the code of an architecture that nobody tried may raise anything
        said = next((line for line in str(error).splitlines() if line.strip()), "no message")
        raise ConfigError(
            f"{as_typed}: a {name} does not run as a trunk ({type(error).__name__}: {said[:200]}); take another model"
        ) from error
    finally:
        trunk.train(training)
    if wrong is not None:
        raise ConfigError(f"{as_typed}: a {name} cannot be a trunk: {wrong}; take another model")


def _wrong(trunk: Trunk, tokens: Tensor, vocabulary_size: int, needs: tuple[str, ...]) -> str | None:
    """Return what is wrong first, or None. A model whose fast attention lacks something keeps the slow reference attention."""
    try:
        return _first_difference(trunk, tokens, vocabulary_size, needs)
    except NotImplementedError:
        if not can_choose_attention(trunk.lm):
            raise
        trunk.lm.set_attn_implementation("eager")
        return _first_difference(trunk, tokens, vocabulary_size, needs)


def _first_difference(trunk: Trunk, tokens: Tensor, vocabulary_size: int, needs: tuple[str, ...]) -> str | None:
    return next((what for what in _differences(trunk, tokens, vocabulary_size, needs) if what is not None), None)


def _differences(trunk: Trunk, tokens: Tensor, vocabulary_size: int, needs: tuple[str, ...]) -> Iterator[str | None]:
    """Yield what is wrong, or None, for each comparison."""
    lm, whole = trunk.lm, trunk(tokens)
    logits = trunk.logits(whole.normed)
    with _eager(lm):
        ids = tokens if trunk.token_ids is None else trunk.token_ids[tokens]
        own = _in_task_order(trunk, lm(input_ids=ids, use_cache=False).logits)
    yield _compare(logits, own, "its logits are not the model's own")
    large = whole.normed * (LARGE_LOGITS / logits.float().std().clamp(min=1e-6)).to(whole.normed.dtype)
    with _base_replaced(lm, large):  # what the blocks read does not matter, so it is short
        own = _in_task_order(trunk, lm(input_ids=ids[:, :N_CACHED], use_cache=False).logits)
    yield _compare(trunk.logits(large), own, "the model changes its logits after the unembedding in a way that is not supported")
    yield _compare(_cached(trunk, tokens), logits[:, -N_CACHED:], "decoding with a cache has other logits than without")
    if not trunk.recurrent:
        yield _leak(trunk, tokens, vocabulary_size)
    if "masks" in needs:
        yield _blind(trunk, tokens, vocabulary_size)
    if "positions" in needs:
        yield _order(trunk, tokens)


def _cached(trunk: Trunk, tokens: Tensor) -> Tensor:
    """Return the logits of the last tokens, read one by one after the others."""
    first = tokens.shape[1] - N_CACHED
    cache = trunk.new_cache(tokens.shape[1])
    trunk(tokens[:, :first], cache=cache)
    states = [trunk(tokens[:, i : i + 1], cache=cache).normed for i in range(first, tokens.shape[1])]
    return trunk.logits(torch.cat(states, 1))


def _leak(trunk: Trunk, tokens: Tensor, vocabulary_size: int) -> str | None:
    """Return whether a token that a mask hides from all later ones changes what they predict."""
    n, hidden = tokens.shape[1], tokens.shape[1] // 2
    mask = torch.ones(1, n, n, dtype=torch.bool, device=tokens.device).tril()
    mask[:, hidden + 1 :, hidden] = False
    other = tokens.clone()
    other[:, hidden] = (tokens[:, hidden] + 1) % vocabulary_size
    one, two = trunk.logits(trunk(torch.cat([tokens, other]), mask=mask).normed[:, hidden + 1 :])
    return _compare(one, two, "a token that a mask hides changes what later tokens predict")


def _blind(trunk: Trunk, tokens: Tensor, vocabulary_size: int) -> str | None:
    """Return whether the first token does not see the last one under a mask that hides nothing."""
    n, other = tokens.shape[1], tokens.clone()
    other[:, -1] = (tokens[:, -1] + 1) % vocabulary_size
    mask = torch.ones(1, n, n, dtype=torch.bool, device=tokens.device)
    one, two = trunk.logits(trunk(torch.cat([tokens, other]), mask=mask).normed[:, 0])
    return "its attention is causal whatever mask the objective sets" if torch.equal(one, two) else None


def _order(trunk: Trunk, tokens: Tensor) -> str | None:
    """Return whether two neighbouring tokens can change places together with their positions."""
    n = tokens.shape[1]
    order = torch.arange(n, device=tokens.device)
    order[1], order[2] = 2, 1
    mask = torch.ones(1, n, n, dtype=torch.bool, device=tokens.device).tril()
    whole = trunk(tokens).normed[:, -1:]
    moved = trunk(tokens[:, order], positions=order[None], mask=mask[:, order][:, :, order]).normed[:, -1:]
    return _compare(trunk.logits(moved), trunk.logits(whole), "it does not take the positions that the objective sets")


def _compare(a: Tensor, b: Tensor, what: str) -> str | None:
    """Return ``what`` with the size of the difference, if two logits differ or are not finite."""
    scale = b.float().std().clamp(min=1e-6)
    difference = ((a.float() - b.float()).abs().max() / scale).nan_to_num(torch.inf).item()
    if difference <= TOLERANCE.get(a.dtype, COARSE):
        return None
    return f"{what} (largest difference {difference:.2g} of their standard deviation)"


def _in_task_order(trunk: Trunk, logits: Tensor) -> Tensor:
    return logits if trunk.token_ids is None else logits[..., trunk.token_ids]


@contextmanager
def _large_weights(trunk: Trunk) -> Iterator[None]:
    """Within the context, linear layers and embeddings have weights of mean square 4 / width, as after much training."""
    modules = [module for module in trunk.lm.modules() if isinstance(module, nn.Linear | nn.Embedding | Conv1D)]
    weights = list({id(module.weight): module.weight for module in modules}.values())
    before = [weight.clone() for weight in weights]
    for weight in weights:
        weight.mul_(2 / math.sqrt(trunk.width) / weight.square().mean().sqrt().clamp(min=1e-6))
    try:
        yield
    finally:
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)


@contextmanager
def _eager(lm: PreTrainedModel) -> Iterator[None]:
    """Within the context, the model uses transformers' slow reference attention, if its attention can be chosen."""
    if not can_choose_attention(lm):
        yield
        return
    with attention_set_to(lm, "eager"):
        yield


@contextmanager
def _base_replaced(lm: PreTrainedModel, states: Tensor) -> Iterator[None]:
    """Within the context, a call of the model unembeds the given states in place of those of its last block."""

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (states, *output[1:])
        output.last_hidden_state = states
        return output

    hook = lm.base_model.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()
