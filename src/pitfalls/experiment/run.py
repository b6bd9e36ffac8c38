"""Training of one run, from a resolved config to the folder with its record."""

import logging
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pitfalls.experiment.build import Run, build, make_run_splits
from pitfalls.experiment.config import ROOT, run_dir_of, write_config
from pitfalls.runs import provenance, run_folder
from pitfalls.runs.files import write_json
from pitfalls.runs.lock import HOLDER, RunLock, RunTakenError
from pitfalls.runs.records import ConfigRecord, EvaluationRow, Failure, Record, SampleCost
from pitfalls.schemas import Config, ConfigError

if TYPE_CHECKING:  # torch takes seconds to import, so it is imported when a run starts
    from pitfalls.runs.records import Evaluation, Split
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.vocabulary import Vocabulary
    from pitfalls.training.checkpoint import Progress
    from pitfalls.training.processes import Processes
    from pitfalls.training.trackers import Tracker
    from pitfalls.training.trainer import Trainer

log = logging.getLogger(__name__)

MakeDisplay = Callable[[Config], Sequence["Tracker"]]
"""A function that makes the display of a run's numbers during training."""

N_EXAMPLES = 8
"""Number of graphs whose answers a record keeps token by token."""


def train_run(config: Config, *, make_display: MakeDisplay | None = None, overrides: Sequence[str] = ()) -> Record | None:
    """Train a run to its end and write its record. The record of a finished run is read, and a stopped run continues.

    Args:
        config: a config from `pitfalls.experiment.config.resolve`.
        make_display: makes the display of the run's numbers, by default the terminal's. The files of the run and
            ``config.trackers`` get the numbers in any case.
        overrides: the command line that started the run. It is kept with a failure.

    Returns:
        The record, or None on all but the first of several processes.

    Raises:
        ConfigError: the model cannot be built. Nothing has been computed.
        RunTakenError: another process trains this run.
        DivergedError: the loss is not finite. Like every other error in training, it is kept in ``failure.json``.
        Interrupted: the run was asked to stop, and has saved.
    """
    from pitfalls.training.processes import joined

    run_dir = run_dir_of(config)
    if run_folder.is_finished(run_dir):
        log.info("%s is finished; delete the folder to train it again", run_dir)
        return run_folder.read_record(run_dir)
    with joined(config.training.device) as processes, _failure_kept(run_dir, processes, overrides):
        record = _train(config, run_dir, make_display, processes)
        processes.any(False)  # all processes wait for the first one
    return record


@contextmanager
def _failure_kept(run_dir: Path, processes: "Processes", overrides: Sequence[str]) -> Iterator[None]:
    """Keep the error that ends a run in ``failure.json``, and remove that of an earlier try.

    Of several processes, the one that fails first writes the file. The others notice only when it has left the process group.
    So their own error, "connection closed", finds the file already there and does not replace it.
    """
    from pitfalls.training.interrupt import Interrupted

    path = run_dir / run_folder.FAILURE
    if processes.is_first:
        path.unlink(missing_ok=True)
    processes.any(False)  # the old file must be gone before any process can fail
    try:
        yield
    except (ConfigError, RunTakenError, Interrupted):
        raise
    except Exception as error:
        failure = Failure(f"{type(error).__name__}: {error}", list(overrides), traceback.format_exc())
        with suppress(OSError):  # a full disk must not hide the error
            run_dir.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                write_json(path, failure)
        raise


