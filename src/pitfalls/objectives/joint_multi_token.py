"""Joint multi-token prediction (Ahn et al. 2025, arXiv 2503.21801). There is no official code. The structure follows quotations.

    window_t   gamma * h_t + E(x_{t+j}),   j = 0 .. D               D = horizon - 1
    fetch      one causal self-attention over that window, added to h_t
    loss       next token + weight * CE(fetch_{t,j}, x_{t+1+j}),   mean over t and j = 1 .. D

The fetch sees gold target tokens, as a sequential module does. Of the prompt it sees only what h_t holds: h_t is a bottleneck.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.objectives.base import HorizonConfig, Spec
from pitfalls.objectives.next_token import NextToken
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class JointMultiTokenConfig(HorizonConfig):
    """The parameters of `JointMultiToken`."""

    gamma: float
    """Factor of the state in the window's inputs. A third party's code has 0.5, which is not confirmed."""
    detach_embeddings: bool
    """Whether the fetch's gradient is kept out of the token embeddings. The source leaves it open."""


class JointMultiToken(NextToken):
    """Next token, with predictions of further tokens through a bottleneck."""

    Config = JointMultiTokenConfig

    def __init__(self, spec: Spec, config: JointMultiTokenConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight, self.gamma, self.detach = config.weight, config.gamma, config.detach_embeddings
        self.fetch = nn.MultiheadAttention(spec.width, 1, bias=False, batch_first=True)

    def auxiliary(
        self, trunk: Trunk, hidden: Hidden, batch: Batch, *, step: int, generator: torch.Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted mean cross-entropy over all pairs of a state and a token after the next one."""
        tokens = torch.cat([batch.prompt[:, -1:], batch.target], 1)  # x_t of answer state 0 is the =
        states, size = hidden.normed[:, :-1], self.horizon  # the last state has no token after the next one
        # place[t, j] = t + j: the token that slot j of window t reads, and also the target that it predicts,
        # because ``tokens`` is the target moved by one
        place = torch.arange(states.shape[1], device=states.device)[:, None] + torch.arange(size, device=states.device)
        exists = place < batch.target.shape[1]
        place = place.clamp(max=batch.target.shape[1] - 1)
        embeddings = trunk.embed(tokens)
        window = self.gamma * states[:, :, None] + (embeddings.detach() if self.detach else embeddings)[:, place]
        fetched = states[:, :, None] + self._attend(window.flatten(0, 1)).view_as(window)
        scored = exists.clone()
        scored[:, 0] = False  # slot 0 would predict the next token, which the trunk does
        logits = trunk.logits(fetched[:, scored]).float()
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target[:, place[scored]].flatten())
        return {"joint": self.weight * loss}

    def _attend(self, window: Float[Tensor, "N W D"]) -> Float[Tensor, "N W D"]:
        future = torch.ones(self.horizon, self.horizon, dtype=torch.bool, device=window.device).triu(1)
        return self.fetch(window, window, window, attn_mask=future, need_weights=False)[0]
