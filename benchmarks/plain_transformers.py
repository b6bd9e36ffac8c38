"""The reference that everyone has: a plain transformers GPT-2 in its usual loop, fp32, samples one by one from a `DataLoader`.

Labels are -100 on the prompt; transformers shifts them. Sizes, batch, optimizer and clipping are ours. It is timed twice: `steps`
in this process and with the settings of our runs (exact GELU, freed memory kept), so that what differs is the loop and the
model's code; and `steps_as_it_comes` in a process of its own, with transformers' default activation.

    python -m benchmarks.plain_transformers ATTENTION N_STEPS OVERRIDE... # prints samples per second
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.new_process import run_python
from benchmarks.timing import Measure, per_second
from pitfalls.experiment.build import Run, build
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models.gpt2 import gpt2_config
from pitfalls.schemas import GPT2ModelConfig
from pitfalls.seeding import generator

IGNORED = -100
ATTENTIONS = ("eager", "sdpa")


class Samples(Dataset[dict[str, Tensor]]):
    """A list of graphs, each a sequence with its labels."""

    def __init__(self, tokens: Tensor, n_prompt: int) -> None:
        self.tokens, self.n_prompt = tokens, n_prompt

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        labels = self.tokens[i].clone()
        labels[: self.n_prompt] = IGNORED
        return {"input_ids": self.tokens[i], "labels": labels}


def samples(cell: Run, n: int) -> Samples:
    """``n`` graphs of the cell's task."""
    batch = cell.task.sample(n, generator(0, "probe"))
    return Samples(torch.cat([batch.prompt, batch.target], 1), batch.prompt.shape[1])


def build_plain(cell: Run, attention: str, activation: str | None = None) -> Any:
    """A GPT-2 of transformers, of the sizes of a cell's trunk, with its own attention (``eager`` or ``sdpa``)."""
    model = cell.config.model
    assert isinstance(model, GPT2ModelConfig)
    sizes = gpt2_config(model, cell.task.vocabulary.size, cell.trunk.lm.config.n_positions, attention)
    sizes.activation_function = activation or sizes.activation_function
    lm = GPT2LMHeadModel(sizes)
    lm.loss_type = "ForCausalLM"  # what it takes anyhow, after a warning
    return lm


def steps(cell: Run, attention: str, n_steps: int, activation: str | None = None) -> Measure:
    """Samples per second of ``n_steps`` whole steps; the first of each round is left out."""

    def measured() -> list[float]:
        training = cell.config.training
        lm = build_plain(cell, attention, activation).train().to(training.device)
        optimizer = torch.optim.AdamW(lm.parameters(), lr=training.lr, weight_decay=training.weight_decay)
        batches = iter(DataLoader(samples(cell, training.batch_size * n_steps), training.batch_size, shuffle=True))

        def step() -> None:
            loss = lm(**{name: x.to(training.device) for name, x in next(batches).items()}).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(lm.parameters(), training.max_grad_norm or torch.inf)
            optimizer.step()
            optimizer.zero_grad()
            loss.item()

        rates = [per_second(training.batch_size, step) for _ in range(n_steps)]
        return rates[1:] or rates

    return measured


def steps_as_it_comes(overrides: Sequence[str], attention: str, n_steps: int) -> Measure:
    """The same in a new process, as a script of its own would run it."""
    arguments = ["-m", __name__, attention, str(n_steps), *overrides]
    return lambda: [float(rate) for rate in json.loads(run_python(arguments).splitlines()[-1])]


def main() -> None:
    """Time what the command line says."""
    attention, n_steps, *overrides = sys.argv[1:]
    cell = build(resolve(compose(overrides)))
    print(json.dumps(steps(cell, attention, int(n_steps), GPT2Config().activation_function)()))


if __name__ == "__main__":
    main()
