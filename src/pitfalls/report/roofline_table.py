"""The table of the estimated speed of one GPU, from ``results/roofline/estimated.json`` (``scripts/benchmark.py roofline``)."""

from collections import defaultdict

from pitfalls.report.measurements import Roofline, StepEstimate
from pitfalls.results.formats import Table

HEADER = ("model", "graph", "batch", "samples/s (MFU)", "as one CUDA graph", "hours of a run")
MODELS = {"gpt2_large": "GPT-2 large"}
"""Names of models that have no preset."""
SHORT = 0.05
"""Hours below which the runs of a model are left out of the sum. gpt_tiny is no model of the paper and takes seconds."""


def tables(estimated: Roofline) -> dict[str, Table]:
    """Return the table ``on_paper``: one row per model and graph, and the hours of all runs in the note."""
    rows = []
    hours: defaultdict[str, float] = defaultdict(float)
    operations: defaultdict[str, set[int]] = defaultdict(set)
    for row in estimated.rows:
        model = MODELS.get(row.model, row.model)
        run = row.run_samples / row.launched.samples_per_s / 3600
        hours[model] += run
        operations[model].add(row.n_operations)
        d, n_nodes = row.graph.removeprefix("g").split("_")
        speeds = (_speed(row.launched), _speed(row.graphed))
        rows.append((model, f"G({d},{n_nodes})", f"{row.batch_size}", *speeds, f"{run:.2g}"))
    gpu = estimated.gpu
    counts = ", ".join(f"{model} {' or '.join(f'{n:,}' for n in sorted(found))}" for model, found in operations.items())
    added = ", ".join(f"{model} {n:.1f}" for model, n in hours.items() if n >= SHORT)
    note = (
        f"Nothing of this was run. {gpu.name}: {gpu.flop_per_s / 1e12:.0f} TFLOP/s in bf16, {gpu.bytes_per_s / 1e12:.2f} TB/s, "
        f"and {gpu.launch_s * 1e6:.0f} us from one operation to the next, which is an assumption. An operation takes the "
        f"longest of its arithmetic, its memory traffic and its launch. Operations per step: {counts}. As one CUDA graph, a "
        "step has no launches. Next token, N=100, bf16. MFU is the share of the peak, with nominal FLOP of 6 x parameters x "
        "tokens. Data and the norm of the gradient are not counted. The hours are with launches. One run on every graph "
        f"takes, in hours: {added}. The paper's grid has three objectives of about this cost, so it takes three times as long. "
        "Mamba is not counted, because its kernels are not torch's."
    )
    return {"on_paper": Table(f"On paper: training on one {gpu.name}", HEADER, tuple(rows), note)}


def _speed(estimate: StepEstimate) -> str:
    return f"{estimate.samples_per_s:,.0f} ({estimate.mfu:.1%})"
