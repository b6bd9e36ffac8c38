"""Masked diffusion over the target (Sahoo et al. 2024). With flat weights it is MLM-U (Kitouni et al. 2024).

    input   prompt, target with each token masked with probability t ~ U(0,1), attention in both directions
    loss    flat: mean over masked tokens of -log p(target[i] | the rest), at least one masked per row
            inverse_rate: mean over all tokens of masked/t times that, a bound on the likelihood (MDLM, LLaDA)

If the token before is masked, a token has to be found from the side of the goal. Decoding fills in the most certain token first,
or from left to right, or all tokens at once.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pitfalls import metrics
from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Loss, Objective, Spec
from pitfalls.schemas import ObjectiveConfig, check_choice, check_range
from pitfalls.tasks.batch import Batch

SMALLEST_RATE = 1e-3
"""Lower bound of the masking rate t. The weight 1/t would have no bound without it."""


@dataclass(kw_only=True)
class MaskedDiffusionConfig(ObjectiveConfig):
    """The parameters of `MaskedDiffusion`."""

    token_weight: str
    """Weighting of the tokens in the loss: flat or inverse_rate."""
    focal_exponent: float
    """Exponent gamma, 0 or at least 1. The loss of a token with probability p is multiplied by (1 - p)^gamma.

    It comes from HKUNLP's diffusion code.
    """

    def __post_init__(self) -> None:
        check_choice("objective.token_weight", self.token_weight, ("flat", "inverse_rate"))
        if self.focal_exponent:  # below 1 the gradient is infinite at a token of probability 1
            check_range("objective.focal_exponent", self.focal_exponent, 1)


class MaskedDiffusion(Objective):
    """Prediction of masked target tokens."""

    Config = MaskedDiffusionConfig
    decoders = ("confidence", "left_to_right", "parallel")
    needs = ("masks",)

    def __init__(self, spec: Spec, config: MaskedDiffusionConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.token_weight, self.focal_exponent = config.token_weight, config.focal_exponent
        self.mask_token = spec.vocabulary.id("<mask>")

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return L: a state predicts the whole target."""
        return target_length

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the weighted cross-entropy of the masked tokens."""
        masked, rate = self.draw_mask(batch.target, generator)
        logits = self._logits(trunk, batch.prompt, batch.target.masked_fill(masked, self.mask_token))
        cost = metrics.negative_log_likelihood(logits, batch.target)
        if self.focal_exponent:
            cost = (1 - torch.exp(-cost)) ** self.focal_exponent * cost
        total = cost[masked].mean() if self.token_weight == "flat" else (cost * masked / rate).mean()
        return Loss(total, {"masked": total})

    def draw_mask(
        self, target: Int[Tensor, "B L"], generator: torch.Generator
    ) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B 1"]]:
        """Return which tokens are masked, and the masking rate t of each row.

        With flat weights, a row without a masked token gets one at a random place. With inverse rates it does not, because
        the loss would then be no bound.
        """
        n_rows, length = target.shape
        rate = torch.rand(n_rows, 1, generator=generator, device=target.device).clamp(min=SMALLEST_RATE)
        masked = torch.rand(n_rows, length, generator=generator, device=target.device) < rate
        if self.token_weight == "inverse_rate":
            return masked, rate
        one = torch.randint(length, (n_rows, 1), generator=generator, device=target.device)
        return masked | (~masked.any(1, keepdim=True) & (torch.arange(length, device=target.device) == one)), rate

    def infill_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Return the logits of every target token. Only node values can be answers, so other tokens get -inf."""
        logits = self._logits(trunk, prompt, tokens).float()
        logits[..., self.spec.vocabulary.n_values :] = -torch.inf
        return logits

    def parallel_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], length: int) -> Float[Tensor, "B L V"]:
        """Return the logits of all target tokens when all of them are masked."""
        return self.infill_logits(trunk, prompt, prompt.new_full((len(prompt), length), self.mask_token))

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"]:
        """Return the logits from left to right: row i is read with target[:i] given and the rest masked. It takes L passes."""
        length = batch.target.shape[1]
        rows = []
        for i in range(length):
            hidden = torch.arange(length, device=batch.target.device) >= i
            rows.append(self._logits(trunk, batch.prompt, batch.target.masked_fill(hidden, self.mask_token))[:, i])
        return torch.stack(rows, 1)

    @staticmethod
    def _logits(trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        sequence = torch.cat([prompt, tokens], 1)
        everywhere = torch.ones(1, sequence.shape[1], sequence.shape[1], dtype=torch.bool, device=prompt.device)
        return trunk.logits(trunk(sequence, mask=everywhere, first=prompt.shape[1]).normed)
