"""Measurements on a finished run for the scripts: graphs for it to answer, its scores, its probes, its decoding strategies."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.experiment.build import Run, load_run, make_run_splits
from pitfalls.experiment.progress import progress
from pitfalls.runs import run_folder
from pitfalls.runs.counts import Evaluation, Split
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import EvaluationRow, Example
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from pitfalls.evaluation.strategies import StrategyScore
    from pitfalls.tasks.batch import Batch

MAX_SEEN = 0.98
"""Largest share of a task's graphs that may be in training sets. New graphs are drawn by rejection."""
MAX_NUMBERS = 2**28
"""Most numbers that a draw of new graphs may hold in memory (2 GiB). A draw holds n_values numbers per graph."""

# ------------------------------------------------------------------ graphs


@dataclass(frozen=True)
class Graphs:
    """Graphs for a run to answer. They can be gone through once."""

    n: int
    """Number of graphs."""
    batches: "Iterator[Batch]"
    """The graphs, some thousands at a time."""

    def parts(self) -> "Iterator[Batch]":
        """Yield the graphs in parts of one forward pass each."""
        from pitfalls.evaluation.score import BATCH_ROWS

        for batch in self.batches:
            for start in range(0, len(batch.prompt), BATCH_ROWS):
                yield batch.rows(start, start + BATCH_ROWS)


def graphs_for(run: Run, n: int | None, *, seed: int, data: Path | None) -> Graphs:
    """Return graphs for a run to answer.

    Args:
        run: the run. Graphs have the shape that it was trained on.
        n: number of graphs. None takes all graphs of a file.
        seed: seed of new graphs.
        data: a file of the authors' format whose first graphs are taken. None draws new ones.

    Raises:
        ConfigError: the file holds fewer graphs or graphs of another shape, or the number of new graphs is not given or too
            large for the memory.
        FileError: a line of the file is malformed. All lines are checked before any graph is answered.
    """
    if data is not None:
        return file_graphs(run, data, n)
    if n is None:
        raise ConfigError("--graphs or --data: say how many new graphs, or which file")
    return Graphs(n, iter([new_graphs(n, seed, run)]))


def file_graphs(run: Run, path: Path, n: int | None = None) -> Graphs:
    """Return the first n graphs of a file, or all. They are checked by a first reading. See `graphs_for`."""
    from pitfalls.tasks.official_format import infer_shape, read_batches

    degree, path_length = infer_shape(path)
    if (degree, path_length) != (run.task.degree, run.task.path_length):
        raise ConfigError(
            f"{path} holds G({degree},{path_length}), and the run was trained on {run.task}: take a run of that graph"
        )
    found = 0
    with progress(f"checks {path.name}", "lines") as tell:
        for batch in _first(read_batches(path, run.task.n_values), n):
            found += len(batch.prompt)
            tell(found, n)
    if n is not None and n > found:
        raise ConfigError(f"--graphs {n}: {path} has {found} graphs")
    return Graphs(found, _first(read_batches(path, run.task.n_values), n))


def _first(batches: "Iterator[Batch]", n: int | None) -> "Iterator[Batch]":
    """Yield the first n rows of batches, or all."""
    for batch in batches:
        if n is None:
            yield batch
            continue
        yield batch.rows(0, min(n, len(batch.prompt)))
        n -= len(batch.prompt)
        if n <= 0:
            return


