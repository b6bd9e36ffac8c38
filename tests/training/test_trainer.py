"""The training loop, tested as training: parameters move, and runs resume, repeat and stop as they should."""

import json
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pitfalls.evaluation.score import evaluate
from pitfalls.objectives import NAMES
from pitfalls.objectives.base import Loss
from pitfalls.objectives.next_token import NextToken
from pitfalls.runs.run_folder import read_metrics
from pitfalls.schemas import ConfigError, ObjectiveConfig, OptimizerConfig
from pitfalls.seeding import generator
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.splits import make_splits
from pitfalls.training import checkpoint
from pitfalls.training.interrupt import Interrupted, StopRequest
from pitfalls.training.optimizers import make_optimizers
from pitfalls.training.optimizers.muon import MuonConfig
from pitfalls.training.processes import Processes
from pitfalls.training.schedule import lr_factor
from pitfalls.training.trackers import JsonLines
from pitfalls.training.trainer import DivergedError, Trainer
from tests.tiny_runs import plain

TIMING = {"wall_s", "samples_per_s"}


class Noisy(NextToken):
    """An objective that draws from its own stream and the global generator, uses the step, and has parameters."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.scale = nn.Parameter(torch.ones(4))

    def loss(self, trunk, batch, *, step, generator) -> Loss:
        noise = torch.rand((), generator=generator) + torch.rand(()) + 0.01 * step
        total = super().loss(trunk, batch, step=step, generator=generator).total * (1 + 0.1 * noise)
        return Loss(total * self.scale.mean(), {"noisy": total})


class Drawn(NextToken):
    """An objective that draws from its own stream only."""

    def loss(self, trunk, batch, *, step, generator) -> Loss:
        total = super().loss(trunk, batch, step=step, generator=generator).total
        return Loss(total * (1 + torch.rand((), generator=generator)), {})


class Noting(NextToken):
    """An objective that notes a number from its own stream, and one from the global generator, for each micro-batch."""

    def loss(self, trunk, batch, *, step, generator) -> Loss:
        self.noted = [*getattr(self, "noted", []), (step, torch.rand((), generator=generator).item(), torch.rand(()).item())]
        return super().loss(trunk, batch, step=step, generator=generator)


class Faulty(NextToken):
    """An objective whose loss, or only its gradient, is not finite at one step."""

    bad_step, bad_gradient = 3, False

    def loss(self, trunk, batch, *, step, generator) -> Loss:
        result = super().loss(trunk, batch, step=step, generator=generator)
        if step != self.bad_step:
            return result
        if not self.bad_gradient:
            return Loss(result.total * math.nan, {})
        root = (result.total - result.total.detach()).clamp(min=0).sqrt()  # 0, with an infinite slope
        return Loss(result.total + root, {})


class Stream:
    """The batches of another stream, with an action before one step."""

    def __init__(self, stream: Any, step: int, action: Callable[[], None]) -> None:
        self.stream, self.step, self.action = stream, step, action

    def batch(self, step: int) -> Batch:
        if step == self.step:
            self.action()
        return self.stream.batch(step)


class Killed(BaseException):
    """The end of a process."""


def kill() -> None:
    raise Killed


ADAMW = OptimizerConfig(name="adamw")
MUON = MuonConfig(name="muon", lr=0.02, momentum=0.95, n_iterations=5)


@pytest.fixture
def make(tmp_path: Path, task, training, make_trunk, make_objective) -> Iterator[Callable[..., Trainer]]:
    """A function that makes a trainer in a folder, as `experiment` does. It continues from a checkpoint in the folder."""
    made: list[Trainer] = []

    def make(
        folder: str = "run",
        *,
        objective: str | type = "next_token",
        seed: int = 0,
        at: tuple | None = None,
        optimizer=ADAMW,
        **changes,
    ) -> Trainer:
        (tmp_path / folder).mkdir(exist_ok=True)
        config = replace(training, **changes)
        splits = make_splits(task, seed=seed, batch_size=config.batch_size, train_graphs=None, test_graphs=16)
        trunk = make_trunk(seed)
        base = make_objective(objective if isinstance(objective, str) else "next_token", seed)
        if not isinstance(objective, str):
            base = objective(base.spec, ObjectiveConfig(name="own"), generator(seed, "objective_init"))
        trainer = Trainer(
            trunk=trunk,
            objective=base,
            stream=splits.train if at is None else Stream(splits.train, *at),
            config=config,
            optimizer=optimizer,
            seed=seed,
            evaluate=lambda: {"test": evaluate(trunk, base, task, splits.test)},
            checkpoint_dir=tmp_path / folder / "checkpoint",
        )
        trainer.trackers = [JsonLines(tmp_path / folder / "metrics.jsonl", resume_step=trainer.resume())]
        made.append(trainer)
        return trainer

    yield make
    for trainer in made:
        close(trainer)


def close(trainer: Trainer) -> None:
    for tracker in trainer.trackers:
        tracker.close()


def run(trainer: Trainer, expected: type[BaseException] | None = None) -> Trainer:
    """Run to the end, or to an expected exception, and close the metrics file."""
    try:
        if expected is None:
            trainer.run()
        else:
            with pytest.raises(expected):
                trainer.run()
    finally:
        close(trainer)
    return trainer


def rows(trainer: Trainer, kind: str | None = None) -> list[dict[str, Any]]:
    """Return what was logged, without times."""
    lines = read_metrics(trainer.checkpoint_dir.parent)
    return [{k: v for k, v in row.items() if k not in TIMING} for row in plain(lines) if kind in (None, row["kind"])]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    modules = nn.ModuleDict({"trunk": trainer.trunk, "objective": trainer.objective})
    return {name: value.clone() for name, value in modules.state_dict().items()}


def differing(a: Trainer, b: Trainer) -> list[str]:
    mine, theirs = weights(a), weights(b)
    assert mine.keys() == theirs.keys()
    return [name for name in mine if not torch.equal(mine[name], theirs[name])]


# ------------------------------------------------------------------ steps


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("objective", [*NAMES, Noisy])
def test_every_parameter_moves(make, objective, optimizer):
    """Guards against parameters that the optimizer does not have. There is no weight decay, which would move anything."""
    trainer = make(objective=objective, optimizer=optimizer, n_steps=1, warmup_steps=0, weight_decay=0.0)
    before = {name: value.clone() for name, value in weights(trainer).items()}
    run(trainer)
    after = weights(trainer)
    assert len(after) > 20
    assert [name for name in after if torch.equal(after[name], before[name])] == []


def test_weight_decay_spares_biases_and_norms(make, training):
    """Guards against defect 3 of the official code (a decay that is parsed and never used), and decay of vectors."""
    trainer = make(objective=Noisy)
    config = replace(training, weight_decay=0.3, beta1=0.8, beta2=0.7)
    optimizer = make_optimizers(trainer.trunk, trainer.objective, ADAMW, config).parts[0].optimizer
    names = {p: name for m in (trainer.trunk, trainer.objective) for name, p in m.named_parameters()}
    decayed = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decayed) == len(names) == sum(len(group["params"]) for group in optimizer.param_groups)
    for name, decay in decayed.items():
        assert decay == (0.0 if re.search(r"bias$|ln_\w+\.weight$|^scale$", name) else 0.3), name
    assert all(group["betas"] == (0.8, 0.7) for group in optimizer.param_groups)


def test_frozen_parameters_are_left_out(make, training):
    trainer = make()
    trainer.trunk.lm.transformer.wpe.weight.requires_grad_(False)
    held = set(make_optimizers(trainer.trunk, trainer.objective, ADAMW, training).parameters)
    assert trainer.trunk.lm.transformer.wpe.weight not in held


def test_weight_decay_reaches_the_weights(make):
    """Guards against an option that is passed on and never used."""
    plain, decayed = run(make("a", weight_decay=0.0)), run(make("b", weight_decay=0.5))
    assert any("wte" in name for name in differing(plain, decayed))


def test_a_view_that_does_not_fit_is_refused_before_anything_is_computed(make):
    """Guards against a traceback of the first evaluation, and a run with wrong scores, for a view that loses tokens."""

    class Short(NextToken):
        def view(self, batch):
            return batch._replace(target=batch.target[:, 1:])

    trainer = make(objective=Short)
    trainer.evaluate = lambda: pytest.fail("it was evaluated first")
    with pytest.raises(ConfigError, match=r"^Short.view returns a target of shape \[8, 3\], not \[8, 4\]: keep L = 4"):
        trainer.run()
    assert trainer.progress.step == 0


def test_accumulation_does_not_change_the_trajectory(make):
    """Guards against micro-batches that are summed, dropped, or seen twice: 8 rows against 4 x 2, in fp32."""
    whole, parts = run(make("a")), run(make("b", accumulation=4))
    for a, b in zip(rows(whole, "train"), rows(parts, "train"), strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
        assert b["parts"] == pytest.approx(a["parts"], rel=1e-4)
        assert b["parts"].keys() == {"next_token"}
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-3)
    mine, theirs = weights(whole), weights(parts)
    for name in mine:
        if "c_attn.bias" not in name:  # the key's bias has no gradient but rounding errors, which Adam magnifies
            torch.testing.assert_close(mine[name], theirs[name], atol=2e-4, rtol=1e-3)


class Doubled(Processes):
    """The first of two processes. The other one always has the same numbers."""

    def sum(self, values: Sequence[float]) -> list[float]:
        return [2 * value for value in values]

    def of_first(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum_gradients(self, parameters: Sequence[torch.Tensor]) -> None:
        for parameter in parameters:
            parameter.grad.mul_(2)


def test_a_batch_of_two_processes_is_logged_as_the_mean_of_all_micro_batches(make):
    """Guards against sums over processes that are divided by the micro-batches of one of them."""
    trainer = make(accumulation=2, n_steps=1, warmup_steps=0)
    half = trainer.stream.batch(0).rows(0, 4)
    loss = trainer.objective.training_loss(trainer.trunk, half, step=0, generator=generator(0, "objective")).total
    loss.backward()
    norm = nn.utils.get_total_norm([p.grad for p in trainer.trunk.parameters()])
    trainer.trunk.zero_grad()
    trainer.processes = Doubled(0, 2)
    run(trainer)
    (row,) = rows(trainer, "train")
    assert (row["loss"], row["parts"]["next_token"]) == pytest.approx((loss.item(), loss.item()), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(norm.item(), rel=1e-5)


def test_no_two_micro_batches_have_the_same_draws(make):
    """Guards against masks, offsets or dropout that repeat within a batch, or from the end of one batch to the next."""
    trainer = run(make(objective=Noting, n_steps=5, accumulation=4))
    steps, own, shared = zip(*trainer.objective.noted, strict=True)
    assert steps == tuple(step for step in range(5) for _ in range(4))
    assert len(set(own)) == len(set(shared)) == 20


def test_clipping_bounds_the_gradient_that_is_applied_and_logs_the_one_that_was(make):
    norms = []

    def keep(optimizer, args, kwargs) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"]]
        norms.append(float(nn.utils.get_total_norm(gradients)))

    trainer = make(max_grad_norm=1e-3, n_steps=3)
    trainer.optimizers.parts[0].optimizer.register_step_pre_hook(keep)
    run(trainer)
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)
    free = make("free", n_steps=3)
    free.optimizers.parts[0].optimizer.register_step_pre_hook(keep)
    run(free)
    logged = [row["grad_norm"] for row in rows(free, "train")]
    assert norms[3:] == pytest.approx(logged, rel=1e-5)
    assert rows(trainer, "train")[0]["grad_norm"] == pytest.approx(logged[0], rel=1e-5)


def test_bf16_keeps_weights_and_their_gradients_in_fp32(make):
    trainer = run(make(precision="bf16", n_steps=2))
    plain = run(make("plain", n_steps=2))
    assert {p.dtype for p in trainer.trunk.parameters()} == {torch.float32}
    pairs = [(a["loss"], b["loss"]) for a, b in zip(rows(trainer, "train"), rows(plain, "train"), strict=True)]
    assert all(a == pytest.approx(b, rel=0.05) for a, b in pairs)
    assert pairs[0][0] != pairs[0][1], "autocast has to be on"


# ------------------------------------------------------------------ what is logged


def test_the_learning_rate_follows_the_schedule(make):
    """Guards against a schedule that is driven by samples or epochs, or is one step late."""
    keys = {"n_steps": 10, "warmup_steps": 3, "schedule": "cosine", "decay_steps": 5, "final_lr_fraction": 0.1}
    trainer = run(make(lr=3e-3, **keys))
    expected = [3e-3 * lr_factor(step, **keys) for step in range(10)]
    assert [row["lr"] for row in rows(trainer, "train")] == pytest.approx(expected, rel=1e-12)
    assert expected[-1] == pytest.approx(3e-4)


def test_rows_are_logged_when_due_and_at_the_end(make):
    """Guards against defect 6 of the official code: steps compared with epochs, so that only one evaluation ever happens."""
    trainer = run(make(n_steps=7, log_every_steps=3, eval_every_steps=5, checkpoint_every_steps=4))
    logged = [(row["kind"], row["step"], row["samples"]) for row in rows(trainer)]
    assert logged == [("eval", 0, 0), ("train", 3, 24), ("eval", 5, 40), ("train", 6, 48), ("train", 7, 56), ("eval", 7, 56)]
    assert checkpoint.latest(trainer.checkpoint_dir).name == "step_00000007"
    assert trainer.progress.finished
    assert trainer.progress.wall_s > 0
    assert trainer.progress.cpu_s > 0


def test_every_logged_row_is_plain_json(make):
    trainer = run(make(n_steps=2))
    lines = (trainer.checkpoint_dir.parent / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 2]
    assert rows(trainer, "eval")[0]["evaluation"]["exact_match"]["n"] == 16


# ------------------------------------------------------------------ repeating and resuming


def test_a_seed_repeats_bit_for_bit(make):
    first, second = run(make("a")), run(make("b"))
    assert differing(first, second) == []
    assert rows(first) == rows(second)
    other = run(make("c", seed=1))
    assert len(differing(first, other)) > 20
    assert rows(first) != rows(other)


def test_an_objectives_draws_depend_on_seed_and_step_alone(make):
    """Guards against draws from the global generator, which anything else in the process can shift."""
    torch.manual_seed(0)
    first = run(make("a", objective=Drawn, n_steps=3, lr=1e-12))
    torch.manual_seed(1)
    second = run(make("b", objective=Drawn, n_steps=3, lr=1e-12))
    assert rows(first) == rows(second)
    plain = run(make("c", n_steps=3, lr=1e-12))
    factors = [a["loss"] / b["loss"] for a, b in zip(rows(first, "train"), rows(plain, "train"), strict=True)]
    assert len({round(factor, 3) for factor in factors}) == 3, "every step has draws of its own"


def test_steps_are_in_train_mode_and_evaluations_are_not(make):
    """Guards against a trunk that is handed over, or left behind by an evaluation, in eval mode: dropout would be off."""
    trainer = make(n_steps=2, eval_every_steps=1)
    seen = []
    trainer.trunk.register_forward_hook(lambda module, args, hidden: seen.append((module.training, torch.is_grad_enabled())))
    trainer.trunk.eval()
    run(trainer)
    assert [training for training, grad in seen if grad] == [True, True]
    assert {training for training, grad in seen if not grad} == {False}


@pytest.mark.parametrize(
    ("objective", "killed_at", "optimizer"),
    [*((name, 7, ADAMW) for name in NAMES), (Noisy, 5, ADAMW), (Noisy, 7, ADAMW), (Noisy, 5, MUON), ("belief_state", 7, MUON)],
)
def test_five_steps_and_five_more_equal_ten(make, objective, killed_at: int, optimizer):
    """Guards against everything that a resume can forget: optimizer moments, schedule, data, random states, logged rows.

    The run is killed right after the checkpoint of step 5, or two steps later. Rows must not be there twice.
    """
    torch.manual_seed(0)
    whole = run(make("whole", objective=objective, optimizer=optimizer))
    torch.manual_seed(0)
    run(make("parts", objective=objective, optimizer=optimizer, at=(killed_at, kill)), Killed)
    torch.manual_seed(99)  # another process
    second = make("parts", objective=objective, optimizer=optimizer)
    assert second.progress.step == 5
    run(second)
    assert differing(whole, second) == []
    assert rows(whole) == rows(second)


def test_a_run_killed_before_its_first_checkpoint_starts_again(make):
    whole = run(make("whole"))
    run(make("parts", at=(3, kill)), Killed)
    second = run(make("parts"))
    assert differing(whole, second) == []
    assert rows(whole) == rows(second)


def test_a_finished_run_takes_no_more_steps(make):
    first = run(make())
    again = run(make(at=(0, kill)))
    assert again.progress.step == 10
    assert differing(first, again) == []
    assert rows(again) == rows(first)


def test_time_adds_up_over_sessions(make):
    run(make(at=(7, kill)), Killed)
    second = make()
    before = second.progress.wall_s, second.progress.cpu_s
    assert min(before) > 0
    run(second)
    assert second.progress.wall_s > before[0]
    assert second.progress.cpu_s > before[1]


# ------------------------------------------------------------------ stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_run_can_go_on(make, number: signal.Signals):
    """Guards against lost work: the step in progress is finished and saved although no checkpoint is due."""
    whole = run(make("whole"))
    before = signal.getsignal(number)
    stopped = make("parts", at=(3, lambda: signal.raise_signal(number)))
    with pytest.raises(Interrupted, match=f"stopped by {number.name} after step 4"):
        stopped.run()
    assert signal.getsignal(number) is before
    second = make("parts")
    assert second.progress.step == 4
    run(second)
    assert differing(whole, second) == []
    assert rows(whole) == rows(second)


def test_a_signal_in_the_last_step_does_not_undo_it(make):
    trainer = run(make(at=(9, lambda: signal.raise_signal(signal.SIGINT))))
    assert trainer.progress.finished
    assert checkpoint.latest(trainer.checkpoint_dir).name == "step_00000010"


def test_a_second_signal_stops_at_once():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_signals_are_left_alone():
    """Guards against a crash when a run is started from a thread, where Python allows no handlers."""
    seen: list[Any] = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append(stop.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None]


@pytest.mark.parametrize("bad_gradient", [False, True])
def test_a_number_that_is_not_finite_stops_the_run(make, monkeypatch: pytest.MonkeyPatch, bad_gradient: bool):
    """Guards against hours of NaN, and a checkpoint that is overwritten with them."""
    monkeypatch.setattr(Faulty, "bad_gradient", bad_gradient)
    trainer = make(objective=Faulty, checkpoint_every_steps=2)
    with pytest.raises(DivergedError, match=r"step 3: loss=.*step_00000002.*training\.lr=0\.001"):
        trainer.run()
    assert all(value.isfinite().all() for value in weights(trainer).values()), "the update must not be applied"
    resumed = make(checkpoint_every_steps=2)
    assert resumed.progress.step == 2
    assert all(value.isfinite().all() for value in weights(resumed).values())


def test_without_a_checkpoint_the_message_says_so(make, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Faulty, "bad_step", 0)
    trainer = make(objective=Faulty)
    with pytest.raises(DivergedError, match=r"step 0: loss=nan.*none yet"):
        trainer.run()


def scripted(shares: Sequence[float], make_evaluation) -> Callable[[], dict[str, Any]]:
    values = iter(shares)
    return lambda: {"test": make_evaluation(next(values))}


@pytest.mark.parametrize(
    ("shares", "patience", "stopped_at"),
    [
        ([0.0, 1.0, 0.5, 1.0, 0.99], 2, 4),  # a miss starts the count again, and reaching the value is enough
        ([0.0, 0.5, 1.0], 1, 2),
        ([0.98] * 11, 1, 10),  # never: the run ends by itself
    ],
)
def test_the_stop_rule_waits_for_its_patience(make, make_evaluation, shares, patience: int, stopped_at: int):
    keys = {"stop_metric": "exact_match", "stop_at": 0.99, "stop_patience_evals": patience, "eval_every_steps": 1}
    trainer = make(**keys)
    trainer.evaluate = scripted(shares, make_evaluation)
    run(trainer)
    assert trainer.progress.step == stopped_at
    assert trainer.progress.finished
    assert checkpoint.latest(trainer.checkpoint_dir).name == f"step_{stopped_at:08d}"
    again = make(at=(stopped_at, kill), **keys)
    run(again)
    assert again.progress.step == stopped_at, "a run that stopped early is finished"


def test_parts_that_do_not_add_up_are_refused(make):
    """Guards against a log that shows another loss than the one that is minimised."""
    trainer = make()
    own = trainer.objective.loss

    def halved(*args: Any, **kwargs: Any) -> Loss:
        found = own(*args, **kwargs)
        return Loss(found.total, {"half": found.total / 2})

    trainer.objective.loss = halved
    with pytest.raises(
        ConfigError, match=r"the parts of its loss add up to .*give weighted parts \(half\) whose sum is the total"
    ):
        run(trainer)
    assert trainer.progress.step == 0


def test_the_stop_rule_reads_the_test_graphs(make, make_evaluation):
    """Guards against a run on a fixed set that stops once it has learned that set by heart."""
    trainer = make(stop_metric="exact_match", stop_patience_evals=1, eval_every_steps=1)
    trainer.evaluate = lambda: {"test": make_evaluation(0.5), "train": make_evaluation(1.0)}
    run(trainer)
    assert trainer.progress.step == 10


def test_the_patience_survives_a_resume(make, make_evaluation):
    """Guards against a count that starts again after every interruption."""
    keys = {"stop_metric": "exact_match", "stop_patience_evals": 3, "eval_every_steps": 1, "checkpoint_every_steps": 1}
    first = make(at=(2, kill), **keys)
    first.evaluate = scripted([0.0, 1.0, 1.0], make_evaluation)
    run(first, Killed)
    second = make(**keys)
    second.evaluate = scripted([1.0], make_evaluation)
    run(second)
    assert second.progress.step == 3


def test_without_a_stop_metric_nothing_stops(make, make_evaluation):
    trainer = make(eval_every_steps=1, stop_metric=None)
    trainer.evaluate = scripted([1.0] * 11, make_evaluation)
    run(trainer)
    assert trainer.progress.step == 10


def test_a_metric_without_rows_never_stops(make):
    """Guards against 0 of 0 as a success: the objective first_hop has no exact match."""
    keys = {"stop_metric": "exact_match", "stop_at": 0.0, "stop_patience_evals": 1, "eval_every_steps": 1}
    assert run(make(objective="first_hop", n_steps=3, **keys)).progress.step == 3
