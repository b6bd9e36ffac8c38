"""MuToR, multi-token prediction with registers (Gerontopoulos et al. 2025, arXiv 2505.10518; star graph: appendix A.3).

    input   prompt, target[:-1], and a register for each target token j that has a token o places after it
            (the offset o is drawn once per micro-batch from 1 .. horizon-1)
    loss    (1 - weight) * next token + weight * CE(register_j, target[j+o])

Register j sees the prompt, target[:j] and itself. No other token sees a register. Its position is that of the state which will
predict target[j+o]. Offset 0 would teach the registers the cheat. It is left out, as in the source's star-graph setting. The
source interleaves registers and tokens. Here the registers follow the target: with masks and positions given, the order changes
nothing. Registers are dropped at test time.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import HorizonConfig, Loss, Spec, cross_entropy
from pitfalls.objectives.next_token import NextToken
from pitfalls.schemas import ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch


@dataclass(kw_only=True)
class MuToRConfig(HorizonConfig):
    """The parameters of `MuToR`. The horizon is the source's d_max, and the weight its a. Next token has the weight 1 - a."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("objective.weight", self.weight, 0, 1)


class MuToR(NextToken):
    """Next token, with registers that predict tokens further ahead."""

    Config = MuToRConfig
    needs = ("masks", "positions")

    def __init__(self, spec: Spec, config: MuToRConfig, generator: torch.Generator) -> None:
        super().__init__(spec, config, generator)
        self.weight = config.weight

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return d_max, or L if the target is shorter: it is then predicted as a whole, as in the source."""
        assert isinstance(config, MuToRConfig)
        return target_length if config.horizon is None else min(config.horizon, target_length)

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return both weighted cross-entropies, computed in one pass."""
        offset = int(torch.randint(1, self.horizon, (), generator=generator, device=batch.target.device))
        n_read = batch.prompt.shape[1] + batch.target.shape[1] - 1
        n_registers = batch.target.shape[1] - offset
        registers = batch.target.new_full((len(batch.target), n_registers), self.spec.vocabulary.id("<reg>"))
        place = torch.arange(n_read, device=batch.target.device)
        first = batch.prompt.shape[1] - 1
        positions = torch.cat([place, first + offset + torch.arange(n_registers, device=place.device)])
        hidden = trunk(
            torch.cat([batch.prompt, batch.target[:, :-1], registers], 1),
            positions=positions[None],
            mask=self._mask(batch, n_read, n_registers)[None],
            first=first,
            shared=batch.shared,
        )
        answer, ahead = hidden.normed.split([batch.target.shape[1], n_registers], dim=1)
        next_token = cross_entropy(trunk.logits(answer), batch.target)
        register = cross_entropy(trunk.logits(ahead), batch.target[:, offset:])
        parts = {"next_token": (1 - self.weight) * next_token, "register": self.weight * register}
        return Loss(torch.stack(list(parts.values())).sum(), parts)

    @staticmethod
    def _mask(batch: Batch, n_read: int, n_registers: int) -> Bool[Tensor, "T T"]:
        """Return the mask. Prompt and target are causal. Register j sees the prompt, target[:j] and itself."""
        n_prompt = batch.prompt.shape[1]
        mask = torch.ones(n_read + n_registers, n_read + n_registers, dtype=torch.bool, device=batch.prompt.device).tril()
        j = torch.arange(n_registers, device=batch.prompt.device)
        # the last rows and columns are the registers': what they see of the sequence, and of each other
        mask[n_read:, :n_read] = torch.arange(n_read, device=batch.prompt.device) < n_prompt + j[:, None]
        mask[n_read:, n_read:] = torch.eye(n_registers, dtype=torch.bool, device=batch.prompt.device)
        return mask
