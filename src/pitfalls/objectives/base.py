"""The interface between an objective and everything else.

The index algebra is written once, here. The hidden state at prompt position P-1 (the ``=``) predicts target[0], the state
after it predicts target[1], and so on. `answer_states` cuts these states out. No objective shifts, rolls or pads.
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
from pitfalls.tasks.path_star import PathStar
from pitfalls.tasks.vocabulary import Vocabulary


@dataclass(frozen=True)
class Spec:
    """Everything that an objective knows before it sees data."""

    vocabulary: Vocabulary
    prompt_length: int
    """Number of tokens P of the prompt."""
    target_length: int
    """Number of tokens L of the target."""
    width: int
    """Width D of the trunk's hidden states."""
    new_block: Callable[[torch.Generator], nn.Module]
    """A function that makes one more causal block, [B,T,D] -> [B,T,D].

    The block is like the trunk's own if the trunk is a GPT-2 from scratch. Otherwise it is a GPT-2 block of the trunk's width.
    A block called with ``first`` returns the positions from ``first`` on.
    """
    new_encoder: Callable[[torch.Generator], Trunk]
    """A function that makes one more trunk of the same kind. It reads embeddings and has no token embeddings of its own."""


@dataclass
class Loss:
    """A loss to minimise, and its terms by name for the log."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]] = field(default_factory=dict)


@dataclass(kw_only=True)
class HorizonConfig(ObjectiveConfig):
    """The parameters of next token plus a weighted loss on the tokens up to a horizon."""

    horizon: int | None
    """Number of tokens that a state predicts, the next one included. Null means the whole target."""
    weight: float
    """Weight of the added loss. The formula at the top of the objective's file shows which loss that is."""

    def __post_init__(self) -> None:
        check_range("objective.horizon", self.horizon, 2)
        check_range("objective.weight", self.weight, 0)


