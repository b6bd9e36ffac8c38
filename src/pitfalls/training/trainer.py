"""The training loop, in torch alone. It knows a trunk, an objective and a stream of batches, but nothing about graphs."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from pitfalls.models.trunk import Trunk
from pitfalls.objectives.base import Objective
from pitfalls.runs.counts import Count, Evaluation, Split
from pitfalls.runs.files import FileError
from pitfalls.runs.records import EvaluationRow, MetricsRow, TrainRow
from pitfalls.schemas import ConfigError, OptimizerConfig, PitfallsError, TrainingConfig
from pitfalls.seeding import derive_seed, generator
from pitfalls.tasks.batch import Batch
from pitfalls.training import checkpoint
from pitfalls.training.checkpoint import Progress
from pitfalls.training.device import autocast
from pitfalls.training.interrupt import Interrupted, StopRequest
from pitfalls.training.optimizers import make_optimizers
from pitfalls.training.processes import ALONE, Processes
from pitfalls.training.schedule import lr_factor
from pitfalls.training.trackers import Tracker

N_CHECKED = 8
"""Number of rows of the first batch on which the objective's view is checked."""


PARTS_TOLERANCE = 0.02
"""Largest difference between a loss and the sum of its parts, as a share of the loss. Sums in bf16 are coarse."""


class DivergedError(PitfallsError, FloatingPointError):
    """The loss or its gradient is not finite."""


class Stream(Protocol):
    """Batches as a function of the step."""

    def batch(self, step: int) -> Batch:
        """Return the batch of one step."""


Evaluations = dict[Split, Evaluation]
"""Evaluations by split: "test", and "train" if the training set is fixed."""


