"""GPT-2 with a causal convolution in each block: a token sees the tokens just before it without learning where they are.

    x = LN(h),   y_t = x_t + sum over k < K of w_k * x_{t-k}      (one weight w_k per channel; K = conv_kernel)

Queries, keys and values are made of y in place of x. The first half of an edge lookup is to write a node beside its neighbour.
This convolution can do that at once, and a GPT-2 has to learn it from absolute positions. Primer (So et al. 2021, arXiv
2109.08668), H3 and Mamba have such convolutions, too. Queries and keys may be normed (Henry et al. 2020, arXiv 2010.04245).

x_{t-k} is the token at position p_t - k that t may attend to, or 0. What a mask hides does not come through the convolution.
"""

from typing import Any, no_type_check

import torch
from huggingface_hub.dataclasses import strict
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, Cache, GPT2Config, GPT2LMHeadModel, GPT2Model

from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.hf_internals import GPT2Attention, GPT2Block, attention_function, by_heads

MODEL_TYPE = "gpt_conv"
"""The ``model_type`` of an exported model. transformers knows it once this module is imported."""


@no_type_check  # the checker of the tests would refuse the extra keywords that transformers gives to a config
@strict
class GPTConvConfig(GPT2Config):
    """The config of GPT-2 with that of the convolutions."""

    model_type = MODEL_TYPE
    conv_kernel: int = 4
    """Number of tokens K that a convolution sees, the current one included."""
    qk_norm: bool = True
    """Whether each query and key is divided by its root mean square."""
    learned_positions: bool = True
    """Whether the model has a table of positions. Without one, the convolutions and the causal mask tell the order."""


class ConvAttention(GPT2Attention):
    """GPT-2's attention over states that a convolution has mixed."""

    def __init__(self, config: Any, layer_idx: int | None = None) -> None:
        super().__init__(config, layer_idx=layer_idx)
        norms = (nn.RMSNorm(self.head_dim) if config.qk_norm else nn.Identity() for _ in range(2))
        self.query_norm, self.key_norm = norms

    def forward(
        self,
        mixed: Float[Tensor, "B T D"],
        normed: Float[Tensor, "B T D"],
        cache: Cache | None,
        mask: Float[Tensor, "b 1 K S"] | None,
        first: int,
    ) -> tuple[Float[Tensor, "B K D"], Tensor | None]:
        """Return the output at the K = T - first positions from ``first`` on, and the weights if the function returns them.

        Args:
            mixed: what queries, keys and values are made of.
            normed: the states before the convolution, which a cache keeps.
            cache: see `ConvBlock.forward_from`.
            mask: see `ConvBlock.forward_from`.
            first: the first requested position.
        """
        weight, bias, width = self.c_attn.weight, self.c_attn.bias, self.split_size
        before, own = mixed.split([first, mixed.shape[1] - first], 1)
        query, *parts = F.linear(own, weight.T, bias).split(width, 2)
        if first:
            others = F.linear(before, weight[:, width:].T, bias[width:]).split(width, 2)
            parts = [torch.cat(pair, 1) for pair in zip(others, parts, strict=True)]
        query, key, value = (by_heads(self, part) for part in (query, *parts))
        # torch fuses this norm in fp32 only
        query, key = (norm(x.float()).to(value.dtype) for norm, x in ((self.query_norm, query), (self.key_norm, key)))
        if cache is not None:  # the normed states are kept as more heads of the values: every kind of cache can hold them
            key, kept = cache.update(key, torch.cat([value, by_heads(self, normed).to(value.dtype)], 1), self.layer_idx)
            value = kept[:, : self.num_heads]
        if not own.shape[1]:  # only the cache is needed
            return own, None
        dropout = self.attn_dropout.p if self.training else 0.0
        attended, weights = attention_function(self)(self, query, key, value, mask, dropout=dropout, scaling=self.scaling)
        return self.resid_dropout(self.c_proj(attended.flatten(2))), weights