class Objective(nn.Module):
    """A training objective. As a module it has only the parameters that it adds to the trunk's. It holds no trunk.

    Subclasses define `loss`, `decoders`, and the methods that these decoders call (such as `step_logits`, `parallel_logits`).
    """

    Config: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    """The dataclass of its parameters. Their ranges are checked before any compute."""

    decoders: tuple[str, ...] = ()
    """Names of the decoding procedures that fit (`pitfalls.evaluation.decoding`). The first is the method's own inference."""

    needs: tuple[str, ...] = ()
    """Inputs for the trunk that a recurrent trunk cannot take: masks, positions."""

    def __init__(self, spec: Spec, config: ObjectiveConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.horizon = self.horizon_for(config, spec.target_length)

    @classmethod
    def check(cls, config: ObjectiveConfig, task: PathStar) -> None:
        """Raise an error if a config does not fit a task. The base class accepts every config.

        This is called before any compute, by `pitfalls.objectives.check_objective`, which has checked the horizon by itself.

        Args:
            config: an instance of this objective's ``Config``.
            task: the task to train on.

        Raises:
            ConfigError: it does not fit. The message names key, value and remedy.
        """

    @classmethod
    def horizon_for(cls, config: ObjectiveConfig, target_length: int) -> int:
        """Return the number of target tokens that a state is trained to predict, the next one included.

        Args:
            config: an instance of this objective's ``Config``.
            target_length: tokens L of the target. A longer horizon is refused before any compute.
        """
        if not isinstance(config, HorizonConfig):
            return 1
        return target_length if config.horizon is None else config.horizon

    # ------------------------------------------------------------------ relabelling

    def view(self, batch: Batch) -> Batch:
        """Return the batch with its targets as this objective writes them, [B,W]. The prompts stay.

        By default that is the target itself, from the start to the goal, so that W = L.
        """
        return batch

    def unview(self, tokens: Int[Tensor, "B W"]) -> Int[Tensor, "B L"]:
        """Return answers in canonical order, start .. goal: the inverse of `view`.

        It takes L of the W columns, the same ones for every row.
        """
        return tokens

    def written_length(self, target_length: int) -> int:
        """Return the number W of tokens that `view` makes of a target of L tokens: by default L. It is never below L."""
        return target_length

    def places(self, target_length: int) -> tuple[int, ...]:
        """Return the written place of each canonical target position, L numbers. No subclass overrides it."""
        device = next((own.device for own in (*self.parameters(), *self.buffers())), None)
        columns = torch.arange(self.written_length(target_length), device=device)[None]
        return tuple(self.unview(columns)[0].tolist())

    def check_view(self, batch: Batch) -> None:
        """Raise an error if `view`, `unview` and `written_length` do not go together. The trainer calls this before step 0.

        Args:
            batch: a few rows in canonical order.

        Raises:
            ConfigError: they do not. The message names the objective and the mistake.
        """
        name, length = type(self).__name__, batch.target.shape[1]
        written, longest = self.written_length(length), 3 * length + 8
        viewed = self.view(batch)
        if not isinstance(viewed, Batch):
            raise ConfigError(f"{name}.view returns {type(viewed).__name__}, not a Batch; return batch._replace(target=...)")
        if not length <= written <= longest:
            raise ConfigError(
                f"{name}.written_length={written}: a view is no shorter than the path, L = {length}, and no longer than "
                f"3L+8 = {longest}, for which a trunk has room"
            )
        if not torch.equal(viewed.prompt, batch.prompt):
            raise ConfigError(f"{name}.view changes the prompt, and answers are read from the prompt as it is; keep it")
        if tuple(viewed.target.shape) != (len(batch.target), written):
            raise ConfigError(
                f"{name}.view returns a target of shape {list(viewed.target.shape)}, not [{len(batch.target)}, {written}]: "
                f"keep L = {length}, or return the new length from written_length"
            )
        places = self.places(length)
        if len(places) != length or not set(places) <= set(range(written)):
            raise ConfigError(
                f"{name}.unview takes the columns {list(places)} of {written}: it must take {length}, the same in every row"
            )
        answers = self.unview(viewed.target)
        wrong = ((answers != batch.target) | (viewed.target[:, places] != batch.target)).any(1).nonzero()[:, 0].tolist()
        if wrong:
            target, shown, answer = (rows[wrong[0]].tolist() for rows in (batch.target, viewed.target, answers))
            raise ConfigError(
                f"{name}.unview does not undo view: {target} is viewed as {shown} and comes back as {answer}; "
                "view moves or adds tokens, in the same way in every row, and changes none"
            )

    def supervised(self) -> tuple[int, ...]:
        """Return the canonical target positions at which an answer of this method means something: by default all."""
        return tuple(range(self.spec.target_length))

    # ------------------------------------------------------------------ training

    def training_loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the loss of a batch in canonical order. The trainer calls this method.

        Args:
            trunk: the model.
            batch: B rows.
            step: optimizer steps taken so far, for objectives that follow a schedule.
            generator: the objective's random stream for this step.
        """
        viewed = self.view(batch)
        if viewed.prompt is not batch.prompt:  # changed or reordered rows may no longer begin with the same edges
            viewed = viewed._replace(shared=None)
        return self.loss(trunk, viewed, step=step, generator=generator)

    def loss(self, trunk: Trunk, batch: Batch, *, step: int, generator: torch.Generator) -> Loss:
        """Return the loss of a batch after `view`: a mean over its rows, or over draws from them.

        Args:
            trunk: the model.
            batch: B rows that `view` was applied to.
            step: optimizer steps taken so far.
            generator: the objective's random stream for this step.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    # ------------------------------------------------------------------ inference

    def step_logits(self, trunk: Trunk, tokens: Int[Tensor, "B T"], cache: Any) -> Float[Tensor, "B V"]:
        """Return the logits of the next target token after ``tokens``.

        Args:
            trunk: the model.
            tokens: the tokens that the cache does not hold yet: first the prompt, then one token at a time. Without a
                cache, the whole sequence so far.
            cache: a cache of the trunk, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} does not decode one token at a time; it has {self.decoders}")

    def parallel_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], length: int) -> Float[Tensor, "B L V"]:
        """Return the logits of all ``length`` target tokens from one pass over the prompt."""
        raise NotImplementedError(f"{type(self).__name__} does not decode in one pass; it has {self.decoders}")

    def draft_logits(self, trunk: Trunk, hidden: Hidden) -> Float[Tensor, "B k V"]:
        """Return the logits of the next k target tokens, read from the last state of the sequence so far."""
        raise NotImplementedError(f"{type(self).__name__} does not draft several tokens; it has {self.decoders}")

    def infill_logits(self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """Return the logits of every target token, given the target tokens that are not ``<mask>``."""
        raise NotImplementedError(f"{type(self).__name__} does not fill in masked tokens; it has {self.decoders}")

    def slot_logits(
        self, trunk: Trunk, prompt: Int[Tensor, "B P"], tokens: Int[Tensor, "B n"], slots: Int[Tensor, "B m"]
    ) -> Float[Tensor, "B V"]:
        """Return the logits of the target token of the last slot, given the tokens of the n = m-1 slots before it."""
        raise NotImplementedError(f"{type(self).__name__} does not write in any order; it has {self.decoders}")

    def forced_logits(self, trunk: Trunk, batch: Batch) -> Float[Tensor, "B L V"] | None:
        """Return the logits under teacher forcing. Row i depends on target[:, :i] of the viewed batch only.

        The result is None if the method has no such predictions.
        """
        return None


def answer_states(states: Float[Tensor, "B T D"], batch: Batch) -> Float[Tensor, "B L D"]:
    """Return the states that predict the target: positions P-1 .. P+L-2 of a sequence that begins with the prompt."""
    first = batch.prompt.shape[1] - 1
    return states[:, first : first + batch.target.shape[1]]


def cross_entropy(logits: Float[Tensor, "B L V"], target: Int[Tensor, "B L"]) -> Float[Tensor, ""]:
    """Return the mean negative log-likelihood in nats over rows and positions, computed in fp32."""
    return F.cross_entropy(logits.flatten(0, 1).float(), target.flatten())


def ahead(length: int, device: torch.device) -> Int[Tensor, "L L"]:
    """Return how far target tokens are ahead of answer states, in tokens.

    Entry [i, j] is 0 if answer state i predicts target[j] next, 1 for the token after that one, and negative for tokens
    that state i has already read.
    """
    place = torch.arange(length, device=device)
    return place[None] - place[:, None]