@dataclass
class Trainer:
    """The training of one run.

    Several processes may share a run (`pitfalls.training.processes`). Each takes its share of the micro-batches of every batch.
    Only the first one evaluates, logs and saves.
    """

    trunk: Trunk
    """The model, on the config's device."""
    objective: Objective
    """The objective, on the config's device."""
    stream: Stream
    """The stream of training batches."""
    config: TrainingConfig
    """The settings, with a concrete device and precision (`pitfalls.training.device`)."""
    optimizer: OptimizerConfig
    """The optimizer and its settings."""
    seed: int
    """Root seed of every random stream."""
    evaluate: Callable[[], Evaluations]
    """A function that scores the current weights."""
    checkpoint_dir: Path
    """Folder of the checkpoints."""
    trackers: Sequence[Tracker] = ()
    """Trackers that receive the numbers."""
    processes: Processes = ALONE
    """The processes that share the run."""

    def __post_init__(self) -> None:
        self.processes.check_share(self.config.accumulation)
        self.device = torch.device(self.config.device)
        self.optimizers = make_optimizers(self.trunk, self.objective, self.optimizer, self.config)
        self.progress = Progress()

    def resume(self) -> int:
        """Load the latest checkpoint, if there is one, and return the number of steps already taken."""
        latest = checkpoint.latest(self.checkpoint_dir)
        if latest is not None:
            self.progress = checkpoint.load(latest, trunk=self.trunk, objective=self.objective, optimizers=self.optimizers)
            if self.progress.step > self.config.n_steps:
                raise FileError(f"{latest}: step {self.progress.step} of training.n_steps={self.config.n_steps}; delete it")
        return self.progress.step

    def run(self) -> Progress:
        """Train to the end and return the progress there.

        Raises:
            ConfigError: the objective's view does not fit its batches. Nothing has been computed.
            DivergedError: loss or gradient is not finite. The message has the step and the last good checkpoint.
            Interrupted: a signal stopped the run, after a checkpoint.
        """
        started = time.perf_counter() - self.progress.wall_s, time.process_time() - self.progress.cpu_s
        with StopRequest() as stop:
            if self.progress.step == 0:
                self.objective.check_view(self.stream.batch(0).rows(0, N_CHECKED).to(self.device))
                self._evaluate()
            while not self.progress.finished:
                self._step(started)
                self.progress.wall_s = time.perf_counter() - started[0]
                self.progress.cpu_s = time.process_time() - started[1]
                due = self._due(self.config.checkpoint_every_steps) or self.progress.finished
                stopped = self.processes.any(stop.received is not None)
                if due or stopped:
                    self._save()
                if stopped and not self.progress.finished:
                    name = "a signal" if stop.received is None else stop.received.name
                    raise Interrupted(f"stopped by {name} after step {self.progress.step}")
        return self.progress

    def _step(self, started: tuple[float, float]) -> None:
        """Take one optimizer step. Log and evaluate if it is time for that."""
        began = time.perf_counter()
        loss, parts, grad_norm = self._update()
        self.progress.step += 1
        last = self.progress.step >= self.config.n_steps
        if last or self._due(self.config.log_every_steps):
            self._log(
                TrainRow(
                    step=self.progress.step,
                    samples=self.n_samples,
                    loss=loss,
                    wall_s=time.perf_counter() - started[0],
                    samples_per_s=self.config.batch_size / (time.perf_counter() - began),
                    grad_norm=grad_norm,
                    lr=self.optimizers.lr,
                    parts=parts,
                )
            )
        if last or self._due(self.config.eval_every_steps):
            self._evaluate()
        self.progress.finished |= last

    def _due(self, every: int) -> bool:
        return self.progress.step % every == 0

    def _update(self) -> tuple[float, dict[str, float], float]:
        """Update the weights with the next batch. Return the loss, its terms by name, and the gradient norm before clipping."""
        step, config = self.progress.step, self.config
        self.trunk.train()
        batch = self.stream.batch(step).to(self.device)
        n_rows = config.batch_size // config.accumulation
        losses: list[dict[str, float]] = []
        for i in self.processes.share(config.accumulation):
            place = step * config.accumulation + i
            draws = generator(self.seed, "objective", place, self.device)
            torch.manual_seed(derive_seed(self.seed, "global", place))  # only layers such as dropout draw from it
            with autocast(config):
                loss = self.objective.training_loss(
                    self.trunk, batch.rows(i * n_rows, (i + 1) * n_rows), step=step, generator=draws
                )
            (loss.total / config.accumulation).backward()
            values = {"total": loss.total, **loss.parts}
            # one transfer for all: each transfer waits for the GPU
            losses.append(dict(zip(values, torch.stack([value.detach() for value in values.values()]).tolist(), strict=True)))
        sums = self.processes.sum([math.fsum(row[name] for row in losses) for name in losses[0]])
        parts = {name: value / config.accumulation for name, value in zip(losses[0], sums, strict=True)}
        if step == 0:
            self._check_parts(parts)
        self.processes.sum_gradients(self.optimizers.parameters)
        grad_norm = self._clip()
        self._check_finite(parts["total"], grad_norm)
        self._set_lr(step)
        self.optimizers.step()
        return parts.pop("total"), parts, grad_norm

    def _check_parts(self, values: dict[str, float]) -> None:
        """Refuse an objective whose terms do not add up to its total: its log would show another loss than it minimises."""
        total, added = values["total"], math.fsum(value for name, value in values.items() if name != "total")
        if len(values) > 1 and abs(total - added) > PARTS_TOLERANCE * max(abs(total), abs(added)):
            raise ConfigError(
                f"{type(self.objective).__name__}: the parts of its loss add up to {added:.4g}, and its total is {total:.4g}; "
                f"give weighted parts ({', '.join(name for name in values if name != 'total')}) whose sum is the total"
            )

    def _clip(self) -> float:
        parameters = self.optimizers.parameters
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, self.config.max_grad_norm, norm)
        return float(norm)

    def _check_finite(self, loss: float, grad_norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(grad_norm):
            return
        good = checkpoint.latest(self.checkpoint_dir)
        raise DivergedError(
            f"step {self.progress.step}: loss={loss:g}, gradient norm={grad_norm:g}; "
            f"last good checkpoint: {good or 'none yet'}; lower training.lr={self.config.lr:g} "
            f"or set training.max_grad_norm (now {self.config.max_grad_norm})"
        )

    def _set_lr(self, step: int) -> None:
        config = self.config
        self.optimizers.set_lr(
            lr_factor(
                step,
                n_steps=config.n_steps,
                warmup_steps=config.warmup_steps,
                schedule=config.schedule,
                decay_steps=config.decay_steps,
                final_lr_fraction=config.final_lr_fraction,
            )
        )

    def _evaluate(self) -> None:
        """Score the weights, log the counts and apply the stop rule."""
        if self.processes.is_first:
            evaluations = self.evaluate()
            for split, evaluation in evaluations.items():
                self._log(EvaluationRow(self.progress.step, self.n_samples, split, evaluation))
            self._apply_stop_rule(evaluations)
        hits, finished = self.processes.of_first([float(self.progress.stop_hits), float(self.progress.finished)])
        self.progress.stop_hits, self.progress.finished = int(hits), bool(finished)

    def _apply_stop_rule(self, evaluations: Evaluations) -> None:
        if self.config.stop_metric is None:
            return
        found = getattr(evaluations["test"], self.config.stop_metric)
        value = found.share if isinstance(found, Count) else found
        met = value is not None and value >= self.config.stop_at
        self.progress.stop_hits = self.progress.stop_hits + 1 if met else 0
        self.progress.finished |= self.progress.stop_hits >= self.config.stop_patience_evals

    @property
    def n_samples(self) -> int:
        """Number of training rows seen so far."""
        return self.progress.step * self.config.batch_size

    def _log(self, row: MetricsRow) -> None:
        for tracker in self.trackers:
            tracker.log(row)

    def _save(self) -> None:
        if not self.processes.is_first:
            return
        checkpoint.save(
            self.checkpoint_dir,
            trunk=self.trunk,
            objective=self.objective,
            optimizers=self.optimizers,
            progress=self.progress,
        )
