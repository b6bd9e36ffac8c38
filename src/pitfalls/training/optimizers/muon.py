"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) for hidden matrices, AdamW for the other weights.

    b <- momentum * b + (1 - momentum) * g,   u = (1 - momentum) * g + momentum * b,   W <- W - lr * sqrt(max(1, out/in)) * O(u)

O makes all singular values about 1, by a few steps of Newton and Schulz. Matrices that are fused into one, such as those of
queries, keys and values, are made orthogonal one by one. AdamW has the learning rate of ``training``.

`torch.optim.Muon` computes the same for one matrix after another, in bf16. `BatchedMuon` takes all matrices of one shape
in one product. The tests compare the two.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pitfalls.schemas import OptimizerConfig, TrainingConfig, check_range
from pitfalls.training.optimizers.adamw import adamw_part
from pitfalls.training.optimizers.base import Method, Part, Weight

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration x <- a x + b (x x') x + c (x x')^2 x, those of Jordan et al. and of torch."""
EPS = 1e-7


@dataclass(kw_only=True)
class MuonConfig(OptimizerConfig):
    """The parameters of `Muon`."""

    lr: float
    """Peak learning rate of the hidden matrices. It follows the schedule of ``training``."""
    momentum: float
    """Decay rate of the mean of gradients."""
    n_iterations: int
    """Number of iterations of Newton and Schulz."""

    def __post_init__(self) -> None:
        check_range("optimizer.lr", self.lr, 0, open_low=True)
        check_range("optimizer.momentum", self.momentum, 0, 1)
        check_range("optimizer.n_iterations", self.n_iterations, 1, 99)


class Muon(Method):
    """Muon for the hidden matrices, AdamW for embeddings, unembeddings, tables and vectors."""

    Config = MuonConfig

    @staticmethod
    def parts(weights: list[Weight], config: MuonConfig, training: TrainingConfig) -> list[Part]:
        """Return the part of AdamW and that of Muon."""
        hidden = [weight for weight in weights if weight.hidden and weight.decayed]
        others = [weight for weight in weights if not (weight.hidden and weight.decayed)]
        return [
            adamw_part(others, training),
            Part("muon", BatchedMuon(hidden, config, weight_decay=training.weight_decay), ("momentum_buffer",)),
        ]


class BatchedMuon(torch.optim.Optimizer):
    """Muon for several matrices at once.

    Products are in bf16 on a GPU, as in torch, and in fp32 on a CPU. There bf16 gains nothing at these sizes, or is emulated.
    """

    def __init__(self, weights: list[Weight], config: MuonConfig, *, weight_decay: float) -> None:
        super().__init__([weight.parameter for weight in weights], {"lr": config.lr, "weight_decay": weight_decay})
        self.weights, self.momentum, self.n_iterations = weights, config.momentum, config.n_iterations

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # no loss is computed here
        """Update every matrix that has a gradient."""
        group = self.param_groups[0]
        lr, decay = group["lr"], 1 - group["lr"] * group["weight_decay"]
        same_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in self.weights:
            if (gradient := weight.parameter.grad) is None:
                continue
            state = self.state[weight.parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"]
            mean.lerp_(gradient, 1 - self.momentum)
            update = gradient.lerp(mean, self.momentum)
            if decay != 1.0:
                weight.parameter.mul_(decay)
            for matrix, of_matrix in zip(_outputs_first(weight.parameter, weight), _outputs_first(update, weight), strict=True):
                same_shape[tuple(matrix.shape)].append((matrix, of_matrix))
        for (n_out, n_in), pairs in same_shape.items():
            made = orthogonal(torch.stack([update for _, update in pairs]), self.n_iterations)
            torch._foreach_add_(
                [matrix for matrix, _ in pairs], list(made.unbind()), alpha=-lr * math.sqrt(max(1.0, n_out / n_in))
            )


def _outputs_first(matrix: Tensor, weight: Weight) -> tuple[Tensor, ...]:
    """Return views of the matrices that are fused into one, each [out, in]."""
    return (matrix.T if weight.out_dim else matrix).split(weight.sizes)


def orthogonal(matrices: Float[Tensor, "n out in"], n_iterations: int) -> Float[Tensor, "n out in"]:
    """Return matrices with the same singular vectors and singular values of about 1, from 0.5 to 1.5."""
    a, b, c = COEFFICIENTS
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x.to(torch.bfloat16 if x.is_cuda else torch.float32)
    x = x / x.flatten(1).norm(dim=1).clamp(min=EPS)[:, None, None]
    for _ in range(n_iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)
