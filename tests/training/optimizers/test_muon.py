"""Muon: agreement with torch's own, fused matrices, and which weight goes where."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from pitfalls.schemas import ConfigError
from pitfalls.seeding import generator
from pitfalls.training.optimizers import muon
from pitfalls.training.optimizers.base import Weight
from pitfalls.training.optimizers.muon import BatchedMuon, MuonConfig, orthogonal

CONFIG = MuonConfig(name="muon", lr=0.02, momentum=0.95, n_iterations=5)
SHAPES = [(6, 6), (12, 6), (6, 12), (6, 6), (5, 9)]


def matrices(seed: int) -> list[Tensor]:
    draws = generator(seed, "probe")
    return [torch.randn(shape, generator=draws) for shape in SHAPES]


def weight(parameter: nn.Parameter, out_dim: int = 0, parts: int = 1) -> Weight:
    return Weight("w", parameter, hidden=True, out_dim=out_dim, sizes=(parameter.shape[out_dim] // parts,) * parts)


def trained(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], gradients: list[list[Tensor]]) -> list[Tensor]:
    """Return the parameters after a step with each list of gradients."""
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.fixture
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch's Muon compute in fp32, by our own function for one matrix."""
    monkeypatch.setattr(
        "torch.optim._muon._zeropower_via_newtonschulz", lambda grad, coefficients, steps, eps: orthogonal(grad[None], steps)[0]
    )


@pytest.mark.usefixtures("in_fp32")
def test_it_equals_torchs_muon():
    """Guards against another momentum, another scale of wide and tall matrices, and matrices that are mixed up in a batch."""
    ours = [nn.Parameter(m) for m in matrices(0)]
    theirs = copy.deepcopy(ours)
    gradients = [matrices(seed) for seed in (1, 2, 3)]
    reference = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95, ns_steps=5)
    batched = BatchedMuon([weight(p) for p in ours], CONFIG, weight_decay=0.1)
    for a, b in zip(trained(batched, ours, gradients), trained(reference, theirs, gradients), strict=True):
        assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_the_product_in_fp32_is_near_torchs_in_bf16():
    """Guards against other coefficients or another number of iterations than torch's."""
    matrix = matrices(0)[1]
    from torch.optim._muon import _zeropower_via_newtonschulz

    reference = _zeropower_via_newtonschulz(matrix, muon.COEFFICIENTS, 5, muon.EPS).float()
    assert_close(orthogonal(matrix[None], 5)[0], reference, rtol=0, atol=0.02)


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_singular_values_are_about_one_and_vectors_stay(shape: tuple[int, int]):
    matrix = torch.randn(shape, generator=generator(0, "probe"))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    made = u.T @ orthogonal(matrix[None], 5)[0] @ v.T
    assert_close(made, torch.diag(made.diagonal()), rtol=0, atol=1e-4)
    assert ((made.diagonal() > 0.3) & (made.diagonal() < 1.3)).all(), values


def test_a_zero_gradient_changes_nothing():
    """Guards against a division by the norm of a matrix that is 0."""
    parameter = nn.Parameter(matrices(0)[0])
    before = parameter.detach().clone()
    trained(BatchedMuon([weight(parameter)], CONFIG, weight_decay=0.0), [parameter], [[torch.zeros(6, 6)]])
    assert torch.equal(parameter, before)


@pytest.mark.parametrize("out_dim", [0, 1])
def test_fused_matrices_are_made_orthogonal_one_by_one(out_dim: int):
    """Guards against queries, keys and values that are one matrix to Muon, in torch's layout and in GPT-2's."""
    parts = [torch.randn(6, 6, generator=generator(seed, "probe")) for seed in range(3)]
    gradients = [torch.randn(6, 6, generator=generator(seed, "init")) for seed in range(3)]

    def fused(of: list[Tensor]) -> Tensor:
        return torch.cat(of).T.contiguous() if out_dim else torch.cat(of)

    whole = nn.Parameter(fused(parts))
    apart = [nn.Parameter(part.clone()) for part in parts]
    together = trained(BatchedMuon([weight(whole, out_dim, 3)], CONFIG, weight_decay=0.1), [whole], [[fused(gradients)]])[0]
    alone = trained(BatchedMuon([weight(p) for p in apart], CONFIG, weight_decay=0.1), apart, [gradients])
    assert_close(together, fused(alone), rtol=1e-5, atol=1e-6)


def test_gpt2s_layout_gets_the_scale_of_its_outputs():
    """Guards against sqrt(out/in) with rows for outputs: GPT-2's matrices are [in, out]."""
    wide = nn.Parameter(torch.zeros(4, 16))
    torchs = nn.Parameter(torch.zeros(16, 4))
    gradient = torch.randn(16, 4, generator=generator(0, "probe"))
    trained(BatchedMuon([weight(wide, out_dim=1)], CONFIG, weight_decay=0.0), [wide], [[gradient.T]])
    trained(BatchedMuon([weight(torchs)], CONFIG, weight_decay=0.0), [torchs], [[gradient]])
    assert_close(wide.T, torchs)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("lr", 0.0, "optimizer.lr=0.0"),
        ("momentum", 1.5, "optimizer.momentum=1.5"),
        ("n_iterations", 0, "optimizer.n_iterations=0"),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: float, said: str):
    with pytest.raises(ConfigError, match=said):
        MuonConfig(**{"name": "muon", "lr": 0.02, "momentum": 0.95, "n_iterations": 5} | {key: value})
