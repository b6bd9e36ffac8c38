"""The benchmark compares equal computations."""

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import plain_transformers, suite, timing
from benchmarks.new_process import run_python
from benchmarks.objective_speed import first_cells
from benchmarks.step_profile import REST, STEP_OVER, by_part, profile_steps
from benchmarks.timing import Line, interleave, rates
from benchmarks.training_speed import compile_blocks
from pitfalls.experiment.build import build, make_run_splits
from pitfalls.experiment.config import resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run_sets import load_plan
from pitfalls.report import speed
from pitfalls.report.measurements import Speed
from pitfalls.runs.files import read_json
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch

TINY = ["task=g2_3", "task.test_graphs=16", "model.width=32", "model.n_heads=2", "training.batch_size=8", "training.n_threads=1"]


@pytest.fixture
def run():
    return build(resolve(compose(["model=gpt_nano", *TINY])))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_plain_model_has_our_loss(run, attention):
    """Guards against a speed-up over a reference that trains something else (labels, shift, sizes)."""
    lm = plain_transformers.build_plain(run, attention)
    lm.load_state_dict(run.trunk.lm.state_dict())
    rows = plain_transformers.samples(run, 8)
    theirs = lm(**torch.utils.data.default_collate([rows[i] for i in range(8)])).loss
    n_prompt = run.task.prompt_length
    batch = Batch(rows.tokens[:, :n_prompt], rows.tokens[:, n_prompt:])
    ours = run.objective.training_loss(run.trunk, batch, step=0, generator=generator(0, "objective")).total
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_plain_loop_reports_every_step_but_the_first(run):
    rates = plain_transformers.steps(run, "eager", 3)()
    assert len(rates) == 2
    assert min(rates) > 0


def test_plain_transformers_as_it_comes_has_its_own_activation(run):
    assert plain_transformers.build_plain(run, "eager").config.activation_function == run.config.model.activation == "gelu"
    assert plain_transformers.build_plain(run, "eager", "gelu_new").config.activation_function == "gelu_new"


@pytest.mark.slow
def test_plain_transformers_runs_in_a_process_of_its_own():
    rates = plain_transformers.steps_as_it_comes(["model=gpt_nano", *TINY], "sdpa", 3)()
    assert len(rates) == 2
    assert min(rates) > 0
    with pytest.raises(RuntimeError, match="no_such"):
        plain_transformers.steps_as_it_comes(["model=no_such"], "sdpa", 3)()


def profiled(tmp_path, *overrides):
    return profile_steps(["model=gpt_nano", *TINY, "training.precision=fp32", *overrides], 3, tmp_path)


def test_the_parts_make_up_a_step(tmp_path):
    """Guards against a part left out, counted twice, or added to another: so wide an MLP takes most of both passes."""
    step = profiled(tmp_path, "model.mlp_ratio=512", "training.batch_size=32")
    assert sum(sum(seconds) for seconds in step.parts.values()) == pytest.approx(step.step_s)
    for part, (forward, backward) in step.parts.items():
        assert forward > 0, part
        assert (backward > 0) == (part not in {"data", "Python"}), part
    assert all(seconds > 0.3 * step.step_s / 2 for seconds in step.parts["MLP"])


def event(name, start, device_us, on=DeviceType.CPU):
    """Return an event of no module."""
    times = {"time_range": SimpleNamespace(start=start), "device_time_total": device_us}
    return SimpleNamespace(name=name, device_type=on, cpu_parent=None, sequence_nr=-1, **times)


def test_a_gpu_kernel_counts_once():
    """Guards against time that is counted twice: for the operator, and for the kernel that it launched on a GPU."""
    a_step = [event("aten::mm", 1, 600.0), event("gemm_kernel", 2, 600.0, DeviceType.CUDA)]
    step = by_part([event(STEP_OVER, 0, 0.0), *a_step, event(STEP_OVER, 1000, 0.0)], on_gpu=True)
    assert sum(step.parts[REST]) == pytest.approx(600e-6)
    assert step.parts["Python"][0] == pytest.approx(400e-6)


def test_flop_are_counted_where_the_trunk_is(run, monkeypatch):
    """Guards against a batch left on the CPU beside a trunk on a GPU. Torch's meta device takes the place of a GPU."""
    seen = []
    monkeypatch.setattr(suite.cost, "measure", lambda *args, seed: seen.append(args[-1]) or SimpleNamespace(flops=1))
    run.trunk.to("meta")
    suite.flop_per_sample(run)
    assert [batch.target.device.type for batch in seen] == ["meta"]


