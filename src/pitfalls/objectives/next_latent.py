"""Next-latent prediction (Teoh et al. 2025, arXiv 2511.05963v4): predict the next state from this state and the next token.

    g_{t+1} = g_t + psi([LN(g_t; E(x_{t+1}))]),   g_t = h_t at the start, rolled out over d = horizon-1 gold tokens
    loss    next token + weight/d * sum over i of SmoothL1(sg h_{t+i}, g_{t+i})
                       + kl_weight/d * sum over i of KL(p(.|sg h_{t+i}) || p_frozen head(.|g_{t+i}))

The SmoothL1 term is a mean over all positions, the prompt's included. The KL term is a mean over the positions where h_{t+i}
predicts a target token. sg stops the gradient.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ObjectiveConfig, check_choice, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class NextLatentConfig(HorizonConfig):
    """The parameters of `NextLatent`. The weight is the source's lambda_h. A null horizon is l-1: d = l-2, as in the source."""

    kl_weight: float
    """Weight lambda_kl of the KL term."""
    hidden: int | None
    """Width of psi's hidden layers. Null means the trunk's width."""
    state: str
    """State h that is predicted: normed or pre_norm. Re-implementations differ here.

    With pre_norm, the KL term also trains the final norm before the frozen unembedding.
    """
    detach_embeddings: bool
    """Whether the roll-out's gradient is kept out of the token embeddings. Re-implementations differ here."""
    zero_init: bool
    """Whether psi starts at 0. The source leaves it open, and re-implementations differ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("objective.hidden", self.hidden, 1)
        check_range("objective.kl_weight", self.kl_weight, 0)
        check_choice("objective.state", self.state, ("normed", "pre_norm"))


class NextLatent(NextToken):
    """Next token, with states that predict the states after them."""

    Config = NextLatentConfig
    reads_prompt_states = True

    def __init__(self, spec: Spec, config: NextLatentConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.settings = config
        width, hidden = spec.width, config.hidden or spec.width
        self.psi = nn.Sequential(
            nn.LayerNorm(2 * width),
            nn.Linear(2 * width, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
        )
        if config.zero_init:
            last = self.psi[-1]
            assert isinstance(last, nn.Linear)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return the configured horizon, by default L-1 (but at least 2)."""
        assert isinstance(config, NextLatentConfig)
        return max(2, target_length - 1) if config.horizon is None else config.horizon

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the two weighted terms, each a mean over the steps of the roll-out."""
        normed = self.settings.state == "normed"
        state = hidden.normed if normed else hidden.pre_norm
        goal, said = state.detach(), trunk.logits(hidden.normed).detach().float().log_softmax(-1)
        embeddings = trunk.embed(torch.cat([batch.prompt, batch.target[:, :-1]], 1))
        embeddings = embeddings.detach() if self.settings.detach_embeddings else embeddings
        first, latent, divergence = batch.prompt.shape[1] - 1, [], []
        for i in range(1, self.horizon):
            # state[:, t] is g_{t+i}, rolled out from h_t: the last h has no next token left, so each step loses one row
            state = state[:, :-1]
            state = state + self.psi(torch.cat([state, embeddings[:, i:]], -1))
            latent.append(F.smooth_l1_loss(state.float(), goal[:, i:].float()))
            answers = state[:, first - i :]  # row t is about position t+i: keep the positions from the = on
            logits = trunk.logits(answers if normed else trunk.norm(answers), frozen=True).float()
            kl = F.kl_div(logits.log_softmax(-1), said[:, first:], reduction="none", log_target=True)
            divergence.append(kl.sum(-1).mean())
        return {
            "latent": self.settings.weight * torch.stack(latent).mean(),
            "divergence": self.settings.kl_weight * torch.stack(divergence).mean(),
        }
