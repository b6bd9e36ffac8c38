"""The trunk: causality of hidden states, caches, masks, positions, and equality with transformers' model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import GPT2Config, GPT2LMHeadModel

from pitfalls.models.hf_internals import attention_name
from pitfalls.models.masks import to_additive
from pitfalls.models.trunk import Trunk
from pitfalls.seeding import generator
from tests.conftest import TINY_CONV

ATTENTIONS = ["matmul", "sdpa", "eager"]
T = 14


@pytest.fixture
def tokens(task) -> Tensor:
    return torch.randint(0, task.vocabulary.size, (3, T), generator=generator(0, "probe"))


CONVOLUTIONS = {"conv": {}, "conv_plain_keys": {"qk_norm": False}, "conv_without_positions": {"learned_positions": False}}
"""Changes of the tiny trunk with convolutions."""


@pytest.fixture(params=[*ATTENTIONS, *CONVOLUTIONS])
def any_trunk(make_trunk: Callable[..., Trunk], request: pytest.FixtureRequest) -> Trunk:
    """A trunk under each attention implementation, and trunks with convolutions."""
    if request.param in CONVOLUTIONS:
        return make_trunk(config=TINY_CONV, **CONVOLUTIONS[request.param]).eval()
    trunk = make_trunk().eval()
    trunk.lm.set_attn_implementation(request.param)
    return trunk


def changed(tokens: Tensor, place: int) -> Tensor:
    """Return the tokens with another one at one place."""
    other = tokens.clone()
    other[:, place] = (other[:, place] + 1) % 10
    assert (other != tokens).any(1).all()
    return other


def causal(n: int) -> Tensor:
    return torch.ones(1, n, n, dtype=torch.bool).tril()


def full(n: int) -> Tensor:
    return torch.ones(1, n, n, dtype=torch.bool)


# ------------------------------------------------------------------ what a state may depend on


@pytest.mark.parametrize("place", [0, 5, T - 1])
def test_a_state_does_not_depend_on_later_tokens(any_trunk: Trunk, tokens: Tensor, place: int):
    """Guards against an attention that gets no mask at all, as a custom one without a mask builder does in transformers."""
    before, after = any_trunk(tokens, before_last_block=True), any_trunk(changed(tokens, place), before_last_block=True)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a[:, :place], b[:, :place])
        assert ((a[:, place:] - b[:, place:]).abs().amax(-1) > 1e-6).all(), "later states have to see the change"


def test_the_causal_mask_is_the_default(any_trunk: Trunk, tokens: Tensor):
    assert torch.equal(any_trunk(tokens).normed, any_trunk(tokens, mask=causal(T)).normed)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("base", [causal, full])
def test_a_masked_token_changes_nothing(any_trunk: Trunk, tokens: Tensor, base, rows: int):
    """Guards against a boolean mask that is added to the scores as 1.0 (transformers 5.23, eager): it would mask nothing."""
    place = 4
    mask = base(T).expand(rows, -1, -1).clone()
    mask[:, :, place] = False
    mask[:, place, place] = True  # every row needs something to attend to
    others = [i for i in range(T) if i != place]
    before = any_trunk(tokens, mask=mask).normed
    after = any_trunk(changed(tokens, place), mask=mask).normed
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.allclose(before[:, place], after[:, place])
    assert not torch.allclose(before, any_trunk(tokens, mask=base(T)).normed), "the mask has to matter"


def test_each_row_of_a_batch_has_its_own_mask(any_trunk: Trunk, tokens: Tensor):
    """Guards against a mask that is broadcast from row 0."""
    masks = torch.cat([causal(T), full(T), causal(T)])
    mixed = any_trunk(tokens, mask=masks).normed
    assert_close(mixed[:1], any_trunk(tokens[:1]).normed)
    assert_close(mixed[1:2], any_trunk(tokens[1:2], mask=full(T)).normed)
    assert not torch.allclose(mixed[1:2], any_trunk(tokens[1:2]).normed)


def test_a_full_mask_is_bidirectional(any_trunk: Trunk, tokens: Tensor):
    """Guards against a causal mask that is applied on top of the given one."""
    before = any_trunk(tokens, mask=full(T)).normed
    after = any_trunk(changed(tokens, T - 1), mask=full(T)).normed
    assert ((before - after).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("shape", [(1, T, T - 1), (1, T + 1, T + 1), (3, 1, T)])
def test_a_mask_of_the_wrong_size_is_refused(trunk: Trunk, tokens: Tensor, shape: tuple[int, int, int]):
    """Guards against a mask that is broadcast over queries in silence."""
    with pytest.raises(ValueError, match=rf"mask has shape .*{shape[1]}, {shape[2]}.* must be \({T}, {T}\)"):
        trunk(tokens, mask=torch.ones(shape, dtype=torch.bool))


def test_no_mask_value_becomes_infinite_under_bf16():
    """Guards against -inf - -inf = NaN: the smallest fp32 number rounds to -inf in bf16."""
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        additive = to_additive(causal(3), dtype)[None]
        assert additive.dtype == dtype
        assert additive.to(torch.bfloat16).isfinite().all()
        assert additive[0, 0, 0, 1] < -1e38
        assert (additive[0, 0].tril() == 0).all()


def test_sdpa_is_given_no_mask_where_attention_is_causal_anyhow(trunk: Trunk, tokens: Tensor, monkeypatch: pytest.MonkeyPatch):
    """Guards against a GPU that never takes the flash kernel. Own positions, and a last block at some positions, need a mask."""
    given, sdpa = [], torch.nn.functional.scaled_dot_product_attention

    def watched(*args, attn_mask=None, is_causal=False, **kwargs):
        given.append((attn_mask is None, is_causal))
        return sdpa(*args, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    trunk.lm.set_attn_implementation("sdpa")
    n = trunk.n_layers
    trunk(tokens)
    assert given == [(True, True)] * n
    given.clear()
    trunk(tokens, first=T - 2)
    assert given == [(True, True)] * (n - 1) + [(False, False)]
    given.clear()
    trunk(tokens, positions=torch.arange(T).flip(0)[None])
    assert given == [(False, False)] * n


def test_a_jump_in_the_positions_begins_no_other_sequence(any_trunk: Trunk, tokens: Tensor):
    """Guards against own positions without a mask: transformers takes a jump in them for the start of another sequence."""
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1]])
    states, other = (any_trunk(x, positions=positions).normed for x in (tokens, changed(tokens, 0)))
    assert (states[:, -1] != other[:, -1]).any(-1).all()


# ------------------------------------------------------------------ inputs and outputs


def test_default_positions_count_from_zero(any_trunk: Trunk, tokens: Tensor):
    positions = torch.arange(T)[None]
    assert_close(any_trunk(tokens, positions=positions).normed, any_trunk(tokens).normed)
    learned = getattr(any_trunk.lm.config, "learned_positions", True)
    assert torch.allclose(any_trunk(tokens, positions=positions + 1).normed, any_trunk(tokens).normed) != learned


def test_positions_are_those_given_and_not_the_places(any_trunk: Trunk, tokens: Tensor):
    """Guards against ignored positions: tokens shuffled together with their positions are, seen by a full mask, the same set."""
    order = torch.randperm(T, generator=generator(1, "probe"))
    straight = any_trunk(tokens, mask=full(T)).normed
    shuffled = any_trunk(any_trunk.embed(tokens)[:, order], positions=order[None].expand(3, -1), mask=full(T)).normed
    assert_close(shuffled, straight[:, order], atol=1e-5, rtol=1e-5)
    without = any_trunk(tokens[:, order], mask=full(T)).normed
    assert not torch.allclose(without, straight[:, order], atol=1e-3)


def test_embeddings_as_input_equal_tokens_as_input(any_trunk: Trunk, tokens: Tensor):
    """Guards against positions that are added to tokens only."""
    assert torch.equal(any_trunk(any_trunk.embed(tokens)).normed, any_trunk(tokens).normed)


def test_the_final_norm_of_pre_norm_is_normed(trunk: Trunk, tokens: Tensor):
    """Guards against a pre_norm that is taken from another place or another call."""
    first, second = trunk(tokens), trunk(changed(tokens, 0))
    for hidden in (first, second):
        assert torch.equal(trunk.norm(hidden.pre_norm), hidden.normed)
        assert not torch.allclose(hidden.pre_norm, hidden.normed)
    assert trunk._pre_norm is None, "states must not outlive their step"


@pytest.mark.parametrize("first", [0, 5, T - 1])
def test_what_the_last_block_reads_is_kept_on_demand(any_trunk: Trunk, tokens: Tensor, first: int):
    """Compare all positions, whatever ``first`` is, with the hidden states that the model itself reports."""
    read = any_trunk(tokens, first=first, before_last_block=True).before_last_block
    assert_close(read, any_trunk.lm(input_ids=tokens, output_hidden_states=True).hidden_states[-2], atol=1e-6, rtol=1e-6)
    assert any_trunk(tokens, first=first).before_last_block is None
    assert not any(module._forward_pre_hooks for name, module in any_trunk.named_modules() if name.endswith("1"))


def test_logits_equal_the_plain_model(any_trunk: Trunk, tokens: Tensor):
    """Compare with transformers' own model: same weights, ordinary call."""
    logits = any_trunk.logits(any_trunk(tokens).normed)
    assert_close(logits, any_trunk.lm(input_ids=tokens).logits, atol=1e-6, rtol=1e-6)


