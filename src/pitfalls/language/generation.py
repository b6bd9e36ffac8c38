"""Decoding rules for any causal language model, by transformers' own `generate`."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, PreTrainedModel

from pitfalls.models.hf_internals import is_stateful
from pitfalls.schemas import ConfigError
from pitfalls.seeding import forked_rng


@dataclass(frozen=True)
class Rule:
    """A decoding rule, which chooses the next token."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of transformers' GenerationConfig."""

    @property
    def samples(self) -> bool:
        """Whether two answers to one prompt may differ."""
        return bool(self.options.get("do_sample"))


def _sampled(name: str, **options: Any) -> Rule:
    return Rule(name, {"do_sample": True, "top_k": 0, **options})


RULES = (
    Rule("greedy"),
    _sampled("temperature 0.7", temperature=0.7),
    _sampled("temperature 1"),
    _sampled("temperature 1.3", temperature=1.3),
    _sampled("top-k 40", top_k=40),
    _sampled("top-p 0.9", top_p=0.9),
    _sampled("min-p 0.1", min_p=0.1),
    Rule("repetition penalty 1.2", {"repetition_penalty": 1.2}),
    Rule("no repeated 3-gram", {"no_repeat_ngram_size": 3}),
    Rule("beam search 4", {"num_beams": 4, "early_stopping": True}),
)
"""All decoding rules. Each is one change from greedy decoding, or from sampling at temperature 1."""
ENDS = ("stop", "ignore", "ban")
ONLY_SAMPLED = ("temperature", "top_k", "top_p", "min_p")
OURS = ("max_new_tokens", "max_length", "eos_token_id", "suppress_tokens", "pad_token_id", "num_return_sequences")
"""Options that the arguments of `generate` decide. A rule may not set them."""
BLIND_TO_PADDING = {
    "do_sample",
    *ONLY_SAMPLED,
    "typical_p",
    "num_beams",
    "early_stopping",
    "length_penalty",
    "repetition_penalty",
}
"""Options under which a padded prompt has the answer that it has alone.

All others may read the padding as text: n-grams, banned words, lengths. The repetition penalty of transformers leaves it out.
"""


def generate(
    lm: PreTrainedModel,
    tokens: Int[Tensor, "B P"],
    n_new: int,
    rule: Rule,
    *,
    seed: int = 0,
    attention_mask: Int[Tensor, "B P"] | None = None,
    end: str = "ban",
    assistant: PreTrainedModel | None = None,
) -> Int[Tensor, "B N"]:
    """Return the N = n_new tokens that the model writes after each prompt. With ``end="stop"`` shorter answers are padded.

    The rule's settings are used, and the model's own are ignored. Torch's random state is restored. A padded prompt has the
    answer that it has alone: rules that would read the padding as text write for one length of prompts at a time.

    Args:
        lm: the model, in eval mode.
        tokens: prompts of one length, or padded on the left.
        n_new: the largest number of new tokens.
        rule: the decoding rule.
        seed: seed of the samples.
        attention_mask: 0 where a prompt is padded, 1 at its tokens.
        end: what the end-of-text token does: it ends an answer ("stop"), is written like any other ("ignore"), or never ("ban").
        assistant: a model that drafts tokens, which ``lm`` verifies (assisted decoding, one prompt at a time).

    Raises:
        ConfigError: rule, model, prompts and assistant do not fit each other. This is checked before any compute.
    """
    check_call(lm, tokens, n_new, end, assistant)
    return _written(lm, tokens, n_new, rule, seed, attention_mask, end, assistant=assistant)[0]


