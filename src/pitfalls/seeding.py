"""One root seed gives independent, named, indexed random streams.

Every random choice of a run is drawn from ``generator(root_seed, stream, index)``: the data of step 17 depends on
(seed, "data", 17) alone. So a resumed run needs no saved generator, evaluation cannot disturb training, and adding a
consumer of randomness shifts no other stream.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Literal

import torch

Stream = Literal["init", "data", "test", "order", "objective", "objective_init", "decode", "probe", "file"]


def derive_seed(root_seed: int, stream: str, index: int = 0) -> int:
    """A 63-bit seed for one element of a named stream; equal arguments give equal seeds on every machine."""
    digest = hashlib.sha256(f"{root_seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(root_seed: int, stream: Stream, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for element ``index`` of ``stream`` (see the module's text)."""
    return torch.Generator(device=device).manual_seed(derive_seed(root_seed, stream, index))


@contextlib.contextmanager
def forked_rng(device: torch.device | str = "cpu", seed: int | None = None) -> Iterator[None]:
    """Within the context, code may draw from the global generators of the CPU and of ``device``; then they are as before.

    `torch.random.fork_rng` without a list of devices initialises every GPU of the machine, and warns if there are several.

    Args:
        device: where the code draws, besides the CPU.
        seed: seeds both generators at the start; by default they go on from where they are.
    """
    device = torch.device(device)
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(gpus, device_type="cuda"):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        if seed is not None and gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