def new_graphs(n: int, seed: int, *runs: Run) -> "Batch":
    """Return n graphs drawn anew, none of them from a fixed training set. An online run of a small task may have seen some.

    Args:
        n: number of graphs.
        seed: seed of the draws.
        runs: runs of one task. The graphs are in none of their training sets.

    Raises:
        ConfigError: the training sets hold all graphs of the task, or nearly all. Or they would not fit into the memory.
    """
    import torch

    from pitfalls.seeding import generator
    from pitfalls.tasks.splits import sample_unseen

    task = runs[0].task
    if n > (most := MAX_NUMBERS // task.n_values):
        raise ConfigError(f"--graphs {n}: at most {most} new graphs; write more to a file (scripts/make_data.py), for --data")
    sets = [rows for run in runs if (rows := make_run_splits(run).train.all_rows()) is not None]
    keys = [task.graph_keys(rows.prompt) for rows in sets]
    seen = torch.cat([torch.empty(0, dtype=torch.long), *keys]).unique()
    if len(seen) > MAX_SEEN * task.n_distinct_graphs:
        raise ConfigError(
            f"{task} on n_values={task.n_values} has {task.n_distinct_graphs:,} graphs, and {len(seen):,} are in a training set: "
            "too few are new; take runs with a smaller task.train_graphs or a larger task.n_values"
        )
    return sample_unseen(task, n, generator(seed, "probe"), seen)


def first_test_graphs(run: Run, n: int) -> "Batch":
    """Return the first n test graphs of a run.

    Raises:
        ConfigError: there are fewer.
    """
    test = make_run_splits(run).test
    if not 1 <= n <= len(test.prompt):
        raise ConfigError(f"--graphs {n}: from 1 to {len(test.prompt)}, the run's test graphs (task.test_graphs)")
    return test.rows(0, n)


# ------------------------------------------------------------------ measurements


def score(run: Run, graphs: Graphs, decoder: str | None = None) -> Evaluation:
    """Return the scores of a run on all graphs, of which there is at least one. See `Run.evaluate`."""
    parts, done = [], 0
    with progress("answers") as tell:
        for rows in graphs.parts():
            parts.append(run.evaluate(rows, decoder))
            tell(done := done + len(rows.prompt), graphs.n)
    return reduce(add, parts)


def answers(run: Run, graphs: Graphs) -> list[Example]:
    """Return the answers of a run to all graphs, token by token."""
    found: list[Example] = []
    with progress("answers") as tell:
        for rows in graphs.parts():
            found += run.examples(rows)
            tell(len(found), graphs.n)
    return found


def probe(run: Run, n_graphs: int, folder: Path) -> tuple[Probes, dict[str, str]]:
    """Return the results of all probes on the first test graphs, and why a probe has none, by its name.

    Args:
        run: a run, or a model with the task and objective that `pitfalls.experiment.loading` gave it.
        n_graphs: number of test graphs.
        folder: the folder of the run. Its ``metrics.jsonl`` has the learning curve, if there is one.
    """
    graphs, train = first_test_graphs(run, n_graphs), make_run_splits(run).train.all_rows()
    curve = [row for row in run_folder.read_metrics(folder) if isinstance(row, EvaluationRow)]
    evaluations: dict[Split, Evaluation] = {"test": score(run, Graphs(n_graphs, iter([graphs])))}
    if train is not None:
        evaluations["train"] = score(run, Graphs(len(train.prompt), iter([train])))
    run.trunk.eval()
    with progress("probes", "probes") as tell:
        return run.probe(graphs, evaluations, curve, tell)


def decode_run(run_dir: Path, n_graphs: int, seed: int, assistant_dir: Path | None = None) -> list["StrategyScore"]:
    """Return the score of every decoding strategy that fits a finished run, on its first test graphs.

    Args:
        run_dir: folder of a run with a checkpoint.
        n_graphs: number of test graphs.
        seed: seed of the samples.
        assistant_dir: another run of the same task, whose model drafts tokens that this one's verifies.

    Raises:
        ConfigError: a run cannot be loaded or does not answer whole paths, it has fewer graphs, or the assistant does not fit.
    """
    from pitfalls.evaluation.strategies import score_strategies

    run = load_run(run_dir)
    if len(run.objective.supervised()) < run.task.target_length:
        raise ConfigError(f"{run_dir}: objective={run.config.objective.name} does not answer whole paths; take another run")
    graphs = first_test_graphs(run, n_graphs).to(run.device)
    assistant = load_run(assistant_dir).trunk.lm if assistant_dir else None
    with run.autocast(), progress("all strategies") as tell:
        return score_strategies(run.trunk, run.objective, graphs, run.task.degree, seed, assistant, tell)