def test_mambas_without_their_kernels_leave_the_rest_to_be_timed(run, monkeypatch):
    """Guards against a benchmark that measures nothing on a GPU without mamba-ssm."""
    on_gpu = replace(run.config, training=replace(run.config.training, device="cuda"))
    monkeypatch.setattr(suite, "resolve", lambda config: on_gpu)
    monkeypatch.setattr(suite.device, "multiplies_bf16", lambda where: True)
    monkeypatch.setattr(suite.shutil, "which", lambda program: program)
    monkeypatch.setattr(suite.mamba, "COMPILED_KERNELS", ())
    assert suite.not_timed() == {}
    monkeypatch.setattr(suite.mamba, "COMPILED_KERNELS", ("no_such_extension",))
    names = {f"{kind}/{name}" for kind in ("train", "step") for name in suite.MAMBAS} | {f"step/{m}_stock" for m in suite.MAMBAS}
    assert suite.not_timed() == dict.fromkeys(names, "mamba-ssm's kernels are missing")


def test_what_a_machine_emulates_is_not_timed(monkeypatch, tmp_path):
    """Guards against eight minutes of emulated products: a processor without bf16 makes 0.4 GFLOP/s of them."""
    monkeypatch.setattr(suite.device, "multiplies_bf16", lambda where: False)
    skipped = suite.not_timed()
    assert skipped["machine/bf16"] == "bf16 is emulated here"
    assert suite.build_run("gpt_tiny").config.training.precision == "fp32"
    skipped |= dict.fromkeys(("train/mamba_tiny", "step/mamba_tiny"), "mamba-ssm's kernels are missing")
    names = {line.name for line in suite.plan(True, tmp_path, skipped)}
    assert {"machine/fp32", "train/mamba2_tiny"} < names
    assert not names & skipped.keys()


def test_a_quick_benchmark_names_what_it_left_out(monkeypatch, tmp_path):
    """Guards against rows that are silently absent."""
    ends = suite.STARTED + suite.QUICK_S
    lines = [Line("train/gpt_tiny", "samples/s", lambda: [1.0], 3), Line("train/gpt_mini", "samples/s", lambda: [1.0], 3)]

    def first_only(lines, until, process_s):
        assert until == ends
        assert process_s > 0
        lines[0].run()

    monkeypatch.setattr(suite, "interleave", first_only)
    monkeypatch.setattr(suite, "plan", lambda *options: lines)
    monkeypatch.setattr(suite, "not_timed", lambda: {"machine/bf16": "bf16 is emulated here"})
    measured = suite.measure(True, tmp_path)
    assert measured.lines.keys() == {"train/gpt_tiny"}
    assert speed.tables(measured)["skipped"].rows == (
        ("matrix product, bf16", "bf16 is emulated here"),
        ("train gpt_mini", "no time left"),
        ("parts of a training step of gpt_tiny", "no time left"),
    )


@pytest.mark.slow
def test_a_quick_benchmark_ends_within_a_minute(tmp_path):
    """Guards against a count of rounds that suits one machine, and takes eight minutes on another."""
    began = time.perf_counter()
    run_python(["scripts/benchmark.py", "--quick", "--threads", "1", "--output", str(tmp_path / "measured.json")])
    assert time.perf_counter() - began < 60
    assert "train/gpt_tiny" in read_json(tmp_path / "measured.json", Speed).lines


def test_casts_are_counted_where_there_are_some(tmp_path):
    assert profiled(tmp_path).casts_s == 0 < profiled(tmp_path, "training.precision=bf16").casts_s


def test_compiled_blocks_compute_the_same(run, monkeypatch):
    """Every block but the last is compiled. The compiler is replaced by a function that notes its calls."""
    seen = []

    def compiled(function, **kwargs):
        seen.append(kwargs)
        return lambda *args, **more: function(*args, **more)

    monkeypatch.setattr(torch, "compile", compiled)
    batch = make_run_splits(run).train.batch(0)
    loss = run.objective.training_loss(run.trunk, batch, step=0, generator=generator(0, "objective")).total
    compile_blocks(run.trunk)
    assert seen == [{"dynamic": False, "mode": "default"}] * (run.trunk.n_layers - 1)
    assert run.objective.training_loss(run.trunk, batch, step=0, generator=generator(0, "objective")).total == loss


