"""Checks whether a causal language model is run correctly. Each check computes the same numbers in two ways.

Only the public interface of transformers is used (`forward`, `generate`), so every model that can be loaded can be checked:
attention, recurrent states, any positions. The tokens are random, because a correct model is correct on any tokens.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, PreTrainedModel

from pitfalls.language.generation import end_tokens, n_positions, without_own_settings
from pitfalls.models.hf_internals import is_stateful
from pitfalls.schemas import ConfigError, printable

N_ROWS, N_TOKENS, N_NEW = 3, 24, 6
"""Number of rows of a batch, of tokens of a row, and of tokens that are decoded after it."""
TOLERANCE = 1e-3
"""Tolerance as a share of the standard deviation of the logits. Rounding in fp32 is far smaller, a wrong input far larger."""
N_OTHER = 5
"""Number of tokens of padding, and of a changed future."""


@dataclass(frozen=True)
class Finding:
    """The finding of one check."""

    check: str
    what: str
    """The two results that are compared."""
    difference: float
    """The largest difference, as a share of the standard deviation of the logits unless ``what`` names another unit."""
    tolerance: float = TOLERANCE
    note: str = ""
    """Reason why the check does not apply, or a description of the difference."""

    @property
    def healthy(self) -> bool:
        """Whether the difference is within the tolerance. NaN never is."""
        return self.difference <= self.tolerance

    def line(self) -> str:
        """Return the finding as a line of text."""
        note = f" ({self.note})" if self.note else ""
        return f"{'ok' if self.healthy else 'BROKEN':<7}{self.check:<15}{self.difference:<10.2g}{self.what}{note}"


def examine(lm: PreTrainedModel, generator: torch.Generator) -> list[Finding]:
    """Return the findings of all checks, in their order.

    Args:
        lm: a causal language model in fp32, in the state in which it will be used. It is neither cast nor put into eval mode.
        generator: draws the tokens.

    Raises:
        ConfigError: the model has too few positions.
    """
    longest = n_positions(lm)
    n_tokens = min(N_TOKENS, (longest or sys.maxsize) - N_NEW - N_OTHER)
    if n_tokens <= N_OTHER:
        needed = 2 * N_OTHER + N_NEW + 1
        raise ConfigError(f"{type(lm).__name__} has {longest} positions, and the checks need {needed}; take a model with more")
    special = {lm.generation_config.pad_token_id, *end_tokens(lm)}
    ordinary = torch.tensor([i for i in range(lm.get_input_embeddings().weight.shape[0]) if i not in special])
    drawn = torch.randint(len(ordinary), (N_ROWS, n_tokens), generator=generator)
    tokens = ordinary[drawn].to(lm.device)
    with torch.no_grad():
        scale = lm(input_ids=tokens).logits.float().std().item()
        return [_finding(check, lm, tokens, scale) for check in CHECKS]


def _finding(check: "Check", lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Return the finding of one check. A model that raises an error fails this check, and the others still run."""
    try:
        return check(lm, tokens, scale)
    except Exception as error:  # a model's own code may raise anything
        reason = printable(str(error), 200) or type(error).__name__
        return Finding(check.__name__.replace("_", " "), "it stopped with an error", torch.inf, note=reason)