def _train(config: Config, run_dir: Path, make_display: MakeDisplay | None, processes: "Processes") -> Record | None:
    environment = provenance.environment(ROOT)  # of the running code: the checkout may change meanwhile
    _prepare(config)
    run = build(config)
    splits = make_run_splits(run)
    evaluate = Evaluator(run, {"test": splits.test, "train": splits.train.all_rows()})
    trainer = _trainer(run, splits.train, evaluate, run_dir, processes)
    with _claimed(run_dir, config.training.n_steps, processes):
        if processes.any(processes.is_first and run_folder.is_finished(run_dir)):  # another process finished it meanwhile
            return run_folder.read_record(run_dir) if processes.is_first else None
        if not processes.is_first:
            _start(trainer)
            trainer.run()
            return None
        _remove_half_written(run_dir)
        write_config(config, run_dir / run_folder.CONFIG)
        final, seen = _train_and_examine(trainer, run, splits.test, evaluate, run_dir, make_display)
        record = Record(
            run=run_dir.name,
            finished=datetime.now(UTC).date().isoformat(),
            **_outcome(run, trainer.progress, final),
            cost=_cost(run, splits.train),
            **seen,
            **environment,
            processes=processes.n,
        )
        write_json(run_dir / run_folder.RECORD, record)
        (run_dir / run_folder.FAILURE).unlink(missing_ok=True)  # left by a process that failed while this one waited for its lock
    return record


def _prepare(config: Config) -> None:
    """Set the process up: threads, memory and torch's global random state."""
    import torch

    from pitfalls.seeding import derive_seed
    from pitfalls.training.device import multiplies_bf16, prepare_process

    prepare_process(config.training.n_threads)
    if config.training.precision == "bf16" and not multiplies_bf16(torch.device(config.training.device)):
        log.warning("training.precision=bf16 is emulated here, many times slower than training.precision=fp32 (auto takes that)")
    torch.manual_seed(derive_seed(config.seed, "global"))  # for layers of a pretrained model that draw their own weights


@contextmanager
def _claimed(run_dir: Path, n_steps: int, processes: "Processes") -> Iterator[None]:
    """Hold the run's lock in the first process. If the lock is taken, all processes stop.

    Raises:
        RunTakenError: another process trains this run.
    """
    with ExitStack() as held:
        taken: RunTakenError | None = None
        if processes.is_first:
            run_dir.mkdir(parents=True, exist_ok=True)
            try:
                held.enter_context(RunLock(run_dir, n_steps))
            except RunTakenError as error:
                taken = error
        if processes.any(taken is not None):
            raise taken or RunTakenError(f"{run_dir}: the first process could not claim this run")
        yield


def _remove_half_written(run_dir: Path) -> None:
    """Remove the half-written files of a process that was killed (`pitfalls.runs.files.write_bytes`)."""
    for name in (run_folder.CONFIG, run_folder.METRICS, run_folder.RECORD, run_folder.FAILURE, HOLDER):
        for leftover in run_dir.glob(f".{name}.*"):
            leftover.unlink()


def _trainer(run: Run, stream: Any, evaluate: "Evaluator", run_dir: Path, processes: "Processes") -> "Trainer":
    from pitfalls.training.trainer import Trainer

    training = run.config.training
    return Trainer(
        trunk=run.trunk,
        objective=run.objective,
        stream=stream,
        config=training,
        seed=run.config.seed,
        evaluate=lambda: evaluate(training.eval_graphs),
        checkpoint_dir=run_dir / run_folder.CHECKPOINT,
        processes=processes,
    )


def _start(trainer: "Trainer") -> int:
    """Resume from the checkpoint and return its step. All processes have to find the same checkpoint."""
    step = trainer.resume()
    first = int(trainer.processes.of_first([step])[0])
    if step != first:
        raise ConfigError(
            f"process {trainer.processes.rank} finds a checkpoint of step {step}, the first one of step {first}: "
            f"all processes need the same {trainer.checkpoint_dir}"
        )
    return step


