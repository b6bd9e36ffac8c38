"""`Trunk`: a causal language model of transformers, as a function from tokens to hidden states to logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel

from pitfalls.models import hf_internals
from pitfalls.models.cpu.attention import needs_no_mask
from pitfalls.models.gpt_conv import GPTConvLMHeadModel, neighbour_places
from pitfalls.models.masks import causal_mask, to_additive


class Hidden(NamedTuple):
    """The hidden states of K positions."""

    normed: Float[Tensor, "B K D"]
    """The output of the last block after the final norm, which the unembedding reads."""

    pre_norm: Float[Tensor, "B K D"]
    """The output of the last block before the final norm."""

    before_last_block: Float[Tensor, "B T D"] | None = None
    """The input of the last block at all T positions, if it was requested."""


class Trunk(nn.Module):
    """A causal language model without a loss. Objectives choose its inputs, masks and positions.

    Args:
        lm: a causal LM of transformers, recurrent or with an attention that takes additive 4-D masks.
        token_ids: the model's token id for each token id of the task, as a permutation of its vocabulary. By default equal ids.

    Raises:
        ConfigError: the model keeps its final norm under an unknown name.
    """

    token_ids: Tensor | None

    def __init__(self, lm: PreTrainedModel, token_ids: Int[Tensor, " V"] | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.register_buffer("token_ids", token_ids, persistent=False)
        self._pre_norm: Tensor | None = None
        self._factor, self._cap = hf_internals.after_unembedding(lm)
        self._final_norm.register_forward_pre_hook(self._keep_pre_norm)

    @property
    def width(self) -> int:
        """The size D of a hidden state."""
        return self.lm.config.get_text_config().hidden_size

    @property
    def n_layers(self) -> int:
        """The number of blocks."""
        return self.lm.config.get_text_config().num_hidden_layers

    @property
    def n_heads(self) -> int:
        """The number of attention heads of a block that an objective adds.

        It is the model's own number. A model without attention gets the largest number that divides D into heads of 64 or more.
        """
        own = getattr(self.lm.config.get_text_config(), "num_attention_heads", None) or max(1, self.width // 64)
        return next(n for n in range(own, 0, -1) if self.width % n == 0)

    @property
    def recurrent(self) -> bool:
        """Whether the model is recurrent. A recurrent model takes no masks and no positions, and one token per cached step."""
        return hf_internals.is_stateful(self.lm)

    @property
    def _final_norm(self) -> nn.Module:
        return hf_internals.final_norm(self.lm)

    def _keep_pre_norm(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._pre_norm = args[0]

    def embed(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return the token embeddings, without positions."""
        return self.lm.get_input_embeddings()(tokens if self.token_ids is None else self.token_ids[tokens])

    def forward(
        self,
        tokens_or_embeddings: Tensor,
        *,
        positions: Int[Tensor, "b T"] | None = None,
        mask: Bool[Tensor, "m T S"] | None = None,
        cache: Cache | None = None,
        first: int = 0,
        shared: tuple[int, int] | None = None,
        before_last_block: bool = False,
    ) -> Hidden:
        """Return the hidden states of the T - first = K positions from ``first`` on.

        Args:
            tokens_or_embeddings: Long[B,T] token ids, or Float[B,T,D] embeddings without positions.
            positions: Long[B|1,T]. By default they follow the last cached position.
            mask: Bool[B|1,T,S], True = may attend, S = cached positions + T. By default it is causal. Every row needs at least
                one True, because a position that may attend to nothing attends to everything.
            cache: the keys and values, or the states, of the tokens before these. It grows by T.
            first: the first requested one of the T positions. A GPT-2, and a Mamba on a CPU, save most of the work for the
                earlier ones in the last block.
            shared: (k, n), only without a cache. Each group of k neighbouring rows begins with the same n tokens, positions and
                mask. A Transformer reads these n once per group, if the mask lets them see no later position.
            before_last_block: whether to return the input of the last block as well, for heads parallel to that block.

        Raises:
            ValueError: the mask's last two sizes are not (T, S), or the number of rows is not a multiple of k. Or a recurrent
                trunk gets a mask, positions, or several tokens after the first cached call (Mamba's cached chunks are inexact).
        """
        x = tokens_or_embeddings
        if shared is not None and cache is None and self._can_share(mask, positions, shared[1]):
            return self._forward_shared(x, positions, mask, first, before_last_block, *shared)
        with self._read_by_last_block(before_last_block) as read:
            hidden = self._run(x, positions, mask, cache, first)
        return hidden._replace(before_last_block=read[0]) if before_last_block else hidden

    def _run(self, x: Tensor, positions: Tensor | None, mask: Tensor | None, cache: Cache | None, first: int) -> Hidden:
        """Return the states of one pass over all rows."""
        embeddings = x if x.is_floating_point() else self.embed(x)
        if self.recurrent:
            state = self._state(cache, positions, mask, embeddings.shape[1])
            some = cache is None and first < embeddings.shape[1]
            with hf_internals.last_block_from(self.lm, first if some else 0, None) as outputs:
                output = self.lm.base_model(inputs_embeds=embeddings, use_cache=cache is not None, **state)
        else:
            n_new, n_cached = x.shape[1], 0 if cache is None else int(cache.get_seq_length())
            additive = self._additive(mask, positions, n_new, n_cached + n_new, embeddings)
            neighbours = self._neighbours(mask, positions, n_new, n_cached + n_new)
            with hf_internals.last_block_from(self.lm, first, additive) as outputs:
                output = self.lm.base_model(
                    inputs_embeds=embeddings,
                    attention_mask=additive,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=cache is not None,
                    **neighbours,
                )
        if outputs:
            return Hidden(self.norm(outputs[0]), outputs[0])
        pre_norm, self._pre_norm = self._pre_norm, None
        assert pre_norm is not None
        return Hidden(output.last_hidden_state[:, first:], pre_norm[:, first:])

    @contextmanager
    def _read_by_last_block(self, wanted: bool) -> Iterator[list[Float[Tensor, "B T D"]]]:
        """Within the context, the input of the last block is appended to the list, if it is requested."""
        read: list[Tensor] = []
        if not wanted:
            yield read
            return
        block = hf_internals.blocks(self.lm)[-1]
        handle = block.register_forward_pre_hook(lambda module, args: read.append(args[0]))
        try:
            yield read
        finally:
            handle.remove()

    def _can_share(self, mask: Tensor | None, positions: Tensor | None, n: int) -> bool:
        """Return whether the first n positions see no later one, so that several rows can share their states.

        A convolution finds the tokens of a cache by their places, so these have to be their positions.
        """
        if self.recurrent or (mask is not None and bool(mask[:, :n, n:].any())):
            return False
        if positions is None or not isinstance(self.lm, GPTConvLMHeadModel):
            return True
        return bool((positions[:, :n] == torch.arange(n, device=positions.device)).all())

    def _forward_shared(
        self, x: Tensor, positions: Tensor | None, mask: Tensor | None, first: int, before_last_block: bool, k: int, n: int
    ) -> Hidden:
        """Return the states of all rows. The first n positions are read once for every k rows, into a cache."""
        if len(x) % k:
            raise ValueError(f"shared=({k}, {n}): {len(x)} rows are not a multiple of {k}; chosen rows need shared=None")

        def once(rows: Tensor) -> Tensor:
            return rows if len(rows) == 1 else rows[::k]

        cache = self.new_cache()
        begins = self.forward(
            once(x)[:, :n],
            positions=None if positions is None else once(positions)[:, :n],
            mask=None if mask is None else once(mask)[:, :n, :n],
            cache=cache,
            first=min(first, n),
            before_last_block=before_last_block,
        )
        cache.batch_repeat_interleave(k)
        goes_on = self.forward(
            x[:, n:],
            positions=None if positions is None else positions[:, n:],
            mask=None if mask is None else mask[:, n:],
            cache=cache,
            first=max(first - n, 0),
            before_last_block=before_last_block,
        )

        def joined(begin: Tensor, rest: Tensor) -> Tensor:
            return torch.cat([begin.repeat_interleave(k, 0), rest], 1) if begin.shape[1] else rest

        hidden = Hidden(joined(begins.normed, goes_on.normed), joined(begins.pre_norm, goes_on.pre_norm))
        if begins.before_last_block is None or goes_on.before_last_block is None:
            return hidden
        return hidden._replace(before_last_block=joined(begins.before_last_block, goes_on.before_last_block))

    def _state(self, cache: Cache | None, positions: Tensor | None, mask: Tensor | None, n_new: int) -> dict[str, Cache | None]:
        """Return the arguments of a recurrent model besides the embeddings."""
        for name, value in (("a mask", mask), ("positions", positions)):
            if value is not None:
                raise ValueError(
                    f"{type(self.lm).__name__} is recurrent and takes no {name.split()[-1]}: it reads tokens in their order. "
                    f"An objective that needs {name} needs a Transformer (model=gpt_tiny)"
                )
        if cache is not None and cache.has_previous_state() and n_new != 1:
            raise ValueError(f"{type(self.lm).__name__} decodes one token per cached call after the first, got {n_new}")
        return {hf_internals.recurrent_cache_name(self.lm): cache}

    def _additive(
        self, mask: Tensor | None, positions: Tensor | None, n_new: int, n_all: int, like: Tensor
    ) -> Float[Tensor, "b 1 T S"] | None:
        """Return the mask that transformers adds to the attention scores, or None where causal attention needs none.

        Without a mask torch can choose its flash kernel. With given positions there is always a mask, because transformers
        would otherwise take a jump in the positions for the start of another sequence.
        """
        if mask is None:
            whole = n_new == n_all and positions is None
            skipped = whole and needs_no_mask(hf_internals.attention_name(self.lm), n_new)
            return None if skipped else causal_mask(n_new, n_all, like.dtype, like.device)
        if mask.shape[-2:] != (n_new, n_all):
            raise ValueError(f"mask has shape {tuple(mask.shape)}; its last two sizes must be {(n_new, n_all)}")
        return to_additive(mask, like.dtype)[:, None]

    def _neighbours(self, mask: Tensor | None, positions: Tensor | None, n_new: int, n_all: int) -> dict[str, Tensor | None]:
        """Return an argument of a model with convolutions: where these find the tokens that masks and positions let them see."""
        if not isinstance(self.lm, GPTConvLMHeadModel):
            return {}
        kernel = self.lm.config.conv_kernel
        return {"neighbours": neighbour_places(kernel, n_new, n_all, positions, mask, self.lm.device)}

    def norm(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Apply the final norm, for heads with a last block of their own."""
        y = self._final_norm(x)
        self._pre_norm = None
        return y

    def logits(self, normed: Float[Tensor, "... D"], *, frozen: bool = False) -> Float[Tensor, "... V"]:
        """Return the logits of normed states. With ``frozen``, the unembedding gets no gradient."""
        unembedding = self.lm.get_output_embeddings()
        if frozen:
            bias = None if unembedding.bias is None else unembedding.bias.detach()
            logits = F.linear(normed, unembedding.weight.detach(), bias)
        else:
            logits = unembedding(normed)
        if self._factor != 1.0:
            logits = logits * self._factor
        if self._cap is not None:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits if self.token_ids is None else logits[..., self.token_ids]

    def new_cache(self, n_tokens: int | None = None) -> Cache:
        """Return an empty cache for `forward`: for keys and values, or for the states of a recurrent trunk.

        Args:
            n_tokens: the largest number of tokens, if it is known. Then space is preallocated and nothing is copied, but no
                gradient can pass.
        """
        cache = DynamicCache(config=self.lm.config)
        if n_tokens is not None:
            hf_internals.preallocate(cache, n_tokens)
        return cache
