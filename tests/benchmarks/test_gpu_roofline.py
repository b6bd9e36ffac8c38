"""The roofline estimate counts the operations of a step, and is never faster than the GPU's data sheet."""

import pytest
from msgspec.structs import replace

from benchmarks import gpu_roofline
from benchmarks.gpu_roofline import H100, Operation, estimate, operations
from pitfalls.experiment.build import Run, build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.report.roofline_table import tables
from pitfalls.training import cost

N_ROWS = 4


@pytest.fixture(scope="module")
def run() -> Run:
    overrides = ["model=gpt_nano", "task=g2_3", "task.test_graphs=64", f"training.batch_size={N_ROWS}", "training.precision=bf16"]
    return build(resolve(compose([*overrides, "training.device=cpu"])))


def test_operations_are_those_of_a_step(run):
    """Guards against products counted twice or left out: the FLOP are those of a real step. Attention is one kernel here."""
    batch = make_run_splits(run).train.batch(0)
    counted = cost.measure(run.trunk, run.objective, batch, seed=0)
    found = operations(run)
    assert sum(op.flop for op in found) / N_ROWS == pytest.approx(counted.flops, rel=0.02)
    assert all(op.n_bytes > 0 for op in found)
    assert cost.measure(run.trunk, run.objective, batch, seed=0) == counted, "nothing fake is left in a cache"
    n_bytes = sum(4 * p.numel() for p in run.trunk.parameters())
    assert found[-1] == Operation(0, 7 * n_bytes), "AdamW reads and writes seven numbers per weight"


def test_nothing_is_faster_than_the_data_sheet(run):
    """One operation is bound by each of the three limits. The rate is the FLOP of 4 rows over the total seconds."""
    found = [Operation(989.4e12, 0), Operation(0, int(3.35e12)), Operation(0, 0)]
    slow = replace(H100, launch_s=0.5)
    assert estimate(run, found, slow, graphed=True).samples_per_s == pytest.approx(N_ROWS / 2)
    assert estimate(run, found, slow, graphed=False).samples_per_s == pytest.approx(N_ROWS / 2.5)
    for graphed in (False, True):
        assert 0 < estimate(run, operations(run), H100, graphed).mfu < 1


def test_every_row_says_how_long_its_run_takes():
    """The hours are those of the config's run at the rate with launches, and the note adds them up."""
    estimated = gpu_roofline.on_paper(H100, ["gpt_mini"], ["g2_5"])
    (row,) = estimated.rows
    assert row.run_samples == 390_500 * 256
    assert row.graphed.samples_per_s > row.launched.samples_per_s
    row = replace(row, launched=replace(row.launched, samples_per_s=row.run_samples / 7200))
    made = tables(replace(estimated, rows=[row, row]))["on_paper"]
    assert [shown[-1] for shown in made.rows] == ["2", "2"]
    assert "gpt_mini 4.0." in made.note
