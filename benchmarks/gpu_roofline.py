"""The best speed of one GPU on paper: each operation of a step is limited by its arithmetic, its memory traffic or its launch.

Roofline model: Williams, Waterman & Patterson, "Roofline: an insightful visual performance model for multicore architectures"
(CACM 2009). An operation takes the longest of FLOP / peak, bytes / bandwidth and one launch. Nothing overlaps, and no cache
keeps anything between two operations. The operations are those that torch runs in a real step of next token under bf16 autocast
with fused attention. They are counted on fake tensors, so no GPU is needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from pitfalls.experiment.build import Run, build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.models.hf_internals import attention_set_to
from pitfalls.models.masks import forget_masks
from pitfalls.report.measurements import Gpu, Roofline, RooflineRow, StepEstimate
from pitfalls.seeding import generator
from pitfalls.training.cost import CPU_ATTENTION

MODELS = {
    "gpt_tiny": ("model=gpt_tiny", "training.batch_size=256"),
    "gpt_mini": ("experiment=paper/scratch",),
    "gpt2_large": ("experiment=paper/fine_tuned", "model=gpt_mini", "model.width=1280", "model.n_layers=36", "model.n_heads=20"),
}
"""Overrides of each model. gpt2_large has the shape of GPT-2 large, but the vocabulary of the task."""
GRAPHS = ("g2_5", "g2_20", "g5_5", "g10_5", "g20_5")
"""Graphs of the paper's grid."""

FLOP = flop_registry | CPU_ATTENTION
"""Functions that count FLOP, by operation. The fused attention of a CPU takes the place of that of a GPU."""
ADAMW_BYTES = 4 * 7
"""Bytes per parameter in one fused fp32 kernel: it reads weight, gradient and two moments, and writes weight and moments."""


H100 = Gpu("H100 SXM", 989.4e12, 3.35e12, 5e-6)
"""NVIDIA's data sheet of the H100 (SXM5, 80 GB, without sparsity)."""


@dataclass(frozen=True)
class Operation:
    """One operation of a step."""

    flop: float
    n_bytes: int
    """Number of bytes read and written."""


def on_paper(gpu: Gpu, models: Sequence[str] = tuple(MODELS), graphs: Sequence[str] = GRAPHS) -> Roofline:
    """Return the estimates of every model on every graph."""
    rows = []
    for model in models:
        for graph in graphs:
            overrides = [*MODELS[model], f"task={graph}", "task.n_values=100", "task.train_graphs=null", "task.test_graphs=64"]
            run = build(resolve(compose([*overrides, "training.device=cpu", "training.precision=bf16"])))
            found, training = operations(run), run.config.training
            rows.append(
                RooflineRow(
                    model=model,
                    graph=graph,
                    batch_size=training.batch_size,
                    n_operations=len(found),
                    launched=estimate(run, found, gpu, graphed=False),
                    graphed=estimate(run, found, gpu, graphed=True),
                    run_samples=training.n_samples,
                )
            )
    return Roofline(gpu, rows)


def operations(run: Run) -> list[Operation]:
    """Return the operations of forward, backward and optimizer on one batch of the run. Views cost nothing and are left out."""
    lm = run.trunk.lm
    batch = make_run_splits(run).train.batch(0)._replace(shared=None)
    parameters = list(run.trunk.parameters())
    draws = generator(0, "objective", 0, batch.target.device)
    counter = _Counter()
    try:
        with (
            attention_set_to(lm, "sdpa"),
            FakeTensorMode(allow_non_fake_inputs=True),
            counter,
            torch.autocast("cpu", torch.bfloat16),
        ):
            loss = run.objective.training_loss(run.trunk, batch, step=0, generator=draws).total
            torch.autograd.grad(loss, parameters)
    finally:
        forget_masks()  # the masks of this step are fake tensors, which no other step may use
    return [*counter.found, Operation(0, ADAMW_BYTES * sum(p.numel() for p in parameters))]


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Operation] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func.namespace == "aten" and not func.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, output)) if isinstance(x, torch.Tensor)]
            flop = FLOP.get(func.overloadpacket)
            self.found.append(
                Operation(
                    flop(*args, **kwargs, out_val=output) if flop else 0, sum(x.numel() * x.element_size() for x in tensors)
                )
            )
        return output


def estimate(run: Run, found: Sequence[Operation], gpu: Gpu, graphed: bool) -> StepEstimate:
    """Return the speed of a step.

    Args:
        run: the run whose step it is.
        found: the operations of the step.
        gpu: the GPU that runs them.
        graphed: whether the step is one CUDA graph, without launches from Python.
    """
    launch = 0.0 if graphed else gpu.launch_s
    bounds = [(op.flop / gpu.flop_per_s, op.n_bytes / gpu.bytes_per_s, launch) for op in found]
    step_s = sum(map(max, bounds))
    n_rows = run.config.training.batch_size
    tokens = n_rows * run.task.sequence_length
    nominal = 6 * tokens * sum(p.numel() for p in run.trunk.parameters())
    return StepEstimate(
        n_rows / step_s, nominal / step_s / gpu.flop_per_s, sum(a for a, *rest in bounds if a > max(rest)) / step_s
    )
