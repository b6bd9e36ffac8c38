"""The last block at some positions only: same states, same gradients, and the model is unchanged afterwards."""

import pytest
import torch
from torch.testing import assert_close

from pitfalls.models.trunk import Trunk
from pitfalls.seeding import generator
from tests.conftest import move_vectors

FIRST = 20


@pytest.fixture
def tokens(batch) -> torch.Tensor:
    return torch.cat([batch.prompt, batch.target], 1)


def gradients(trunk: Trunk, states: torch.Tensor) -> dict[str, torch.Tensor]:
    trunk.zero_grad()
    weights = torch.randn(states.shape, generator=generator(0, "probe"), dtype=states.dtype)
    (states * weights).sum().backward()
    return {name: p.grad.clone() for name, p in trunk.named_parameters() if p.grad is not None}


def check_against_the_whole_block(trunk: Trunk, tokens: torch.Tensor, first: int, n_parameters: int, **tolerance: float) -> None:
    """Compare both kinds of states and all gradients with the slow reference, which computes all positions and cuts some out."""
    move_vectors(trunk)
    for kind in ("normed", "pre_norm"):
        quick, slow = getattr(trunk(tokens, first=first), kind), getattr(trunk(tokens), kind)[:, first:]
        assert quick.shape == slow.shape == (8, 25 - first, trunk.width)
        assert_close(quick, slow, **tolerance)
        ours, theirs = gradients(trunk, quick), gradients(trunk, slow)
        assert ours.keys() == theirs.keys()
        assert len(ours) >= n_parameters
        for name, gradient in ours.items():
            assert_close(gradient, theirs[name], **tolerance, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("attention", ["matmul", "sdpa", "eager"])
@pytest.mark.parametrize("first", [1, FIRST, 24])
def test_states_and_gradients_are_those_of_the_whole_block(make_trunk, tokens, attention: str, first: int):
    trunk = make_trunk().double()
    trunk.lm.set_attn_implementation(attention)
    check_against_the_whole_block(trunk, tokens, first, n_parameters=21, rtol=1e-9, atol=1e-10)


def test_it_computes_less(make_trunk, tokens):
    """Guards against a fast path that is never taken: only the last MLP reads the wanted positions alone."""
    trunk, seen = make_trunk(), []
    for block in trunk.lm.transformer.h:
        block.mlp.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    trunk(tokens, first=FIRST)
    assert seen == [25, 5]


def test_with_a_mask_and_positions(trunk: Trunk, tokens):
    mask = (torch.rand(8, 25, 25, generator=generator(0, "probe")) < 0.5) | torch.eye(25, dtype=torch.bool)
    given = {"mask": mask, "positions": torch.arange(25).flip(0)[None]}
    assert_close(trunk(tokens, first=FIRST, **given).normed, trunk(tokens, **given).normed[:, FIRST:], rtol=1e-5, atol=1e-6)


def test_with_a_cache(trunk: Trunk, tokens):
    """Guards against a cache without the keys and values of the positions that are not wanted."""
    whole, cache = trunk(tokens).normed, trunk.new_cache()
    assert_close(trunk(tokens[:, :21], cache=cache, first=20).normed[:, 0], whole[:, 20], rtol=1e-5, atol=1e-6)
    assert_close(trunk(tokens[:, 21:24], cache=cache, first=1).normed, whole[:, 22:24], rtol=1e-5, atol=1e-6)
    assert_close(trunk(tokens[:, 24:], cache=cache).normed[:, 0], whole[:, 24], rtol=1e-5, atol=1e-6)


def test_dropout_stays_on_in_training(make_trunk, tokens):
    trunk = make_trunk().train()
    block = trunk.lm.transformer.h[-1]
    block.attn.resid_dropout.p = block.mlp.dropout.p = 1.0
    states = trunk(tokens, first=FIRST).pre_norm
    trunk.lm.transformer.h[-1].register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    kept: list[torch.Tensor] = []
    trunk(tokens)
    assert_close(states, kept[0][:, FIRST:], rtol=1e-5, atol=1e-6)


def test_the_block_is_itself_again_afterwards(trunk: Trunk, tokens):
    """Guards against a block that keeps the replaced forward, also after an error."""
    block, norm = trunk.lm.transformer.h[-1], trunk.lm.transformer.ln_f
    trunk(tokens, first=FIRST)
    assert "forward" not in vars(block).keys() | vars(norm).keys()
    with pytest.raises(ValueError, match="mask has shape"):
        trunk(tokens, first=FIRST, mask=torch.ones(1, 3, 3, dtype=torch.bool))
    handle = block.mlp.register_forward_hook(lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trunk(tokens, first=FIRST)
    handle.remove()
    assert "forward" not in vars(block).keys() | vars(norm).keys()
    assert trunk(tokens).normed.shape[1] == 25


@pytest.fixture(params=["mamba_tiny", "mamba2_tiny"])
def mamba(request, make_trunk, model_preset) -> Trunk:
    """A Mamba of two layers, with weights large enough that states differ from token to token."""
    small = {"n_layers": 2, "width": 16, "embedding_init_std": 0.2, "projection_init_gain": 2.0}
    if request.param == "mamba2_tiny":
        small |= {"head_dim": 8, "chunk_size": 8}
    return make_trunk(config=model_preset(request.param), **small)


@pytest.mark.parametrize("first", [1, 7, 8, FIRST, 24])
def test_a_mambas_states_and_gradients_are_those_of_the_whole_block(mamba: Trunk, tokens, first: int):
    """Guards against errors for a first position inside a chunk, at its beginning and in the last chunk."""
    check_against_the_whole_block(mamba, tokens, first, n_parameters=16, rtol=1e-3, atol=1e-4)
    mamba.eval()
    assert_close(mamba(tokens, first=first).normed, mamba(tokens).normed[:, first:], rtol=1e-4, atol=1e-5)


def test_a_mamba_in_bf16_and_without_any_position(mamba: Trunk, tokens):
    """Guards against another precision in the fast path, and a scan that fails without any output."""
    with torch.autocast("cpu", torch.bfloat16):
        quick, slow = mamba(tokens, first=FIRST).normed, mamba(tokens).normed[:, FIRST:]
    assert quick.dtype == slow.dtype
    assert_close(quick, slow, rtol=1e-2, atol=1e-2)
    assert mamba(tokens, first=25).normed.shape == (8, 0, mamba.width)


def test_a_mamba_computes_less_unless_it_caches(mamba: Trunk, tokens):
    """Guards against a fast path that is never taken, and one that is taken with a cache, which needs the block's state."""
    seen: list[int] = []
    for block in mamba.lm.backbone.layers:
        block.mixer.out_proj.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    whole = mamba(tokens, first=FIRST).normed
    assert seen == [25, 5]
    cache = mamba.new_cache()
    mamba(tokens[:, :24], first=FIRST, cache=cache)
    assert_close(mamba(tokens[:, 24:], cache=cache).normed[:, 0], whole[:, -1], rtol=1e-4, atol=1e-5)
    assert seen == [25, 5, 24, 24, 1, 1]
