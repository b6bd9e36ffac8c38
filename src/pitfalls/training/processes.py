"""Several processes that train one run, started by ``torchrun``: gloo on the CPU, NCCL on GPUs.

The unit of work is the micro-batch. A batch has ``training.accumulation`` of them. Every process takes an equal number, and the
gradients are summed. A micro-batch is the same on every process, and so are its random draws. A run therefore keeps its
identity, its folder and its checkpoints with any number of processes. Gradients are summed once per step, after the backward pass
and not during it, because models of this size send only megabytes.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from pitfalls.schemas import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from torch import Tensor

WAIT = timedelta(hours=2)
"""Longest time that the other processes wait for the first one, which evaluates alone."""


@dataclass(frozen=True)
class Processes:
    """The processes that train a run, seen from one of them."""

    rank: int
    """Number of this process, from 0."""
    n: int
    """Number of processes."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that evaluates, logs and saves."""
        return self.rank == 0

    def check_share(self, n_micro_batches: int) -> None:
        """Raise an error if a batch cannot be shared evenly.

        Raises:
            ConfigError: ``training.accumulation`` is not a multiple of the number of processes.
        """
        if n_micro_batches % self.n:
            raise ConfigError(
                f"training.accumulation={n_micro_batches}: {self.n} processes share the micro-batches of a batch, so set it to a "
                f"multiple of {self.n}"
            )

    def share(self, n_micro_batches: int) -> range:
        """Return the indices of the micro-batches that this process computes."""
        n = n_micro_batches // self.n
        return range(self.rank * n, (self.rank + 1) * n)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return each value summed over all processes."""
        return self._reduced(values) if self.n > 1 else list(values)

    def any(self, value: bool) -> bool:
        """Return whether the value is true on any process."""
        return self.sum([float(value)])[0] > 0

    def of_first(self, values: Sequence[float]) -> list[float]:
        """Return the values of the first process."""
        return self.sum(list(values) if self.is_first else [0.0] * len(values))

    def sum_gradients(self, parameters: "Sequence[Tensor]") -> None:
        """Replace every gradient by its sum over all processes.

        A parameter may have a gradient on some processes only, for example if few micro-batches use it. On the others its
        gradient counts as zero. A parameter without a gradient on any process keeps none.
        """
        if self.n == 1:
            return
        import torch

        # Every process sends every parameter, so that the sums line up, and a flag for each that has a gradient.
        has_gradient = torch.tensor([p.grad is not None for p in parameters])
        sent = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in parameters]
        flat = torch.cat([*sent, has_gradient.to(sent[0])])
        torch.distributed.all_reduce(flat)
        *sums, n_gradients = flat.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, total, anywhere in zip(parameters, sums, n_gradients.tolist(), strict=True):
            if not anywhere:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(total.view_as(parameter))

    def _reduced(self, values: Sequence[float]) -> list[float]:
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]


ALONE = Processes(0, 1)
"""The process of a run that only one process trains."""


def from_environment() -> Processes:
    """Return the place of this process among those that ``torchrun`` started, or `ALONE` without torchrun."""
    return Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Yield the processes that ``torchrun`` started. They are connected while the context lasts."""
    processes = from_environment()
    if processes.n == 1:
        yield processes
        return
    import torch

    if device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=WAIT)
    try:
        yield processes
    finally:
        torch.distributed.destroy_process_group()