def test_parity_with_an_unregistered_gpt2(make_trunk, tokens: Tensor):
    """Compare with a model without our choices: eager attention, and a GELU of six kernels."""
    trunk = make_trunk(activation="gelu_pytorch_tanh").eval()
    config = GPT2Config(**(trunk.lm.config.to_diff_dict() | {"activation_function": "gelu_new"}), attn_implementation="eager")
    plain = GPT2LMHeadModel(config).eval()
    plain.load_state_dict(trunk.lm.state_dict())
    assert attention_name(plain) == "eager"
    assert_close(trunk.logits(trunk(tokens).normed), plain(tokens).logits, atol=1e-5, rtol=1e-5)


def test_sizes_are_those_of_the_model(trunk: Trunk, tokens: Tensor, task):
    assert (trunk.width, trunk.n_layers, trunk.n_heads) == (20, 2, 2)
    assert trunk(tokens).normed.shape == trunk.embed(tokens).shape == (3, T, 20)
    assert trunk.logits(trunk(tokens).normed).shape == (3, T, task.vocabulary.size)


def test_a_model_whose_final_norm_is_unknown_is_refused(trunk: Trunk):
    lm = trunk.lm
    norm = lm.transformer.ln_f
    del lm.transformer.ln_f
    lm.transformer.closing_norm = norm
    with pytest.raises(ValueError, match="GPT2LMHeadModel has no final norm under a known name"):
        Trunk(lm)


