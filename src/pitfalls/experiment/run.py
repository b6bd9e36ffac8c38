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
from pitfalls.runs.files import remove_half_written, write_json
from pitfalls.runs.lock import HOLDER, RunLock, RunTakenError
from pitfalls.runs.records import ConfigRecord, EvaluationRow, Failure, Record
from pitfalls.schemas import Config, ConfigError, TrainingConfig

if TYPE_CHECKING:  # torch takes seconds to import, so it is imported when a run starts
    from pitfalls.runs.counts import Evaluation, Split
    from pitfalls.tasks.splits import Splits
    from pitfalls.tasks.vocabulary import Vocabulary
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
        FileError: the run's folder is a link or holds one.
        RunTakenError: another process trains this run.
        DivergedError: the loss is not finite. Like every other error in training, it is kept in ``failure.json``.
        Interrupted: the run was asked to stop, and has saved.
    """
    from pitfalls.training.processes import joined

    run_dir = run_dir_of(config)
    if run_folder.is_finished(run_dir):
        log.info("%s is finished; delete the folder to train it again", run_dir)
        return run_folder.read_record(run_dir)
    run_folder.check_kinds(run_dir)
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
    from pitfalls.training.trainer import Trainer

    environment = provenance.environment(ROOT)  # of the running code: the checkout may change meanwhile
    _prepare(config.training, config.seed)
    run = build(config)
    splits = make_run_splits(run)
    trainer = Trainer(
        trunk=run.trunk,
        objective=run.objective,
        stream=splits.train,
        config=config.training,
        optimizer=config.optimizer,
        seed=config.seed,
        evaluate=lambda: run.evaluate_splits(splits, config.training.eval_graphs),
        checkpoint_dir=run_dir / run_folder.CHECKPOINT,
        processes=processes,
    )
    with _claimed(run_dir, config.training.n_steps, processes):
        if processes.any(processes.is_first and run_folder.is_finished(run_dir)):  # another process finished it meanwhile
            return run_folder.read_record(run_dir) if processes.is_first else None
        step = _resume(trainer)
        if not processes.is_first:
            trainer.run()
            return None
        remove_half_written(run_dir, (run_folder.CONFIG, run_folder.METRICS, run_folder.RECORD, run_folder.FAILURE, HOLDER))
        write_config(config, run_dir / run_folder.CONFIG)
        with _logged(trainer, config, run_dir, make_display, step):
            trainer.run()
            final = run.evaluate_splits(splits)
            record = _record(run, splits, run_dir, trainer, final, environment | {"processes": processes.n})
        write_json(run_dir / run_folder.RECORD, record)
        (run_dir / run_folder.FAILURE).unlink(missing_ok=True)  # left by a process that failed while this one waited for its lock
    return record


def _prepare(training: TrainingConfig, seed: int) -> None:
    """Set the process up: threads, memory and torch's global random state."""
    import torch

    from pitfalls.seeding import derive_seed
    from pitfalls.training.device import multiplies_bf16, prepare_process

    prepare_process(training.n_threads)
    if training.precision == "bf16" and not multiplies_bf16(torch.device(training.device)):
        log.warning("training.precision=bf16 is emulated here, many times slower than training.precision=fp32 (auto takes that)")
    torch.manual_seed(derive_seed(seed, "global"))  # for layers of a pretrained model that draw their own weights


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
            raise taken or RunTakenError(f"{run_dir}: the first process could not start this run; its own message says why")
        yield


def _resume(trainer: "Trainer") -> int:
    """Resume from the checkpoint and return its step. All processes have to find the same checkpoint."""
    step = trainer.resume()
    first = int(trainer.processes.of_first([step])[0])
    if step != first:
        raise ConfigError(
            f"process {trainer.processes.rank} finds a checkpoint of step {step}, the first one of step {first}: "
            f"let all processes read the same folder {trainer.checkpoint_dir}"
        )
    return step


@contextmanager
def _logged(trainer: "Trainer", config: Config, run_dir: Path, make_display: MakeDisplay | None, step: int) -> Iterator[None]:
    """Give the trainer the run's trackers: its ``metrics.jsonl``, a display, and those of the config. Close them at the end."""
    from pitfalls.training.display import terminal_display
    from pitfalls.training.trackers import JsonLines, optional_trackers

    if step:
        log.info("%s continues after step %d", run_dir, step)
    trainer.trackers = [
        JsonLines(run_dir / run_folder.METRICS, resume_step=step),
        *(make_display or terminal_display)(config),
        *optional_trackers(config.trackers, run_dir, asdict(config)),  # they receive the rows that JsonLines has kept
    ]
    try:
        yield
    finally:
        for tracker in trainer.trackers:
            tracker.close()


def _record(
    run: Run, splits: "Splits", run_dir: Path, trainer: "Trainer", final: "dict[Split, Evaluation]", environment: dict[str, Any]
) -> Record:
    """Return the record of a trained run. Probes and examples are computed now, because the weights are not kept."""
    config, objective, progress = run.config, run.objective, trainer.progress
    graphs = splits.test.rows(0, config.training.probe_graphs)
    curve = [row for row in run_folder.read_metrics(run_dir) if isinstance(row, EvaluationRow)]
    (probes, _), examples = run.probe(graphs, final, curve), run.examples(graphs.rows(0, N_EXAMPLES))
    return Record(
        run=run_dir.name,
        finished=datetime.now(UTC).date().isoformat(),
        seed=config.seed,
        steps=progress.step,
        samples_seen=progress.step * config.training.batch_size,
        stopped_early=progress.step < config.training.n_steps,
        n_parameters=sum(p.numel() for p in (*run.trunk.parameters(), *objective.parameters())),
        n_objective_parameters=sum(p.numel() for p in objective.parameters()),
        horizon=objective.horizon,
        wall_s=round(progress.wall_s, 3),
        cpu_s=round(progress.cpu_s, 3),
        supervised_positions=list(objective.supervised()),
        evaluation=final,
        model_tokens=_model_tokens(objective.spec.vocabulary),
        config=msgspec.convert(asdict(config), ConfigRecord),
        cost=run.sample_cost(splits.train.batch(0).rows(0, 2)),
        probes=probes,
        examples=examples,
        placement=trainer.optimizers.placement(),
        **environment,
    )


def _model_tokens(vocabulary: "Vocabulary") -> dict[str, tuple[int, str]] | None:
    """Return the token id and text that a pretrained model has for each node value and symbol, or None for other models."""
    tokens = vocabulary.model_tokens
    return None if tokens is None else {vocabulary.symbol(i): (token.id, token.text) for i, token in enumerate(tokens)}
