"""Config -> record: one run, from a typed config to what it leaves behind."""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitfalls import records
from pitfalls.cell import Cell, autocast, build, make_run_splits
from pitfalls.configs import ROOT, resolve, run_dir_of, write_config
from pitfalls.schemas import Config, ConfigError

if TYPE_CHECKING:  # torch takes seconds to import: it comes in when a run starts
    from pitfalls.evaluation import Evaluation
    from pitfalls.tasks.batch import Batch
    from pitfalls.tasks.vocabulary import Vocabulary
    from pitfalls.training.checkpoint import Progress
    from pitfalls.training.trackers import Tracker

log = logging.getLogger(__name__)

N_EXAMPLES = 8
"""Graphs of which a record keeps the answers token by token."""

def run(config: Config, *, trackers: "Callable[[Config], Sequence[Tracker]] | None" = None) -> dict[str, Any]:
    """Train a run to its end and write its record; a finished run is read, a stopped one continued.

    Args:
        config: as composed; device and precision are resolved here.
        trackers: makes listeners for the run's numbers beside ``metrics.jsonl``; by default the terminal.

    Returns:
        The record (see `pitfalls.records`).

    Raises:
        ConfigError: before any compute.
        FloatingPointError, Interrupted: see `pitfalls.training.trainer.Trainer`; ``failure.json`` keeps the former.
    """
    config = resolve(config)
    run_dir = run_dir_of(config)
    if records.is_finished(run_dir):
        log.info("%s is finished; delete the folder to train it again", run_dir)
        return records.read_record(run_dir)
    try:
        record = _train(config, run_dir, trackers)
    except Exception as error:
        from pitfalls.training.interrupt import Interrupted

        if not isinstance(error, (ConfigError, Interrupted)):
            run_dir.mkdir(parents=True, exist_ok=True)
            failure = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
            records.write_json(run_dir / records.FAILURE, failure)
        raise
    (run_dir / records.FAILURE).unlink(missing_ok=True)
    return record


def _train(
    config: Config, run_dir: Path, trackers: "Callable[[Config], Sequence[Tracker]] | None"
) -> dict[str, Any]:
    import torch

    from pitfalls.seeding import derive_seed
    from pitfalls.training.display import terminal_display
    from pitfalls.training.trackers import JsonLines
    from pitfalls.training.trainer import Trainer

    environment = records.environment(ROOT)  # of the code that runs, whatever becomes of the checkout meanwhile
    torch.set_num_threads(config.training.n_threads)
    torch.manual_seed(derive_seed(config.seed, "global"))  # all that draws from it are layers such as dropout
    cell = build(config)
    splits = make_run_splits(cell)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_config(config, run_dir / records.CONFIG)
    evaluate = Evaluator(cell, {"test": splits.test, "train": splits.train.all_rows()})
    trainer = Trainer(
        trunk=cell.trunk,
        objective=cell.objective,
        stream=splits.train,
        config=config.training,
        seed=config.seed,
        evaluate=lambda: evaluate(config.training.eval_graphs),
        checkpoint_dir=run_dir / records.CHECKPOINT,
    )
    step = trainer.resume()
    listeners = (trackers or terminal_display)(config)
    trainer.trackers = [JsonLines(run_dir / records.METRICS, resume_step=step), *listeners]
    if step:
        log.info("%s continues after step %d", run_dir, step)
    try:
        progress = trainer.run()
        final = evaluate(None)
        seen = _examine(cell, splits.test.rows(0, config.training.probe_graphs), final, run_dir)
    finally:
        for tracker in trainer.trackers:
            tracker.close()
    today = datetime.now(UTC).date().isoformat()
    record = {"run": run_dir.name, "finished": today, **_outcome(cell, progress, final), **seen, **environment}
    records.write_json(run_dir / records.RECORD, record)
    return record


def _examine(cell: Cell, graphs: "Batch", final: "dict[str, Evaluation]", run_dir: Path) -> dict[str, Any]:
    """What later tables and pages need of the trained model, whose weights are not kept with the results."""
    from pitfalls.evaluation import examples
    from pitfalls.probes import Subject, run_probes

    curve = [row for row in records.read_metrics(run_dir) if row["kind"] == "eval"]
    graphs = graphs.to(cell.config.training.device)
    subject = Subject(cell.trunk, cell.objective, cell.task, graphs, cell.config.seed, final, curve)
    with autocast(cell.config):
        return {
            "probes": run_probes(subject),
            "examples": examples(cell.trunk, cell.objective, cell.task, graphs.rows(0, N_EXAMPLES)),
        }


def _outcome(cell: Cell, progress: "Progress", final: "dict[str, Evaluation]") -> dict[str, Any]:
    """The part of a record that the run itself decides."""
    config = cell.config
    return {
        "seed": config.seed,
        "steps": progress.step,
        "samples_seen": progress.step * config.training.batch_size,
        "stopped_early": progress.step < config.training.n_steps,
        "n_parameters": sum(p.numel() for p in (*cell.trunk.parameters(), *cell.objective.parameters())),
        "wall_s": round(progress.wall_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "supervised_positions": list(cell.objective.supervised()),
        "evaluation": {split: evaluation.to_json() for split, evaluation in final.items()},
        "model_tokens": _model_tokens(cell.objective.spec.vocabulary),
        "config": asdict(config),
    }


def _model_tokens(vocabulary: "Vocabulary") -> dict[str, list[Any]] | None:
    """What each node value and symbol is to a pretrained model: id and text of one of its tokens."""
    tokens = vocabulary.model_tokens
    return None if tokens is None else {vocabulary.symbol(i): list(token) for i, token in enumerate(tokens)}


class Evaluator:
    """Scores the current weights of a cell on its splits; a split of None (no training set to go back to) is left out."""

    def __init__(self, cell: Cell, splits: dict[str, Any]) -> None:
        self.cell = cell
        self.splits = {name: batch for name, batch in splits.items() if batch is not None}

    def __call__(self, n_rows: int | None) -> "dict[str, Evaluation]":
        """Score the first n_rows of each split, or all of them."""
        from pitfalls.evaluation import evaluate

        training = self.cell.config.training
        with autocast(self.cell.config):
            return {
                name: evaluate(
                    self.cell.trunk,
                    self.cell.objective,
                    self.cell.task,
                    batch.rows(0, len(batch.prompt) if n_rows is None else n_rows).to(training.device),
                )
                for name, batch in self.splits.items()
            }
