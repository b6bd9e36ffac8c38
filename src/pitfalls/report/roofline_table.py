"""What one GPU could do, on paper: ``results/roofline/estimated.json`` (``scripts/benchmark.py --roofline``) as a table."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pitfalls.results.formats import Table

HEADER = (
    "model",
    "graph",
    "batch",
    "operations",
    "samples/s",
    "MFU",
    "samples/s, one CUDA graph",
    "MFU, one CUDA graph",
    "hours of a run",
)

SHORT = 0.05
"""Hours below which a sum is not worth a word: gpt_tiny is no model of the paper, and its own run takes seconds."""


def tables(estimated: Mapping[str, Any]) -> dict[str, Table]:
    """``on_paper``: a row per model and graph, and the hours of all."""
    gpu, rows, hours = estimated["gpu"], [], Counter[str]()
    for row in estimated["rows"]:
        run = row["run_samples"] / row["launched"]["samples_per_s"] / 3600
        hours[row["model"]] += run
        rates = (
            text for kind in ("launched", "graphed") for text in (f"{row[kind]['samples_per_s']:,.0f}", f"{row[kind]['mfu']:.1%}")
        )
        rows.append((row["model"], row["graph"], f"{row['batch_size']}", f"{row['n_operations']:,}", *rates, f"{run:.2g}"))
    added = ", ".join(f"{model} {n:.1f}" for model, n in hours.items() if n >= SHORT)
    note = (
        f"Nothing of this was run. {gpu['name']}: {gpu['flop_per_s'] / 1e12:.0f} TFLOP/s in bf16, "
        f"{gpu['bytes_per_s'] / 1e12:.2f} TB/s, and {gpu['launch_s'] * 1e6:.0f} us from one kernel to the next, an assumption; "
        "an operation takes the longest of arithmetic, memory and launch. One CUDA graph: no launches. Next token, N=100, bf16; "
        "FLOP of MFU are nominal; data and the norm of the gradient are not counted. Hours of one run on every graph, with "
        f"launches: {added}; the paper's grid has three objectives of about this cost, so three times that, and Mamba, whose "
        "kernels are not torch's and are not counted."
    )
    return {"on_paper": Table("On paper: one GPU", HEADER, tuple(rows), note)}