class ConvBlock(GPT2Block):
    """A GPT-2 block with a causal convolution of the normed states that its attention reads."""

    def __init__(self, config: Any, layer_idx: int | None = None) -> None:
        super().__init__(config, layer_idx)
        self.attn = ConvAttention(config, layer_idx)
        width = config.hidden_size
        self.conv = nn.Conv1d(width, width, config.conv_kernel, groups=width, bias=False)

    def forward(
        self,
        hidden_states: Float[Tensor, "B T D"],
        past_key_values: Cache | None = None,
        attention_mask: Float[Tensor, "b 1 T S"] | None = None,
        *_: Any,
        neighbours: Int[Tensor, "n T k"] | None = None,
        **__: Any,
    ) -> Float[Tensor, "B T D"]:
        """Return the states after the block. transformers' GPT-2 calls it."""
        return self.forward_from(hidden_states, past_key_values, attention_mask, 0, neighbours=neighbours)

    def forward_from(
        self,
        states: Float[Tensor, "B T D"],
        cache: Cache | None,
        mask: Float[Tensor, "b 1 K S"] | None,
        first: int,
        *,
        neighbours: Int[Tensor, "n T k"] | None = None,
        **_: Any,
    ) -> Float[Tensor, "B K D"]:
        """Return the states after the block at the K = T - first positions from ``first`` on.

        Args:
            states: the input of the block.
            cache: the keys and values of the tokens before these, and their normed states.
            mask: the additive mask of the K positions. None means causal, without a cache and with first = 0.
            first: the first requested position.
            neighbours: the places of the tokens that the convolution sees (`neighbour_places`). None means those just before.
        """
        normed = self.ln_1(states)
        attended, _ = self.attn(self._mixed(normed, cache, neighbours), normed, cache, mask, first)
        states = states[:, first:]
        if not states.shape[1]:
            return states
        states = attended + states
        return self.mlp(self.ln_2(states)) + states

    def _mixed(
        self, normed: Float[Tensor, "B T D"], cache: Cache | None, neighbours: Int[Tensor, "n T k"] | None
    ) -> Float[Tensor, "B T D"]:
        """Return the T new normed states plus their convolution, which also sees those that the cache holds."""
        weight = self.conv.weight[:, 0]
        past = self._past(cache, weight.shape[1] - 1 if neighbours is None else None)
        seen = normed if past is None else torch.cat([past.to(normed.dtype), normed], 1)
        if neighbours is None:
            return normed + convolved(seen, weight)[:, -normed.shape[1] :]
        padded = F.pad(seen, (0, 0, 1, 0))  # place 0 is for a neighbour that is not there
        total = normed + normed * weight[:, -1]
        for k, places in enumerate(neighbours.unbind(2), 1):
            index = places[..., None].expand(-1, -1, normed.shape[2])
            found = padded[:, places[0]] if len(places) == 1 else padded.gather(1, index)
            total = total + found * weight[:, -1 - k]
        return total

    def _past(self, cache: Cache | None, n: int | None) -> Float[Tensor, "B S D"] | None:
        """Return the normed states that the cache holds, of the last n tokens or of all."""
        index = self.attn.layer_idx
        n_cached = 0 if cache is None else int(cache.get_seq_length(index))
        if cache is None or not n_cached:
            return None
        kept = cache.layers[index].values[:, self.attn.num_heads :]
        return kept[:, :, n_cached - min(n_cached if n is None else n, n_cached) :].transpose(1, 2).flatten(2)


def convolved(x: Float[Tensor, "B T D"], weight: Float[Tensor, "D K"]) -> Float[Tensor, "B T D"]:
    """Return the causal convolution of states with a weight per channel and shift. The last weight is that of no shift."""
    channels = x.transpose(1, 2)
    if x.is_cuda:
        return F.conv1d(F.pad(channels, (weight.shape[1] - 1, 0)), weight[:, None], groups=len(weight)).transpose(1, 2)
    return causal_conv1d(channels, weight).transpose(1, 2)


class NoPositions(nn.Module):
    """A table of positions without entries: every position is 0."""

    def forward(self, position_ids: Int[Tensor, "b T"]) -> Float[Tensor, ""]:
        """Return 0."""
        return torch.zeros((), device=position_ids.device)


class GPTConvModel(GPT2Model):
    """The embeddings and blocks of a `GPTConvLMHeadModel`."""

    config_class = GPTConvConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.h = nn.ModuleList([ConvBlock(config, layer_idx=i) for i in range(config.n_layer)])
        if not config.learned_positions:
            self.wpe = NoPositions()
        self.post_init()


class GPTConvLMHeadModel(GPT2LMHeadModel):
    """A GPT-2 with convolutions and an unembedding. It is exported and loaded like any model of transformers."""

    config_class = GPTConvConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.transformer = GPTConvModel(config)
        self.post_init()


AutoConfig.register(MODEL_TYPE, GPTConvConfig, exist_ok=True)
AutoModelForCausalLM.register(GPTConvConfig, GPTConvLMHeadModel, exist_ok=True)


def neighbour_places(
    kernel: int,
    n_new: int,
    n_all: int,
    positions: Int[Tensor, "b T"] | None,
    mask: Bool[Tensor, "m T S"] | None,
    device: torch.device,
) -> Int[Tensor, "n T k"] | None:
    """Return where a convolution finds the tokens that it sees, or None if they are those just before each token.

    Entry [n, t, k-1] is 1 + the place, among all S tokens, of the token k positions before the new token t that t may attend
    to. Of several, it is the last. The entry is 0 if there is none.

    Args:
        kernel: number of tokens K of the convolution. There are k = K-1 neighbours.
        n_new: number of new tokens T.
        n_all: number of tokens S, those in the cache included.
        positions: the positions of the new tokens, by default their places. A token in the cache has its place as its position.
        mask: True = may attend. None means causal.
        device: the device of the result.
    """
    if positions is None and mask is None:
        return None
    n_cached = n_all - n_new
    place = torch.arange(n_all, device=device)
    at = place[None, n_cached:] if positions is None else positions
    every = torch.cat([place[:n_cached].expand(len(at), -1), at], 1)
    visible = (place < place[n_cached:, None])[None] if mask is None else mask
    before = [visible & (every[:, None] == at[:, :, None] - k) for k in range(1, kernel)]
    places = torch.stack([(there * (place + 1)).amax(-1) for there in before], -1)
    just_before = (place[n_cached:, None] + 1 - torch.arange(1, kernel, device=device)).clamp(min=0)
    return None if torch.equal(places, just_before.expand_as(places)) else places
