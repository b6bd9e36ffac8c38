"""What the benchmark compares is the same computation."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pitfalls.application import compose
from pitfalls.benchmark import components, plain
from pitfalls.benchmark.lines import Line, interleave
from pitfalls.benchmark.objectives import first_cells
from pitfalls.cell import build, make_run_splits
from pitfalls.configs import resolve
from pitfalls.objectives import NAMES
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

TINY = ["task=g2_3", "task.test_graphs=16", "model.width=32", "model.n_heads=2", "training.batch_size=8", "training.n_threads=1"]


@pytest.fixture
def cell():
    return build(resolve(compose(["model=gpt_nano", *TINY])))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_plain_model_has_our_loss(cell, attention):
    """Guards a speed-up over a reference that trains something else (labels, shift, sizes)."""
    lm = plain.build_plain(cell, attention)
    lm.load_state_dict(cell.trunk.lm.state_dict())
    rows = plain.samples(cell, 8)
    theirs = lm(**torch.utils.data.default_collate([rows[i] for i in range(8)])).loss
    n_prompt = cell.task.prompt_length
    batch = Batch(rows.tokens[:, :n_prompt], rows.tokens[:, n_prompt:])
    ours = cell.objective.training_loss(cell.trunk, batch, step=0, generator=generator(0, "objective")).total
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_plain_loop_reports_every_step_but_the_first(cell):
    rates = plain.plain_steps(cell, "eager", 4, 3)()
    assert len(rates) == 2
    assert min(rates) > 0


def test_the_parts_make_up_a_step(cell):
    """Guards a part left out or counted twice: their matrix products are those of the whole step."""
    batch = make_run_splits(cell).train.batch(0)
    with FlopCounterMode(display=False) as whole:
        cell.objective.training_loss(cell.trunk, batch, step=0, generator=generator(0, "objective")).total.backward()
    counted = 0
    for part in components.parts(cell):
        with FlopCounterMode(display=False) as of_part:
            part.run()
        counted += part.times * of_part.get_total_flops()
        assert len(components.seconds_per_step(cell, part)()) == components.N_REPEATS - 1
    assert counted == whole.get_total_flops()


def test_each_objective_is_timed_once_on_each_graph_as_the_bench_first_trains_it():
    """Guards step times of a longer run, another trunk or another vocabulary than of the runs that they stand beside."""
    tasks = {"G(2,5), 20": "g2_5", "G(3,3), 20": "g3_3", "G(3,5), 20": "g3_5", "G(5,5), 21": "g5_5"}
    bench = [name for name in NAMES if name != "first_hop"]
    names = {f"{name} {graph}": f"{name}_{task}" for name in bench for graph, task in tasks.items()}
    names |= {f"{name} G(2,5), 50": f"n50_{name}_g2_5" for name in bench}
    assert {timed: cell.name for timed, cell in first_cells().items()} == names


def test_parts_of_another_architecture_are_refused():
    with pytest.raises(TypeError, match="only a GPT-2"):
        components.parts(build(resolve(compose(["model=mamba2_tiny", "task=g2_3", "task.test_graphs=16"]))))


def test_shares_and_the_rest_are_the_whole():
    assert components.shares([("a", 0.2), ("b", 0.3)], 2.0) == {"a": 0.1, "b": 0.15, "rest": 0.75}


def test_rounds_are_interleaved():
    order = []
    rounds = {"a": 3, "b": 2}
    interleave([Line(name, "1/s", lambda name=name: order.append(name) or [1.0], n) for name, n in rounds.items()])
    assert order == ["a", "b", "a", "b", "a"]
