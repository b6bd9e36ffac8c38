"""The interface between an objective and everything else.

The index algebra is written here once: the hidden state at prompt position P-1 (the ``=``) predicts target[0], the one
after it target[1], and so on. `answer_states` cuts them out; no objective shifts, rolls or pads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pitfalls.models.trunk import Hidden, Trunk
from pitfalls.schemas import ConfigError, ObjectiveConfig, check_range
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Spec:
    """Everything that an objective may know before it sees data."""

    vocabulary: Vocabulary
    prompt_length: int
    """P, tokens."""
    target_length: int
    """L, tokens."""
    width: int
    """D, of the trunk's hidden states."""
    new_block: Callable[[torch.Generator], nn.Module]
    """One more causal block, [B,T,D] -> [B,T,D]: as the trunk's if that is a GPT-2 from scratch, else a GPT-2 block of its
    sizes. Called with ``first`` it gives the positions from there on."""
    new_encoder: Callable[[torch.Generator], Trunk]
    """One more trunk of the same kind, which takes embeddings and has none of its own."""


@dataclass
class Loss:
    """What the trainer minimises, and its parts by name (for the log)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass(kw_only=True)
class HorizonConfig(ObjectiveConfig):
    """Parameters of next token and a weighted loss on the tokens up to a horizon."""

    horizon: int | None
    """Tokens ahead that a state predicts, the next one included; null: the whole target."""
    weight: float
    """Of what is added to next token; the formula at the top of the objective's file says of what."""

    def __post_init__(self) -> None:
        check_range("objective.horizon", self.horizon, 2)
        check_range("objective.weight", self.weight, 0)


def horizon_of(horizon: int | None, longest: int) -> int:
    """The configured horizon, by default the longest that makes sense.

    Raises:
        ConfigError: it is longer than that.
    """
    if horizon is not None and horizon > longest:
        raise ConfigError(f"objective.horizon={horizon}: at most {longest} for this task.path_length")
    return longest if horizon is None else horizon


class Objective(nn.Module):
    """A training objective. Its parameters are exactly those that it adds to the trunk's; it keeps no trunk.

    Subclasses write `loss`, set `decoders`, and write what those decoders call (`step_logits`, `parallel_logits`).
    """

    Config: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    """Its parameters: a dataclass, checked before any compute."""

    decoders: tuple[str, ...] = ()
    """Procedures of `pitfalls.evaluation.decoding` that fit; the first is the method's own inference."""

    needs: tuple[str, ...] = ()
    """What a recurrent trunk cannot give: masks, positions."""

    def __init__(self, spec: Spec, config: ObjectiveConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.horizon = self.horizon_for(config, spec.target_length)

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """How many target tokens ahead, the next one included, a state is trained to predict; asked before any compute.

        Raises:
            ConfigError: config and task do not go together.
        """
        return horizon_of(config.horizon, target_length) if isinstance(config, HorizonConfig) else 1

    # ------------------------------------------------------------------ relabelling

    def view(self, batch: Batch) -> Batch:
        """The batch as this objective sees it: an invertible relabelling of the target."""
        return batch

    def unview(self, tokens: Int[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """Undo `view` on answers: back to canonical order, start .. goal."""
        return tokens

    def supervised(self) -> tuple[int, ...]:
        """Canonical target positions that an answer of this method means something at; by default all."""
        return tuple(range(self.spec.target_length))

    # ------------------------------------------------------------------ training

    def training_loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """The loss of a batch in canonical order; called by the trainer.

        Args:
            trunk: the model.
            batch: B rows.
            step: optimizer steps taken so far, for objectives that follow a schedule.
            generator: the objective's random stream for this step.
        """
        viewed = self.view(batch)
        if viewed.prompt is not batch.prompt:  # rows that are changed or chosen may begin alike no more
            viewed = viewed._replace(shared=None)
        return self.loss(trunk, viewed, step=step, generator=generator)

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """The loss of a batch that `view` has been applied to: a mean over its rows (or over what is drawn of them)."""
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    # ------------------------------------------------------------------ inference

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Logits of the next target token after ``tokens``.

        Args:
            trunk: the model.
            tokens: what the cache does not hold yet: the prompt first, then one token at a time. Without a cache,
                the whole sequence so far.
            cache: a cache of the trunk, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode one token at a time; it has {self.decoders}")

    def parallel_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], length: int) -> Float[Tensor, "B L V"]:
        """Logits of all ``length`` target tokens from one pass over the prompt."""
        raise NotImplementedError(f"{type(self).__name__} does not decode in one pass; it has {self.decoders}")

    def draft_logits(self, trunk: Trunk, hidden: Hidden) -> Float[Tensor, "B k V"]:
        """Logits of the next k target tokens from the last of the states of a sequence so far."""
        raise NotImplementedError(f"{type(self).__name__} does not draft several tokens; it has {self.decoders}")

    def infill_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Logits of every target token from the target tokens that are not ``<mask>``."""
        raise NotImplementedError(f"{type(self).__name__} does not fill in masked tokens; it has {self.decoders}")

    def slot_logits(
        self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B n"], slots: Int[Tensor, "B m"]
    ) -> Float[Tensor, "B V"]:
        """Logits of the target token of the last slot, given the tokens of the n = m-1 slots before it."""
        raise NotImplementedError(f"{type(self).__name__} does not write in any order; it has {self.decoders}")

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"] | None:
        """Logits under teacher forcing: row i depends on target[:, :i] only (of the viewed batch).

        None where the method has no such reading.
        """
        return None


def answer_states(states: Float[Tensor, "B T D"], batch: Batch) -> Float[Tensor, "B L D"]:
    """The states that predict the target: P-1 .. P+L-2 of a sequence that begins with the prompt."""
    first = batch.prompt.shape[1] - 1
    return states[:, first : first + batch.target.shape[1]]


def cross_entropy(logits: Float[Tensor, "B L V"], target: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Mean negative log-likelihood in nats over rows and positions, computed in fp32."""
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


def ahead(length: int, device: torch.device) -> Int[Tensor, "L L"]:
    """Row i, column j: how many tokens after the one that answer state i predicts next target[j] comes; negative before it."""
    place = torch.arange(length, device=device)
    return place[None] - place[:, None]