def test_gradients_reach_the_embeddings_given(trunk: Trunk, tokens: Tensor):
    """Guards against an input that is detached or embedded again: objectives may compose their own inputs."""
    embeddings = trunk.embed(tokens).detach().requires_grad_()
    trunk(embeddings).normed.square().sum().backward()
    assert (embeddings.grad.abs().amax(-1) > 0).all()


# ------------------------------------------------------------------ caches


SPACES = pytest.mark.parametrize("space", [None, T, T + 3])
"""Numbers of tokens that a cache has preallocated space for. With None it grows."""


@SPACES
@pytest.mark.parametrize("prompt", [1, 6])
def test_cached_tokens_equal_uncached_ones(any_trunk: Trunk, tokens: Tensor, prompt: int, space: int | None):
    """Guards against positions that start again at zero, and a mask of the wrong offset, once a cache is there."""
    whole = any_trunk(tokens)
    cache = any_trunk.new_cache(space)
    parts = [any_trunk(tokens[:, :prompt], cache=cache)]
    parts += [any_trunk(tokens[:, i : i + 1], cache=cache) for i in range(prompt, T)]
    assert cache.get_seq_length() == T
    assert_close(torch.cat([p.normed for p in parts], 1), whole.normed, atol=1e-5, rtol=1e-5)
    assert_close(torch.cat([p.pre_norm for p in parts], 1), whole.pre_norm, atol=1e-5, rtol=1e-5)


@SPACES
def test_cached_chunks_equal_uncached_tokens(any_trunk: Trunk, tokens: Tensor, space: int | None):
    """Guards against a chunk whose tokens see each other in both directions, or not at all."""
    whole, cache = any_trunk(tokens).normed, any_trunk.new_cache(space)
    parts = [any_trunk(chunk, cache=cache).normed for chunk in tokens.split([5, 3, 1, 5], 1)]
    assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


