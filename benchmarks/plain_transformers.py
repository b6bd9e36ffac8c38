"""The reference: GPT-2 of transformers in the usual training loop, in fp32, with samples one by one from a `DataLoader`.

Labels are -100 on the prompt, and transformers shifts them. Sizes, batch, optimizer and clipping are those of our run. The
reference is timed in two ways. `steps` runs in this process with our settings (exact GELU, freed memory kept), so that only the
loop and the code of the model differ. `steps_as_it_comes` runs in a new process with the default activation of transformers.

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
from pitfalls.models.gpt2 import gpt2_sizes
from pitfalls.schemas import GPT2ModelConfig
from pitfalls.seeding import generator

IGNORED = -100
ATTENTIONS = ("eager", "sdpa")


class Samples(Dataset[dict[str, Tensor]]):
    """Graphs as a data set. Each graph is a sequence of tokens with its labels."""

    def __init__(self, tokens: Tensor, n_prompt: int) -> None:
        self.tokens, self.n_prompt = tokens, n_prompt

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        labels = self.tokens[i].clone()
        labels[: self.n_prompt] = IGNORED
        return {"input_ids": self.tokens[i], "labels": labels}


def samples(run: Run, n: int) -> Samples:
    """Return ``n`` graphs of the run's task."""
    batch = run.task.sample(n, generator(0, "probe"))
    return Samples(torch.cat([batch.prompt, batch.target], 1), batch.prompt.shape[1])


def build_plain(run: Run, attention: str, activation: str | None = None) -> Any:
    """Return a GPT-2 of transformers with the sizes of a run's trunk.

    Args:
        run: a run with a GPT-2.
        attention: transformers' own, ``eager`` or ``sdpa``.
        activation: an activation other than the run's.
    """
    model = run.config.model
    assert isinstance(model, GPT2ModelConfig)
    sizes = gpt2_sizes(model, run.task.vocabulary.size, run.trunk.lm.config.n_positions)
    sizes |= {"activation_function": activation or model.activation, "attn_implementation": attention}
    lm = GPT2LMHeadModel(GPT2Config(**sizes))
    lm.loss_type = "ForCausalLM"  # the default, set here to avoid a warning
    return lm


def steps(run: Run, attention: str, n_steps: int, activation: str | None = None) -> Measure:
    """Return samples per second of whole training steps, with ``n_steps`` in each round. The first step is left out."""

    def measured() -> list[float]:
        training = run.config.training
        lm = build_plain(run, attention, activation).train().to(training.device)
        optimizer = torch.optim.AdamW(lm.parameters(), lr=training.lr, weight_decay=training.weight_decay)
        batches = iter(DataLoader(samples(run, training.batch_size * n_steps), training.batch_size, shuffle=True))

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
    """Return the same rate from a new process, as a separate script would run it."""
    arguments = ["-m", __name__, attention, str(n_steps), *overrides]
    return lambda: [float(rate) for rate in json.loads(run_python(arguments).splitlines()[-1])]


def main() -> None:
    """Time the steps that the command line describes and print them as JSON."""
    attention, n_steps, *overrides = sys.argv[1:]
    run = build(resolve(compose(overrides)))
    print(json.dumps(steps(run, attention, int(n_steps), GPT2Config().activation_function)()))


if __name__ == "__main__":
    main()
