"""How much memory a device has, so that a model that does not fit is refused before memory is asked for."""

import os

import torch


def memory_bytes(device: torch.device) -> float:
    """Return the memory of a device in bytes: that of the GPU, or that of the machine. Of other devices it is infinite."""
    if device.type == "cuda" and torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu":
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return float("inf")
