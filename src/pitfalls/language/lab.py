"""The degeneration lab. It is measured in parts, and each part is saved at once, so that a stopped lab can continue."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import torch
from transformers import PreTrainedModel

from pitfalls.language import context_length, induction_heads, repetition_probe, rules_and_loops, self_reinforcement
from pitfalls.language.generation import end_tokens, n_positions
from pitfalls.language.lab_parts import Ending, GreedyTexts, Parts, Step, part_file
from pitfalls.language.lab_record import LabModel, LabOrigin, LabSource
from pitfalls.language.lab_settings import LabPlan, beginning, natural_texts, prompt_tokens
from pitfalls.language.writing import greedy_texts
from pitfalls.runs.files import decode, read_bytes, write_bytes
from pitfalls.schemas import ConfigError, PitfallsError

T = TypeVar("T")
PARTS, WEIGHTS = "parts", "weights.txt"
SIGNIFICANT = 6
"""Number of significant digits of the numbers in a part."""
MAX_PART_BYTES = 2**27


class KeptPart(msgspec.Struct, Generic[T], forbid_unknown_fields=True):
    """The file of a part."""

    data: T
    seconds: float
    """Time of the measurement in seconds."""


@dataclass
class Lab:
    """The measurements of one model, and the folder that keeps them."""

    lm: PreTrainedModel
    """The model, in eval mode and fp32."""
    tokenizer: Any
    plan: LabPlan
    folder: Path
    log: Callable[[str], None] = print
    """Called with one line for each part that is measured."""
    parts: Parts = field(default_factory=Parts)
    seconds: float = 0.0
    """Total time of all parts in seconds, over all starts."""

    def run(self) -> Parts:
        """Return all parts, measured now or read from the folder.

        Raises:
            ConfigError: the model reads too few tokens, or the folder keeps parts of other weights.
        """
        prompts = [prompt_tokens(self.tokenizer, prompt) for prompt in self.plan.prompts]
        self.check(prompts)
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        self._identify()
        steps = list(self._steps(prompts))
        for i, step in enumerate(steps):
            if step.key not in self.parts:
                self.parts[step.key] = self._kept(step, f"{i + 1:>3} of {len(steps)}")
        return self.parts

    def _identify(self) -> None:
        """Write an identifier of the weights. Raise ConfigError if the folder keeps parts of other weights."""
        path, mine = self.folder / WEIGHTS, weights_digest(self.lm)
        kept = read_bytes(path).decode().strip() if path.exists() else mine
        if kept != mine:
            raise ConfigError(f"{self.folder}: its parts were measured on other weights ({kept}, not {mine}); delete this folder")
        write_bytes(path, f"{mine}\n".encode())

    def check(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise ConfigError if prompt and text together are too long for the model, or if it lacks a token."""
        settings, longest = self.plan.settings, n_positions(self.lm)
        most = max(max(map(len, prompts)) + settings.most_new_tokens, settings.prose_tokens)
        if longest is not None and most > longest:
            i = max(range(len(prompts)), key=lambda i: len(prompts[i]))
            raise ConfigError(
                f"{type(self.lm).__name__} reads {longest} tokens, and the lab needs {most}: the prompt "
                f"{self.plan.prompts[i].name!r} has {len(prompts[i])}, {settings.most_new_tokens} are written after it, and "
                f"prose texts have {settings.prose_tokens}; lower these numbers in conf/degeneration/"
            )
        most_id = max(map(max, prompts))
        size = self.lm.get_input_embeddings().weight.shape[0]
        if most_id >= size:
            raise ConfigError(
                f"the tokenizer gives token {most_id:,} and the model knows {size:,}; they do not belong together: "
                f"take the tokenizer of this model"
            )

    def _kept(self, step: Step[T], place: str) -> T:
        """Return the content of a part's file. The part is measured if there is no file yet."""
        path = part_file(self.folder / PARTS, step.key)
        if not path.exists():
            self.log(f"{place}: {step.key}")
            started = time.monotonic()
            data = rounded(msgspec.to_builtins(step.measure()))
            part = {"data": data, "seconds": round(time.monotonic() - started, 2)}
            write_bytes(path, json.dumps(part, allow_nan=False, separators=(",", ":")).encode())
        of_any: Any = KeptPart  # mypy cannot know a type that is made at run time
        kept: KeptPart[T] = decode(read_bytes(path, limit=MAX_PART_BYTES), of_any[step.key.holds], path)
        self.seconds += kept.seconds
        return kept.data

    def _steps(self, prompts: list[list[int]]) -> Iterator[Step[Any]]:
        """Yield every part, in an order in which each finds the earlier parts that it needs in ``self.parts``."""
        lm, plan = self.lm, self.plan
        endings: tuple[Ending, ...] = ("ban", "ignore") if end_tokens(lm) else ("ignore",)
        if not end_tokens(lm):
            self.log(f"{type(lm).__name__} has no end-of-text token: nothing is banned, and what asks for one is left out")
        prose = natural_texts(self.tokenizer, plan.settings.topics, plan.settings.prose_tokens)
        for end in endings:
            yield Step(GreedyTexts(end), partial(greedy_texts, lm, plan, prompts, end))
        start, end = beginning(self.tokenizer), endings[0]

        def greedy() -> Any:
            return self.parts[GreedyTexts(end)]

        yield from self_reinforcement.steps(lm, self.tokenizer, plan)
        yield from rules_and_loops.steps(lm, plan, prompts, greedy, end)
        yield from context_length.steps(lm, plan, start, prose, greedy)
        yield from repetition_probe.steps(lm, plan, prompts, greedy, end)
        if induction_heads.has_heads(lm):
            yield from induction_heads.Ablation(lm, plan, prompts, prose, start, greedy, end).steps()
        else:
            self.log(f"{type(lm).__name__} has no attention that can be observed: the part on heads is left out")


def weights_digest(lm: PreTrainedModel) -> str:
    """Return twelve hex digits that identify all weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(lm.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def origin_of(lab: Lab, source: LabSource, environment: Mapping[str, Any]) -> LabOrigin:
    """Return the origin of a finished lab's numbers: everything that they depend on.

    Args:
        lab: the lab.
        source: the origin of the model.
        environment: commit, versions and hardware (`pitfalls.runs.provenance.environment`).
    """
    lm = lab.lm
    model = LabModel(
        class_name=type(lm).__name__,
        parameters=sum(p.numel() for p in lm.parameters()),
        precision=str(next(lm.parameters()).dtype).removeprefix("torch."),
        end_tokens=end_tokens(lm),
        weights=weights_digest(lm),
    )
    plan, settings = lab.plan.digest(), lab.plan.settings
    return LabOrigin(model=model, plan=plan, settings=settings, source=source, wall_s=lab.seconds, **environment)


def rounded(data: Any) -> Any:
    """Return nested dicts and lists with every float rounded to `SIGNIFICANT` digits.

    Raises:
        PitfallsError: a number is not finite.
    """
    if isinstance(data, dict):
        return {name: rounded(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    if isinstance(data, float):
        if not math.isfinite(data):
            raise PitfallsError(
                f"{data} was measured: the model's logits are not finite; scripts/check_model.py looks for the cause"
            )
        return float(f"{data:.{SIGNIFICANT}g}")
    return data