def generate_with_logits(
    lm: PreTrainedModel,
    tokens: Int[Tensor, "B P"],
    n_new: int,
    rule: Rule,
    *,
    seed: int = 0,
    attention_mask: Int[Tensor, "B P"] | None = None,
    end: str = "ban",
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N V"]]:
    """Return the tokens of `generate`, and the model's logits for each of them, from before the rule changes them.

    Raises:
        ConfigError: as in `generate`, or the rule searches with beams, so that no logits belong to an answer.
    """
    if rule.options.get("num_beams", 1) > 1:
        raise ConfigError(
            f"{rule.name}: beams change places, so their logits are not those of one text; read the written text instead"
        )
    check_call(lm, tokens, n_new, end, None)
    new, logits = _written(lm, tokens, n_new, rule, seed, attention_mask, end, with_logits=True)
    assert logits is not None
    return new, logits


def _written(
    lm: PreTrainedModel,
    tokens: Tensor,
    n_new: int,
    rule: Rule,
    seed: int,
    attention_mask: Tensor | None,
    end: str,
    *,
    assistant: PreTrainedModel | None = None,
    with_logits: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Return the new tokens [B,N] and, on request, their logits [B,N,V]."""
    check_rule(rule)
    mask = torch.ones_like(tokens) if attention_mask is None else attention_mask.to(tokens)
    check_mask(mask)
    settings = _settings(lm, n_new, rule, end, with_logits)
    if mask.all() or rule.options.keys() <= BLIND_TO_PADDING:
        groups = [torch.arange(len(tokens), device=tokens.device)]
    else:
        groups = [(mask.sum(1) == n).nonzero()[:, 0] for n in mask.sum(1).unique().tolist()]
    parts = []
    for rows in groups:
        first = int(mask[rows].argmax(1).min())  # what is padding in all rows of a group is left out
        with forked_rng(lm.device, seed + int(rows[0])), without_own_settings(lm):
            found = lm.generate(
                tokens[rows, first:], attention_mask=mask[rows, first:], generation_config=settings, assistant_model=assistant
            )
        new = (found.sequences if with_logits else found)[:, tokens.shape[1] - first :]
        parts.append((rows, new, torch.stack(found.logits, 1).float() if with_logits else None))
    assert isinstance(settings.pad_token_id, int)
    new, logits = _in_order(parts, settings.pad_token_id)
    if end == "stop":  # beam search pads by the end where the padding is token 0
        is_end = torch.isin(new, new.new_tensor(settings.eos_token_id))
        new = torch.where(is_end.cumsum(1) > is_end.long(), settings.pad_token_id, new)
    return new, logits


def _settings(lm: PreTrainedModel, n_new: int, rule: Rule, end: str, with_logits: bool) -> GenerationConfig:
    """Return the settings of transformers' `generate` for a rule."""
    stops = end_tokens(lm)
    return GenerationConfig(
        **{"do_sample": False, "num_beams": 1, **rule.options},
        max_new_tokens=n_new,
        output_logits=with_logits,
        return_dict_in_generate=with_logits,
        eos_token_id=stops if end == "stop" else None,
        suppress_tokens=stops if end == "ban" and stops else None,
        pad_token_id=(token_ids(lm, lm.generation_config.pad_token_id) + stops + [0])[0],
    )


def _in_order(parts: list[tuple[Tensor, Tensor, Tensor | None]], pad: int) -> tuple[Tensor, Tensor | None]:
    """Return the new tokens and logits of all groups of rows. Shorter ones are padded, their logits by zeros.

    Args:
        parts: rows, new tokens and logits of each group.
        pad: the token that pads.
    """
    if len(parts) == 1:
        return parts[0][1:]
    order = torch.cat([rows for rows, _, _ in parts]).argsort()
    width = max(new.shape[1] for _, new, _ in parts)
    new = torch.cat([functional.pad(new, (0, width - new.shape[1]), value=pad) for _, new, _ in parts])[order]
    logits = [functional.pad(part, (0, 0, 0, width - part.shape[1])) for _, _, part in parts if part is not None]
    return new, torch.cat(logits)[order] if logits else None


def check_rule(rule: Rule) -> None:
    """Raise ConfigError if options contradict each other, or if transformers does not know one."""
    known = GenerationConfig().to_dict()
    for name in rule.options:
        if name not in known:
            raise ConfigError(f"{rule.name}: {name}: transformers' GenerationConfig has no such option")
        if name in OURS:
            raise ConfigError(f"{rule.name}: {name}: an argument of generate decides it; leave it out of the rule")
    idle = [f"{name}={rule.options[name]}" for name in ONLY_SAMPLED if name in rule.options]
    if idle and not rule.samples:
        raise ConfigError(f"{rule.name}: {idle[0]} does nothing without do_sample=True; set it, or leave this out")
    n_beams = rule.options.get("num_beams", 1)
    if rule.samples and n_beams > 1:
        raise ConfigError(f"{rule.name}: do_sample=True and num_beams={n_beams} contradict each other; sample, or search")


def check_call(lm: PreTrainedModel, tokens: Tensor, n_new: int, end: str, assistant: PreTrainedModel | None) -> None:
    """Raise ConfigError if the model cannot follow the call."""
    name = type(lm).__name__
    for model in (lm, assistant):
        longest = model and n_positions(model)
        if longest and tokens.shape[1] + n_new > longest:
            reader = name if model is lm else "the assistant"
            raise ConfigError(f"{reader} reads {longest} tokens; a prompt of {tokens.shape[1]} and {n_new} new ones are too many")
    if end not in ENDS:
        raise ConfigError(f"end={end}: one of {', '.join(ENDS)}")
    if end == "stop" and not end_tokens(lm):
        raise ConfigError(f"{name} has no end-of-text token, so end=stop would never stop; use end=ignore")
    if assistant is None:
        return
    if len(tokens) > 1:
        raise ConfigError(f"assisted decoding answers one prompt at a time in transformers, got {len(tokens)}")
    for model in (lm, assistant):
        if is_stateful(model):
            raise ConfigError(f"assisted decoding takes back rejected tokens, which the state of a {type(model).__name__} cannot")
    sizes = [model.config.get_text_config().vocab_size for model in (lm, assistant)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"the assistant has {sizes[1]:,} tokens and {name} {sizes[0]:,}; they must share a vocabulary")


def check_mask(mask: Tensor) -> None:
    """Raise ConfigError unless a mask pads prompts on the left only, and leaves each at least one token."""
    if not ((mask == 0) | (mask == 1)).all() or (mask.diff(dim=1) < 0).any() or not mask[:, -1].all():
        raise ConfigError("attention_mask: each row must be zeros and then ones: prompts are padded on the left")


def n_positions(lm: PreTrainedModel) -> int | None:
    """Return the length of the longest sequence that the model reads, or None if nothing limits it."""
    longest = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    return longest if longest is not None and longest > 0 else None  # XLNet has -1


def end_tokens(lm: PreTrainedModel) -> list[int]:
    """Return the model's end-of-text tokens. The list may be empty."""
    return token_ids(lm, lm.generation_config.eos_token_id)


def token_ids(lm: PreTrainedModel, setting: int | list[int] | None) -> list[int]:
    """Return the tokens of a setting that the model has. Others, such as -1 for "none", are left out."""
    given = [] if setting is None else [setting] if isinstance(setting, int) else list(setting)
    return [i for i in given if 0 <= i < lm.get_input_embeddings().weight.shape[0]]


@contextlib.contextmanager
def without_own_settings(lm: PreTrainedModel) -> Iterator[None]:
    """Within this context, the model has no generation settings of its own.

    Otherwise `generate` would take options that are not given from them, such as temperatures and penalties.
    """
    own = lm.generation_config
    lm.generation_config = GenerationConfig()
    try:
        yield
    finally:
        lm.generation_config = own
