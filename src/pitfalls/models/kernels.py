"""Which function computes Mamba's convolution and recurrence: decided per call, by where the tensor is.

transformers (>= 5.15) binds these functions once, at import, to mamba_ssm's kernels if that package can be imported,
whatever device the tensors are on: with it installed, no Mamba runs on a CPU. After `install`, tensors on a GPU go to the
kernels that transformers found, and all others to torch functions, ours where we have a faster one.
"""

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from transformers.models.mamba import modeling_mamba
from transformers.models.mamba2 import modeling_mamba2

from pitfalls.models.cpu.causal_conv import causal_conv1d
from pitfalls.models.cpu.chunk_scan import chunk_scan
from pitfalls.models.cpu.selective_scan import selective_scan

DISPATCHED: dict[ModuleType, tuple[str, ...]] = {
    modeling_mamba: (
        "causal_conv1d_fn",
        "causal_conv1d_update",
        "mamba_inner_fn",
        "mamba_selective_scan",
        "mamba_selective_state_update",
    ),
    modeling_mamba2: (
        "causal_conv1d_fn",
        "causal_conv1d_update",
        "mamba2_split_conv1d_scan_combined",
        "mamba2_chunk_scan",
        "mamba2_selective_state_update",
    ),
}
"""The functions that transformers' mixers call, by module. Private names: a test holds them to the installed version."""

OURS: dict[str, Callable[..., Any]] = {
    "causal_conv1d_fn": causal_conv1d,
    "mamba_selective_scan": selective_scan,
    "mamba2_chunk_scan": chunk_scan,
}
"""Our functions for tensors that are not on a GPU."""

EXTENSIONS = ("selective_scan_cuda", "causal_conv1d_cuda")
"""The compiled parts of mamba-ssm and causal-conv1d; without them the packages import, or not, but compute nothing."""


def install() -> None:
    """Let every kernel function of transformers' Mambas choose by device. Doing it again changes nothing."""
    for module, names in DISPATCHED.items():
        for name in names:
            bound = getattr(module, name)
            if not isinstance(bound, ByDevice):
                setattr(module, name, ByDevice(bound, OURS.get(name, inspect.unwrap(bound))))


class ByDevice:
    """A function that calls ``on_gpu`` if its first argument is on a GPU, else ``elsewhere``."""

    def __init__(self, on_gpu: Callable[..., Any], elsewhere: Callable[..., Any]) -> None:
        self.on_gpu, self.elsewhere = on_gpu, elsewhere

    def __call__(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Dispatch."""
        return (self.on_gpu if x.is_cuda else self.elsewhere)(x, *args, **kwargs)


def require_gpu_kernels() -> None:
    """Make sure that a Mamba on a GPU will run on mamba-ssm's kernels, not on transformers' loop hundreds of times slower.

    Raises:
        ValueError: a compiled part cannot be imported.
    """
    for extension in EXTENSIONS:
        try:
            importlib.import_module(extension)
        except ImportError as error:
            raise ValueError(
                f"training.device=cuda: a Mamba needs mamba-ssm with its compiled kernels, and {extension} cannot be "
                f"imported ({error}); install the extra [cuda] (README, GPU) or use training.device=cpu"
            ) from None
