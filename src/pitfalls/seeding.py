"""Independent random streams, with a name and an index each, from one root seed.

Every random choice of a run is drawn from ``generator(root_seed, stream, index)``. For example, the data of step 17 depends
on (seed, "data", 17) alone. So a resumed run needs no saved generator, evaluation cannot disturb training, and a new use of
randomness changes no other stream.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Literal

import torch

Stream = Literal["init", "data", "test", "order", "objective", "objective_init", "decode", "probe", "file"]
"""Names of the streams.

In this order: initial weights of trunks, training graphs, test graphs, order of a fixed set, draws of objectives, their
initial weights, sampled answers, probes, datasets in files."""


def derive_seed(root_seed: int, stream: str, index: int = 0) -> int:
    """Return a 63-bit seed for one element of a named stream. Equal arguments give equal seeds on every machine."""
    digest = hashlib.sha256(f"{root_seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(root_seed: int, stream: Stream, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator for element ``index`` of ``stream``."""
    return torch.Generator(device=device).manual_seed(derive_seed(root_seed, stream, index))


@contextlib.contextmanager
def forked_rng(device: torch.device | str = "cpu", seed: int | None = None) -> Iterator[None]:
    """Let code draw from torch's global generators of the CPU and of ``device``, and restore their states afterwards.

    `torch.random.fork_rng` without a list of devices initialises every GPU of the machine, and warns if there are several.

    Args:
        device: the device on which the code draws, besides the CPU.
        seed: the seed of both generators. By default they continue from their current states.
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