def test_each_objective_is_timed_once_on_each_graph_as_the_bench_first_trains_it():
    """Guards against step times of a longer run, another trunk or another vocabulary than those of the runs in the same row."""
    tasks = {"G(2,5), 20": "g2_5", "G(3,3), 20": "g3_3", "G(3,5), 20": "g3_5", "G(5,5), 21": "g5_5"}
    planned = [override for cell in load_plan("objectives").cells for override in cell.overrides]
    bench = {override.removeprefix("objective=") for override in planned if override.startswith("objective=")}
    names = {f"{name} {graph}": f"{name}_{task}" for name in bench for graph, task in tasks.items()}
    names |= {f"{name} {graph.rpartition(',')[0]}, 50": f"n50_{name}_{task}" for name in bench for graph, task in tasks.items()}
    assert {timed: cell.name for timed, cell in first_cells().items()} == names


def test_parts_of_another_architecture_are_refused(tmp_path):
    with pytest.raises(TypeError, match="only a GPT-2"):
        profile_steps(["model=mamba2_tiny", "task=g2_3", "task.test_graphs=16"], 3, tmp_path)


class Clock:
    """A clock that stands still until `pass_by` moves it."""

    now = 0.0

    def __call__(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds
        return [1.0]


@pytest.fixture
def clock(monkeypatch):
    """The clock of the measurements."""
    fake = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", fake)
    monkeypatch.setattr(timing, "reset_peak_memory", lambda: 0.0)
    return fake


def test_rounds_are_interleaved(clock):
    order = []
    rounds = {"a": 3, "b": 2}
    interleave([Line(name, "1/s", lambda name=name: order.append(name) or [1.0], n) for name, n in rounds.items()])
    assert order == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize(
    ("slower", "rounds"),
    [
        (1, {"cheap": 3, "step": 3, "mini": 3, "process": 3}),  # a round takes 11 s
        (2, {"cheap": 2, "step": 2, "mini": 2, "process": 2}),
        (4, {"cheap": 1, "step": 1, "mini": 1, "process": 0}),  # after 28 s, the new process would take 4 x (4 + 5) s more
        (10, {"cheap": 1, "step": 1, "mini": 0, "process": 0}),  # after 30 s, who is next may take 20 s
    ],
)
def test_the_rounds_are_as_many_as_fit(clock, slower, rounds):
    """Guards against a count of rounds that suits one machine. What has not enough time left is left out of all rounds."""
    seconds = {"cheap": 1, "step": 2, "mini": 4, "process": 4}
    lines = [
        Line(name, "1/s", lambda s=s: clock.pass_by(slower * s), 3, elsewhere=name == "process") for name, s in seconds.items()
    ]
    interleave(lines, until=45.0, process_s=5.0 * slower)
    assert {line.name: len(line.values) for line in lines} == rounds
    assert clock.now <= 45


def test_a_line_left_out_once_is_not_measured_later(clock):
    """Guards against a ratio of values of different rounds."""
    seconds = {"a": 1, "b": 9, "c": 1}
    lines = [Line(name, "1/s", lambda s=s: clock.pass_by(s), 3) for name, s in seconds.items()]
    interleave(lines, until=12.5)
    assert [len(line.values) for line in lines] == [1, 1, 0]
    interleave(lines[:1], until=13.5)
    assert [len(line.values) for line in lines] == [3, 1, 0]


def test_a_slow_machine_makes_fewer_calls(clock):
    """Guards against nine products that take eight minutes where each takes 45 s. The first call is left out."""
    assert rates(8.0, lambda: clock.pass_by(0.25), 20) == [32.0] * 4
    assert rates(8.0, lambda: clock.pass_by(0.25), 2) == [32.0] * 2
    before = clock.now
    assert rates(8.0, lambda: clock.pass_by(45.0), 8) == [8 / 45]
    assert clock.now - before == 90


def test_every_line_is_shown_in_words(tmp_path):
    """Guards against a new line without words, on which the tables fail after ten minutes of measuring."""
    profiled = {f"profile/{model}" for model in suite.GPTS}
    assert {line.name for line in suite.plan(False, tmp_path, ())} | profiled == speed.LINES.keys()
