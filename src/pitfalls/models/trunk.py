"""Any Hugging Face causal LM, seen as tokens -> hidden states -> logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache, DynamicCache, PreTrainedModel

from pitfalls.models import last_block
from pitfalls.models.cpu.attention import needs_no_mask
from pitfalls.models.masks import causal_mask, to_additive
from pitfalls.models.room import make_room

FINAL_NORMS = ("ln_f", "norm", "norm_f", "final_layer_norm", "final_layernorm")
"""Names under which transformers' base models keep the norm that precedes the unembedding."""


class Hidden(NamedTuple):
    """The last layer's states, after and before the final norm."""

    normed: Float[Tensor, "B K D"]
    pre_norm: Float[Tensor, "B K D"]
    before_last_block: Float[Tensor, "B T D"] | None = None
    """What the last block has read, at all T positions, if it was asked for."""


class Trunk(nn.Module):
    """A causal LM without its loss: objectives compose inputs, masks and positions around it.

    Args:
        lm: a transformers causal LM, recurrent or with an attention that takes additive 4-D masks.
        token_ids: the model's own token for each of ours, a permutation of its vocabulary; by default ours are its own.

    Raises:
        ValueError: the model keeps its final norm under a name that we do not know.
    """

    token_ids: Tensor | None

    def __init__(self, lm: PreTrainedModel, token_ids: Int[Tensor, " V"] | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.register_buffer("token_ids", token_ids, persistent=False)
        self._pre_norm: Tensor | None = None
        self._final_norm().register_forward_pre_hook(self._keep_pre_norm)

    @property
    def width(self) -> int:
        """D, the size of a hidden state."""
        return self.lm.config.hidden_size

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.lm.config.num_hidden_layers

    @property
    def n_heads(self) -> int:
        """Attention heads of a block that an objective adds; without attention as many as share the width, of 64 or more."""
        own = getattr(self.lm.config, "num_attention_heads", None) or max(1, self.width // 64)
        return next(n for n in range(own, 0, -1) if self.width % n == 0)

    @property
    def recurrent(self) -> bool:
        """Whether it carries a state from token to token: no masks, no positions, one token per cached step."""
        return bool(getattr(self.lm, "_is_stateful", False))

    def _final_norm(self) -> nn.Module:
        for name in FINAL_NORMS:
            if hasattr(self.lm.base_model, name):
                return getattr(self.lm.base_model, name)
        raise ValueError(f"{type(self.lm).__name__} has none of the final norms {FINAL_NORMS}; add its name to FINAL_NORMS")

    def _keep_pre_norm(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._pre_norm = args[0]

    def embed(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Token embeddings, without positions."""
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
        """Run the blocks; the states of the T - first = K positions from ``first`` on.

        Args:
            tokens_or_embeddings: Long[B,T] token ids, or Float[B,T,D] embeddings without positions.
            positions: Long[B|1,T]; by default they count on from what the cache holds.
            mask: Bool[B|1,T,S], True = may attend, S = cached positions + T; by default causal. Every row of it
                needs one True: a position that may attend to nothing attends to everything.
            cache: what the positions before these left behind; it grows by T.
            first: of the T positions, the first whose states are wanted (in its last block a GPT-2, or a Mamba on a CPU,
                leaves out the others).
            shared: (k, n), without a cache: each k rows in turn begin with the same n tokens or embeddings, at the same
                positions and with the same mask among them; they are read only once (by a Transformer, if the mask lets
                none of them see what follows them).
            before_last_block: whether to return what the last block reads as well, for blocks that stand beside it.

        Raises:
            ValueError: the mask's last two sizes are not (T, S); the rows are no multiple of k; or, on a recurrent trunk, a
                mask, positions, or several tokens after the first cached call (Mamba's cached chunks are inexact).
        """
        x = tokens_or_embeddings
        if shared is not None and cache is None and self._can_share(mask, shared[1]):
            return self._forward_shared(x, positions, mask, first, before_last_block, *shared)
        with self._read_by_last_block(before_last_block) as read:
            hidden = self._run(x, positions, mask, cache, first)
        return hidden._replace(before_last_block=read[0]) if before_last_block else hidden

    def _run(self, x: Tensor, positions: Tensor | None, mask: Tensor | None, cache: Cache | None, first: int) -> Hidden:
        """The states of one pass over every row."""
        embeddings = x if x.is_floating_point() else self.embed(x)
        if self.recurrent:
            state = self._state(cache, positions, mask, embeddings.shape[1])
            some = cache is None and first < embeddings.shape[1]
            with last_block.read_from(self.lm, first if some else 0, None) as kept:
                output = self.lm.base_model(inputs_embeds=embeddings, use_cache=cache is not None, **state)
        else:
            n_new, n_cached = x.shape[1], 0 if cache is None else int(cache.get_seq_length())
            additive = self._additive(mask, positions, n_new, n_cached + n_new, embeddings)
            with last_block.read_from(self.lm, first, additive) as kept:
                output = self.lm.base_model(
                    inputs_embeds=embeddings,
                    attention_mask=additive,
                    position_ids=positions,
                    past_key_values=cache,
                    use_cache=cache is not None,
                )
        if kept:
            return Hidden(self.norm(kept[0]), kept[0])
        pre_norm, self._pre_norm = self._pre_norm, None
        assert pre_norm is not None
        return Hidden(output.last_hidden_state[:, first:], pre_norm[:, first:])

    @contextmanager
    def _read_by_last_block(self, wanted: bool) -> Iterator[list[Float[Tensor, "B T D"]]]:
        """While it lasts, what the last block is given is left in the list, if that is wanted."""
        read: list[Tensor] = []
        if not wanted:
            yield read
            return
        blocks = next(m for m in self.lm.base_model.children() if isinstance(m, nn.ModuleList))
        handle = blocks[-1].register_forward_pre_hook(lambda module, args: read.append(args[0]))
        try:
            yield read
        finally:
            handle.remove()

    def _can_share(self, mask: Tensor | None, n: int) -> bool:
        """Whether the states of the first n positions depend on those alone, and can be kept for several rows."""
        return not self.recurrent and (mask is None or not bool(mask[:, :n, n:].any()))

    def _forward_shared(
        self, x: Tensor, positions: Tensor | None, mask: Tensor | None, first: int, before_last_block: bool, k: int, n: int
    ) -> Hidden:
        """The first n positions once for every k rows, the others with what those left in the cache."""
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
        """What a recurrent model takes beside embeddings."""
        for name, value in (("a mask", mask), ("positions", positions)):
            if value is not None:
                raise ValueError(
                    f"{type(self.lm).__name__} is recurrent and takes no {name.split()[-1]}: it reads tokens in their order. "
                    f"An objective that needs {name} needs a Transformer (model=gpt_tiny)"
                )
        if cache is not None and cache.has_previous_state() and n_new != 1:
            raise ValueError(f"{type(self.lm).__name__} decodes one token per cached call after the first, got {n_new}")
        return {"cache_params": cache}

    def _additive(
        self, mask: Tensor | None, positions: Tensor | None, n_new: int, n_all: int, like: Tensor
    ) -> Float[Tensor, "b 1 T S"] | None:
        """The mask as transformers adds it to the attention scores.

        Causal attention of a whole sequence may need none, and without one torch can choose its flash kernel. (Not with positions
        of one's own: without a mask transformers takes a jump in them for the start of another sequence.)
        """
        if mask is None:
            whole = n_new == n_all and positions is None
            skipped = whole and needs_no_mask(self.lm.config._attn_implementation, n_new)
            return None if skipped else causal_mask(n_new, n_all, like.dtype, like.device)
        if mask.shape[-2:] != (n_new, n_all):
            raise ValueError(f"mask has shape {tuple(mask.shape)}; its last two sizes must be {(n_new, n_all)}")
        return to_additive(mask, like.dtype)[:, None]

    def norm(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The final norm, for heads that bring their own last block."""
        y = self._final_norm()(x)
        self._pre_norm = None
        return y

    def logits(self, normed: Float[Tensor, "... D"], *, frozen: bool = False) -> Float[Tensor, "... V"]:
        """Unembed normed states; frozen: no gradient reaches the unembedding."""
        unembedding = self.lm.get_output_embeddings()
        if frozen:
            bias = None if unembedding.bias is None else unembedding.bias.detach()
            logits = F.linear(normed, unembedding.weight.detach(), bias)
        else:
            logits = unembedding(normed)
        return logits if self.token_ids is None else logits[..., self.token_ids]

    def new_cache(self, n_tokens: int | None = None) -> Cache:
        """An empty cache for `forward`: keys and values, or the states of a recurrent trunk.

        Args:
            n_tokens: the most that it will hold, if that is known and no gradient is asked for: nothing is copied then.
        """
        cache = DynamicCache(config=self.lm.config)
        if n_tokens is not None:
            make_room(cache, n_tokens)
        return cache
