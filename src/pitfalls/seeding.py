"""One root seed gives independent, named, indexed random streams.

Every random choice of a run is drawn from ``generator(root_seed, stream, index)``: the data of step 17 depends on
(seed, "data", 17) alone. So a resumed run needs no saved generator, evaluation cannot disturb training, and adding a
consumer of randomness shifts no other stream.
"""

import hashlib
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
