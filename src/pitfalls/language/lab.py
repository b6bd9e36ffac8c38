"""The degeneration lab as parts that are kept as they end: a lab that was stopped goes on with the part it was in."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import PreTrainedModel

from pitfalls.language import context, induction_heads, loops, reinforcement, repetition_probe, rules
from pitfalls.language.generation import end_tokens, n_positions
from pitfalls.language.settings import LabPlan, beginning, natural_texts, prompt_tokens
from pitfalls.runs.files import decode, read_bytes, write_bytes
from pitfalls.schemas import ConfigError

PARTS, WEIGHTS = "parts", "weights.txt"
SIGNIFICANT = 6
"""Digits that a part keeps."""
MAX_PART_BYTES = 2**27


@dataclass
class Lab:
    """One model in one lab."""

    lm: PreTrainedModel
    """In eval mode and fp32."""
    tokenizer: Any
    plan: LabPlan
    folder: Path
    """Where the parts are kept."""
    log: Callable[[str], None] = print
    parts: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """That all parts took, in however many goes."""

    def run(self) -> dict[str, Any]:
        """All parts by name, measured or read back.

        Raises:
            ConfigError: the model reads too few tokens.
        """
        prompts = [prompt_tokens(self.tokenizer, prompt) for prompt in self.plan.prompts]
        self.check(prompts)
        (self.folder / PARTS).mkdir(parents=True, exist_ok=True)
        self._identify()
        steps = list(self._steps(prompts))
        for i, (name, measure) in enumerate(steps):
            if name not in self.parts:
                self.parts[name] = self._kept(name, measure, f"{i + 1:>3} of {len(steps)}")
        return self.parts

    def _identify(self) -> None:
        """Raises ConfigError: the parts that are kept there are of other weights."""
        path, mine = self.folder / WEIGHTS, weights_digest(self.lm)
        kept = read_bytes(path).decode().strip() if path.exists() else mine
        if kept != mine:
            raise ConfigError(f"{self.folder}: what is kept there was measured on other weights ({kept}, not {mine}); delete it")
        write_bytes(path, f"{mine}\n".encode())

    def check(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raises ConfigError: prompt and text together are longer than the model reads, or it has no such tokens."""
        settings, longest = self.plan.settings, n_positions(self.lm)
        most_new = max(settings.loop_tokens + settings.escape_tokens, settings.rule_tokens, settings.map_tokens)
        most = max(max(map(len, prompts)) + most_new, self._natural_length())
        if longest is not None and most > longest:
            i = max(range(len(prompts)), key=lambda i: len(prompts[i]))
            raise ConfigError(
                f"{type(self.lm).__name__} reads {longest} tokens, and the lab needs {most}: the prompt "
                f"{self.plan.prompts[i].name!r} has {len(prompts[i])}, {most_new} are written after it, and texts have "
                f"{self._natural_length()}; shorten these in conf/degeneration/"
            )
        most_id = max(map(max, prompts))
        size = self.lm.get_input_embeddings().weight.shape[0]
        if most_id >= size:
            raise ConfigError(f"the tokenizer gives token {most_id:,} and the model knows {size:,}; they do not belong together")

    def _natural_length(self) -> int:
        settings = self.plan.settings
        return max(settings.tail_tokens, max(settings.context_lengths) + context.N_TARGETS * settings.windows_per_text)

    def _kept(self, name: str, measure: Callable[[], Any], place: str) -> Any:
        path = self.folder / PARTS / f"{name.replace('/', '--')}.json"
        if path.exists():
            part = decode(read_bytes(path, limit=MAX_PART_BYTES), dict, path)
        else:
            self.log(f"{place}: {name}")
            started = time.monotonic()
            part = {"data": rounded(measure()), "seconds": round(time.monotonic() - started, 2)}
            write_bytes(path, json.dumps(part, allow_nan=False, separators=(",", ":")).encode())
        self.seconds += part["seconds"]
        return part["data"]

    def _steps(self, prompts: list[list[int]]) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Every part with what measures it, in an order in which each finds what it needs in ``self.parts``."""
        lm, plan, parts = self.lm, self.plan, self.parts
        endings = ("ban", "ignore") if end_tokens(lm) else ("ignore",)
        if not end_tokens(lm):
            self.log(f"{type(lm).__name__} has no end-of-text token: nothing is banned, and what asks for one is left out")
        texts = natural_texts(self.tokenizer, plan.settings.topics, self._natural_length())
        for end in endings:
            yield f"loops/{end}", partial(loops.written, lm, plan, prompts, end)
        main = f"loops/{endings[0]}"
        yield from reinforcement.steps(lm, self.tokenizer, plan)
        yield from rules.steps(lm, plan, prompts, lambda: parts[main], endings[0])
        start = beginning(self.tokenizer)
        yield from context.steps(lm, plan, start, texts, lambda: parts[main])
        yield from repetition_probe.steps(lm, plan, prompts, lambda: parts[main], endings[0])
        if induction_heads.has_heads(lm):
            yield from induction_heads.Ablation(lm, plan, prompts, texts, start, lambda: parts[main], endings[0]).steps()
        else:
            self.log(f"{type(lm).__name__} has no attention that can be observed: the part on heads is left out")


def weights_digest(lm: PreTrainedModel) -> str:
    """Twelve hex digits of all weights."""
    digest = hashlib.sha256()
    for name, weight in sorted(lm.named_parameters()):
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def describe(lm: PreTrainedModel, plan: LabPlan) -> dict[str, Any]:
    """What the numbers depend on besides the code."""
    return {
        "model": {
            "class": type(lm).__name__,
            "parameters": sum(p.numel() for p in lm.parameters()),
            "precision": str(next(lm.parameters()).dtype).removeprefix("torch."),
            "end_tokens": end_tokens(lm),
            "weights": weights_digest(lm),
        },
        "plan": plan.digest(),
        "settings": msgspec.structs.asdict(plan.settings),
    }


def rounded(data: Any) -> Any:
    """Plain data with ``SIGNIFICANT`` digits."""
    if isinstance(data, dict):
        return {name: rounded(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [rounded(value) for value in data]
    if isinstance(data, float):
        if not math.isfinite(data):
            raise FloatingPointError(f"{data} where a number was measured")
        return float(f"{data:.{SIGNIFICANT}g}")
    return data
