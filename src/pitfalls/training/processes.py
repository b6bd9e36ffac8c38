"""Several processes that train one run, started by ``torchrun``: gloo on the CPU, NCCL on GPUs.

The unit of work is the micro-batch: a batch has ``training.accumulation`` of them, every process takes an equal part, and their
gradients are summed. Which process computes a micro-batch changes nothing in it, its random draws included, so a run keeps its
identity, its folder and its checkpoints with any number of processes. Gradients go in one sum per step after the backward, not
overlapped with it: models of this size send megabytes.
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
"""For the first process while it evaluates."""


@dataclass(frozen=True)
class Processes:
    """Which of how many processes this one is."""

    rank: int
    n: int

    @property
    def is_first(self) -> bool:
        """Whether this one writes what a run leaves behind."""
        return self.rank == 0

    def check_share(self, n_micro_batches: int) -> None:
        """Refuse a batch that cannot be shared evenly.

        Raises:
            ConfigError: names what to set.
        """
        if n_micro_batches % self.n:
            raise ConfigError(
                f"training.accumulation={n_micro_batches}: {self.n} processes share the micro-batches of a batch, so set it to a "
                f"multiple of {self.n}"
            )

    def share(self, n_micro_batches: int) -> range:
        """The micro-batches of this process."""
        n = n_micro_batches // self.n
        return range(self.rank * n, (self.rank + 1) * n)

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        return self._reduced(values) if self.n > 1 else list(values)

    def any(self, value: bool) -> bool:
        """Whether it holds on any process."""
        return self.sum([float(value)])[0] > 0

    def of_first(self, values: Sequence[float]) -> list[float]:
        """The values of the first process."""
        return self.sum(list(values) if self.is_first else [0.0] * len(values))

    def sum_gradients(self, parameters: "Sequence[Tensor]") -> None:
        """Replace every gradient by its sum over all processes.

        A parameter may have a gradient on some of them only, for example one of a part that few micro-batches use. It counts as
        zero on the others. A parameter without a gradient on any process keeps none.
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
            if anywhere and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            if anywhere:
                parameter.grad.copy_(total.view_as(parameter))

    def _reduced(self, values: Sequence[float]) -> list[float]:
        import torch

        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]


ALONE = Processes(0, 1)


def from_environment() -> Processes:
    """What ``torchrun`` says about this process; one alone without it."""
    return Processes(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """This process among those that ``torchrun`` started, connected while the context lasts."""
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
