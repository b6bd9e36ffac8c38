"""What the benchmark compares is the same computation."""

import pytest
import torch

from pitfalls.application import compose
from pitfalls.benchmark import plain
from pitfalls.benchmark.lines import Line, interleave
from pitfalls.benchmark.objectives import first_cells
from pitfalls.benchmark.profile import profile_steps
from pitfalls.benchmark.training import compile_blocks
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
    rates = plain.steps(cell, "eager", 3)()
    assert len(rates) == 2
    assert min(rates) > 0


def test_plain_transformers_as_it_comes_has_its_own_activation(cell):
    assert plain.build_plain(cell, "eager").config.activation_function == cell.config.model.activation == "gelu"
    assert plain.build_plain(cell, "eager", "gelu_new").config.activation_function == "gelu_new"


@pytest.mark.slow
def test_plain_transformers_runs_in_a_process_of_its_own():
    rates = plain.steps_as_it_comes(["model=gpt_nano", *TINY], "sdpa", 3)()
    assert len(rates) == 2
    assert min(rates) > 0
    with pytest.raises(RuntimeError, match="no_such"):
        plain.steps_as_it_comes(["model=no_such"], "sdpa", 3)()


def profiled(tmp_path, *overrides):
    return profile_steps(["model=gpt_nano", *TINY, "training.precision=fp32", *overrides], 3, tmp_path)


def test_the_parts_make_up_a_step(tmp_path):
    """Guards a part left out, counted twice, or credited to another: an MLP as wide as here takes most of a step, both ways."""
    step = profiled(tmp_path, "model.mlp_ratio=512", "training.batch_size=64")
    assert sum(sum(seconds) for seconds in step["parts"].values()) == pytest.approx(step["step_s"])
    for part, (forward, backward) in step["parts"].items():
        assert forward > 0, part
        assert (backward > 0) == (part not in {"data", "Python"}), part
    assert all(seconds > 0.3 * step["step_s"] / 2 for seconds in step["parts"]["MLP"])


def test_casts_are_counted_where_there_are_some(tmp_path):
    assert profiled(tmp_path)["casts_s"] == 0 < profiled(tmp_path, "training.precision=bf16")["casts_s"]


def test_compiled_blocks_compute_the_same(cell, monkeypatch):
    """The compiler is stood in for; what is compiled is every block but the last."""
    seen = []

    def compiled(function, **kwargs):
        seen.append(kwargs)
        return lambda *args, **more: function(*args, **more)

    monkeypatch.setattr(torch, "compile", compiled)
    batch = make_run_splits(cell).train.batch(0)
    loss = cell.objective.training_loss(cell.trunk, batch, step=0, generator=generator(0, "objective")).total
    compile_blocks(cell.trunk)
    assert seen == [{"dynamic": False, "mode": "default"}] * (cell.trunk.n_layers - 1)
    assert cell.objective.training_loss(cell.trunk, batch, step=0, generator=generator(0, "objective")).total == loss


def test_each_objective_is_timed_once_on_each_graph_as_the_bench_first_trains_it():
    """Guards step times of a longer run, another trunk or another vocabulary than of the runs that they stand beside."""
    tasks = {"G(2,5), 20": "g2_5", "G(3,3), 20": "g3_3", "G(3,5), 20": "g3_5", "G(5,5), 21": "g5_5"}
    bench = [name for name in NAMES if name != "first_hop"]
    names = {f"{name} {graph}": f"{name}_{task}" for name in bench for graph, task in tasks.items()}
    names |= {f"{name} G(2,5), 50": f"n50_{name}_g2_5" for name in bench}
    assert {timed: cell.name for timed, cell in first_cells().items()} == names


def test_parts_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(TypeError, match="only a GPT-2"):
        profile_steps(["model=mamba2_tiny", "task=g2_3", "task.test_graphs=16"], 3, tmp_path)


def test_rounds_are_interleaved():
    order = []
    rounds = {"a": 3, "b": 2}
    interleave([Line(name, "1/s", lambda name=name: order.append(name) or [1.0], n) for name, n in rounds.items()])
    assert order == ["a", "b", "a", "b", "a"]