def determinism(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that two equal calls give the same logits (no dropout is on), and greedy decoding the same tokens."""
    difference = _difference(lm(input_ids=tokens).logits, lm(input_ids=tokens).logits, scale)
    first, second = (_generate(lm, tokens).sequences for _ in range(2))
    note = "" if torch.equal(first, second) else "greedy decoding gave two different answers"
    return Finding("determinism", "the same call twice", difference if not note else torch.inf, 0.0, note)


def causality(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that logits up to a position do not depend on the tokens after it."""
    known = tokens.shape[1] - N_OTHER
    other = torch.cat([tokens[:, :known], tokens[:, known:].roll(1, 0)], 1)
    one, two = (lm(input_ids=x).logits[:, :known] for x in (tokens, other))
    return Finding("causality", f"logits of {known} tokens before two different futures", _difference(one, two, scale))


def prefix(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that the logits of a prefix are those of the whole sequence at the same positions."""
    whole = lm(input_ids=tokens).logits
    lengths = (1, tokens.shape[1] // 2, tokens.shape[1] - 1)
    difference = max(_difference(lm(input_ids=tokens[:, :n]).logits, whole[:, :n], scale) for n in lengths)
    return Finding("prefix", f"logits of the first {', '.join(map(str, lengths))} tokens, alone and in the whole", difference)


def label_shift(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that the model's own loss is the cross-entropy of every token given those before it, in nats."""
    output = lm(input_ids=tokens, labels=tokens)
    losses = {shift: _cross_entropy(output.logits, tokens, shift) for shift in (1, 0, 2)}
    nearest = min(losses, key=lambda shift: abs(losses[shift] - output.loss.item()))
    difference = abs(output.loss.item() - losses[1])
    note = "" if nearest == 1 or difference <= TOLERANCE else f"it is that of labels shifted by {nearest}"
    return Finding("label shift", "its loss and the cross-entropy of the next token, nats", difference, note=note)


def cache(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that decoding with a cache has the same logits as decoding without."""
    cached, uncached = (_generate(lm, tokens, use_cache=use) for use in (True, False))
    return Finding("cache", f"logits of {N_NEW} decoded tokens, with and without", _decoded_difference(cached, uncached, scale))


def cache_growth(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that the cache holds one entry per token read, that is for all but the last decoded token."""
    what = "entries in the cache and tokens read, tokens"
    held = _generate(lm, tokens).past_key_values
    if held is None or is_stateful(lm):
        note = "it returns no cache" if held is None else "a recurrent state does not grow"
        return Finding("cache growth", what, 0.0, 0.0, note)
    if not held.get_seq_length():
        return Finding("cache growth", what, 0.0, 0.0, "it puts nothing into its cache and reads everything again")
    return Finding("cache growth", what, abs(int(held.get_seq_length()) - (tokens.shape[1] + N_NEW - 1)), 0.0)


def batch(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that a row has the same logits in a batch and alone."""
    together = lm(input_ids=tokens).logits
    difference = max(_difference(lm(input_ids=tokens[i : i + 1]).logits, together[i : i + 1], scale) for i in range(N_ROWS))
    return Finding("batch", "logits of a row in the batch and alone", difference)


def padding_left(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that masked padding on the left changes nothing. Decoding of a batch needs it."""
    padded, mask = _pad(tokens)
    with_padding = _generate(lm, padded, attention_mask=mask)
    difference = _decoded_difference(_generate(lm, tokens), with_padding, scale)
    return Finding("padding left", f"logits of {N_NEW} decoded tokens, with {N_OTHER} of padding and without", difference)


def padding_right(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that padding on the right changes no logits before it. Training on a batch needs it."""
    padded, mask = (x.flip(1) for x in _pad(tokens.flip(1)))
    with_padding = lm(input_ids=padded, attention_mask=mask).logits[:, : tokens.shape[1]]
    difference = _difference(with_padding, lm(input_ids=tokens).logits, scale)
    return Finding("padding right", f"logits with {N_OTHER} of padding behind them and without", difference)


def tied_weights(lm: PreTrainedModel, tokens: Int[Tensor, "B T"], scale: float) -> Finding:
    """Check that the unembedding is the embedding, if the config ties them."""
    what = "embedding and unembedding, largest difference of a weight"
    embedding, unembedding = lm.get_input_embeddings().weight, lm.get_output_embeddings().weight
    if not lm.config.get_text_config().tie_word_embeddings:
        return Finding("tied weights", what, 0.0, 0.0, "not tied, says its config")
    same_shape = embedding.shape == unembedding.shape
    return Finding("tied weights", what, (embedding - unembedding).abs().max().item() if same_shape else torch.inf, 0.0)


Check = Callable[[PreTrainedModel, Tensor, float], Finding]
CHECKS: tuple[Check, ...] = (
    determinism,
    causality,
    prefix,
    label_shift,
    cache,
    cache_growth,
    batch,
    padding_left,
    padding_right,
    tied_weights,
)
"""The checks in order, causes first: for example, a model that is not deterministic also fails later checks."""


def _generate(
    lm: PreTrainedModel, tokens: Int[Tensor, "B T"], *, attention_mask: Tensor | None = None, use_cache: bool = True
) -> Any:
    """Return `N_NEW` greedy tokens with their unprocessed logits. The model's own settings are ignored."""
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=N_NEW,
        use_cache=use_cache,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    mask = torch.ones_like(tokens) if attention_mask is None else attention_mask
    with without_own_settings(lm):
        return lm.generate(tokens, attention_mask=mask, generation_config=greedy)


def _pad(tokens: Int[Tensor, "B T"]) -> tuple[Int[Tensor, "B S"], Int[Tensor, "B S"]]:
    """Return the tokens with padding on the left, and their mask. The padding is other rows' tokens: the mask hides them."""
    padding = tokens[:, :N_OTHER].roll(1, 0)
    mask = torch.cat([torch.zeros_like(padding), torch.ones_like(tokens)], 1)
    return torch.cat([padding, tokens], 1), mask


def _difference(a: Float[Tensor, "..."], b: Float[Tensor, "..."], scale: float) -> float:
    """Return the largest difference, as a share of the scale. It is infinite if one is NaN."""
    return (a.float() - b.float()).abs().max().nan_to_num(torch.inf).item() / scale


def _decoded_difference(a: Any, b: Any, scale: float) -> float:
    """Return the difference of the logits of every row up to its first different token. After it, the inputs differ."""
    new_a, new_b = (x.sequences[:, -N_NEW:] for x in (a, b))
    same_so_far = torch.cat([torch.ones_like(new_a[:, :1]), (new_a == new_b).int().cumprod(1)[:, :-1]], 1).bool()
    logits_a, logits_b = (torch.stack(x.logits, 1) for x in (a, b))
    return _difference(logits_a[same_so_far], logits_b[same_so_far], scale)


def _cross_entropy(logits: Float[Tensor, "B T V"], tokens: Int[Tensor, "B T"], shift: int) -> float:
    """Return the mean cross-entropy in nats of the tokens a given number of places after each prediction."""
    n = tokens.shape[1] - shift
    return F.cross_entropy(logits[:, :n].flatten(0, 1).float(), tokens[:, shift:].flatten()).item()