def _train_and_examine(
    trainer: "Trainer",
    run: Run,
    test: "Batch",
    evaluate: "Evaluator",
    run_dir: Path,
    make_display: MakeDisplay | None,
) -> tuple["dict[Split, Evaluation]", dict[str, Any]]:
    """Train to the end. Return the final scores, probes and examples."""
    from pitfalls.training.display import terminal_display
    from pitfalls.training.trackers import JsonLines, optional_trackers

    config = run.config
    if step := _start(trainer):
        log.info("%s continues after step %d", run_dir, step)
    trainer.trackers = [
        JsonLines(run_dir / run_folder.METRICS, resume_step=step),
        *(make_display or terminal_display)(config),
        *optional_trackers(config.trackers, run_dir, asdict(config), step),
    ]
    try:
        trainer.run()
        final = evaluate(None)
        return final, _examine(run, test.rows(0, config.training.probe_graphs), final, run_dir)
    finally:
        for tracker in trainer.trackers:
            tracker.close()


def _examine(run: Run, graphs: "Batch", final: "dict[Split, Evaluation]", run_dir: Path) -> dict[str, Any]:
    """Return the probes and examples of a record. They are computed now, because the weights are not kept."""
    from pitfalls.evaluation.score import examples
    from pitfalls.probes import ProbedModel, run_probes
    from pitfalls.training.device import autocast

    curve = [row for row in run_folder.read_metrics(run_dir) if isinstance(row, EvaluationRow)]
    graphs = graphs.to(run.config.training.device)
    probed = ProbedModel(run.trunk, run.objective, run.task, graphs, run.config.seed, final, curve)
    with autocast(run.config.training):
        return {
            "probes": run_probes(probed),
            "examples": examples(run.trunk, run.objective, run.task, graphs.rows(0, N_EXAMPLES)),
        }


def _outcome(run: Run, progress: "Progress", final: "dict[Split, Evaluation]") -> dict[str, Any]:
    """Return the fields of a record that the training decides."""
    config = run.config
    return {
        "seed": config.seed,
        "steps": progress.step,
        "samples_seen": progress.step * config.training.batch_size,
        "stopped_early": progress.step < config.training.n_steps,
        "n_parameters": sum(p.numel() for p in (*run.trunk.parameters(), *run.objective.parameters())),
        "n_objective_parameters": sum(p.numel() for p in run.objective.parameters()),
        "horizon": run.objective.horizon,
        "wall_s": round(progress.wall_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "supervised_positions": list(run.objective.supervised()),
        "evaluation": final,
        "model_tokens": _model_tokens(run.objective.spec.vocabulary),
        "config": msgspec.convert(asdict(config), ConfigRecord),
    }


def _cost(run: Run, stream: Any) -> SampleCost:
    """Return the cost of a training sample, counted on two rows of the first batch."""
    from pitfalls.training.cost import measure
    from pitfalls.training.device import autocast

    rows = stream.batch(0).rows(0, 2).to(run.config.training.device)
    with autocast(run.config.training):
        return measure(run.trunk, run.objective, rows, run.config.seed)


def _model_tokens(vocabulary: "Vocabulary") -> dict[str, tuple[int, str]] | None:
    """Return the token id and text that a pretrained model has for each node value and symbol, or None for other models."""
    tokens = vocabulary.model_tokens
    return None if tokens is None else {vocabulary.symbol(i): (token.id, token.text) for i, token in enumerate(tokens)}


class Evaluator:
    """A function that scores the current weights of a run on its splits. A split of None is left out."""

    def __init__(self, run: Run, splits: "dict[Split, Batch | None]") -> None:
        self.run = run
        self.splits = {name: batch for name, batch in splits.items() if batch is not None}

    def __call__(self, n_rows: int | None) -> "dict[Split, Evaluation]":
        """Return the scores on the first n_rows of each split, or on all rows."""
        from pitfalls.evaluation.score import evaluate
        from pitfalls.training.device import autocast

        training = self.run.config.training
        with autocast(self.run.config.training):
            return {
                name: evaluate(
                    self.run.trunk,
                    self.run.objective,
                    self.run.task,
                    batch.rows(0, len(batch.prompt) if n_rows is None else n_rows).to(training.device),
                )
                for name, batch in self.splits.items()
            }