@SPACES
def test_a_mask_over_cached_positions_is_obeyed(any_trunk: Trunk, tokens: Tensor, space: int | None):
    mask = causal(T).clone()
    mask[:, 6:, 2] = False
    whole, cache = any_trunk(tokens, mask=mask).normed, any_trunk.new_cache(space)
    any_trunk(tokens[:, :6], cache=cache)
    last = any_trunk(tokens[:, 6:], cache=cache, mask=mask[:, 6:]).normed
    assert_close(last, whole[:, 6:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(last, any_trunk(tokens).normed[:, 6:], atol=1e-4)


def test_caches_are_independent(trunk: Trunk, tokens: Tensor):
    first, second = trunk.new_cache(), trunk.new_cache()
    trunk(tokens, cache=first)
    assert (first.get_seq_length(), second.get_seq_length()) == (T, 0)
    trunk(tokens[:, :2])
    assert first.get_seq_length() == T


@torch.no_grad()
def test_a_cache_with_preallocated_space_copies_nothing_and_has_an_end(trunk: Trunk, tokens: Tensor):
    """Guards against a cache that silently copies, and a token that is written over another."""
    cache = trunk.new_cache(T)
    trunk(tokens[:, :-1], cache=cache)
    where = [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers]
    trunk(tokens[:, -1:], cache=cache)
    assert [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers] == where
    with pytest.raises(ValueError, match=rf"space for {T} tokens, got {T + 1}; make it with new_cache\({T + 1}\)"):
        trunk(tokens[:, -1:], cache=cache)
    assert cache.get_seq_length() == T


# ------------------------------------------------------------------ rows that begin alike


N_SHARED = 9


@pytest.fixture
def alike(task) -> Tensor:
    """Three pairs of rows. Both rows of a pair have the same first nine tokens."""
    rows = torch.randint(0, task.vocabulary.size, (6, T), generator=generator(1, "probe"))
    rows[:, :N_SHARED] = rows[::2, :N_SHARED].repeat_interleave(2, 0)
    return rows


def looks_back_only() -> Tensor:
    mask = causal(T)
    mask[:, 2:N_SHARED, 1] = mask[:, N_SHARED:, 4] = False
    return mask


def ends_of_their_own() -> tuple[Tensor, Tensor]:
    """Return a mask and positions that are the same in the beginning of all rows, and differ from row to row after it."""
    mask, positions = causal(T).repeat(6, 1, 1), torch.arange(T).repeat(6, 1)
    for row in range(6):
        mask[row, N_SHARED:, row] = False
        positions[row, N_SHARED:] += row
    return mask, positions


OWN_MASK, OWN_POSITIONS = ends_of_their_own()


def looks_ahead(row: int, place: int) -> Tensor:
    """Return a causal mask in which one position of the beginning sees one later place as well."""
    mask = causal(T)
    mask[:, row, place] = True
    return mask


AHEAD = [looks_ahead(N_SHARED - 1, N_SHARED), looks_ahead(0, T - 1), looks_ahead(0, N_SHARED - 1)]
"""Masks of which a single entry decides whether the beginning can be shared. With the last one it can."""


@pytest.mark.parametrize("first", [0, N_SHARED - 3, N_SHARED, T - 2])
@pytest.mark.parametrize("mask", [None, looks_back_only(), looks_back_only().repeat(6, 1, 1), full(T)])
@pytest.mark.parametrize("positions", [None, torch.arange(T)[None].flip(1), torch.arange(T).roll(3).expand(6, T)])
def test_a_beginning_read_once_gives_the_same_states(any_trunk: Trunk, alike: Tensor, first: int, mask, positions):
    """Guards against wrong states under some mask or positions. If the mask lets the beginning see the end, every row is read."""
    options = {"first": first, "mask": mask, "positions": positions, "before_last_block": True}
    whole, once = any_trunk(alike, **options), any_trunk(alike, **options, shared=(2, N_SHARED))
    for ours, reference in zip(once, whole, strict=True):
        assert_close(ours, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, N_SHARED])
@pytest.mark.parametrize("mask", [OWN_MASK, *AHEAD])
@pytest.mark.parametrize("positions", [None, OWN_POSITIONS])
def test_a_single_entry_decides_and_rows_keep_their_own_ends(any_trunk: Trunk, alike: Tensor, first: int, mask, positions):
    """Guards against a beginning that is shared although one position sees one token more, and rows with another row's end."""
    whole, once = (any_trunk(alike, first=first, mask=mask, positions=positions, shared=n) for n in (None, (2, N_SHARED)))
    assert_close(once.normed, whole.normed, atol=1e-5, rtol=1e-5)


def test_a_beginning_is_read_once_and_from_the_first_row_of_each(trunk: Trunk, alike: Tensor):
    """Guards against sharing that never happens: rows that are wrongly declared to begin alike get equal states."""
    other = alike.clone()
    other[1::2, 0] = (other[1::2, 0] + 1) % 10
    assert torch.equal(trunk(other, shared=(2, N_SHARED)).normed, trunk(alike, shared=(2, N_SHARED)).normed)
    assert not torch.allclose(trunk(other).normed, trunk(alike).normed)


def test_rows_that_are_no_whole_groups_are_refused(trunk: Trunk, alike: Tensor):
    with pytest.raises(ValueError, match=r"shared=\(4, 9\): 6 rows are not a multiple of 4"):
        trunk(alike, shared=(4, N_SHARED))


def test_attention_weights_are_given_on_request(any_trunk: Trunk, tokens: Tensor):
    """Guards against a block of ours that goes past transformers' attention module: notebooks would get no weights."""
    any_trunk.lm.set_attn_implementation("eager")
    output = any_trunk.lm.base_model(inputs_embeds=any_trunk.embed(tokens), output_attentions=True, use_cache=False)
    assert len(output.attentions) == any_trunk.n_layers
    for weights in output.attentions:
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert not weights.triu(1).any()
