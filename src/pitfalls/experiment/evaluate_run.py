"""Measurements on a finished run for the scripts: graphs for it to answer, its scores, its probes, its decoding strategies."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pitfalls.experiment.build import Run, load_run, make_run_splits
from pitfalls.runs import run_folder
from pitfalls.runs.counts import Evaluation, Split
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import EvaluationRow
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from pitfalls.evaluation.strategies import StrategyScore
    from pitfalls.tasks.batch import Batch

# ------------------------------------------------------------------ graphs


def graphs_for(run: Run, n: int | None, *, seed: int, data: Path | None) -> "Iterator[Batch]":
    """Yield graphs for a run to answer, some thousands at a time.

    Args:
        run: the run. Graphs have the shape that it was trained on.
        n: number of graphs. None takes all graphs of a file.
        seed: seed of new graphs.
        data: a file of the authors' format whose first graphs are taken. None draws new ones.

    Raises:
        ConfigError: the file holds fewer graphs or graphs of another shape, or the number of new graphs is not given.
        FileError: a line of the file is malformed.
    """
    if data is not None:
        return file_graphs(run, data, n)
    if n is None:
        raise ConfigError("--graphs or --data: say how many new graphs, or which file")
    return iter([new_graphs(run, n, seed)])


def file_graphs(run: Run, path: Path, n: int | None = None) -> "Iterator[Batch]":
    """Return the first n graphs of a file, or all. Shape and number are checked before any graph is read. See `graphs_for`."""
    from pitfalls.tasks.official_format import infer_shape, read_batches

    degree, path_length = infer_shape(path)
    if (degree, path_length) != (run.task.degree, run.task.path_length):
        raise ConfigError(
            f"{path} holds G({degree},{path_length}), and the run was trained on {run.task}: take a run of that graph"
        )
    if n is not None:
        with path.open("rb") as file:
            n_lines = sum(1 for _ in file)
        if n > n_lines:
            raise ConfigError(f"--graphs {n}: {path} has {n_lines} graphs")
    return _first(read_batches(path, run.task.n_values), n)


def _first(batches: "Iterator[Batch]", n: int | None) -> "Iterator[Batch]":
    """Yield the first n rows of batches, or all."""
    for batch in batches:
        if n is None:
            yield batch
        elif n > 0:
            yield batch.rows(0, min(n, len(batch.prompt)))
            n -= len(batch.prompt)
        else:
            return


def new_graphs(run: Run, n: int, seed: int) -> "Batch":
    """Return n graphs drawn anew, none of them from a fixed training set. An online run of a small task may have seen some."""
    import torch

    from pitfalls.seeding import generator
    from pitfalls.tasks.splits import sample_unseen

    rows = make_run_splits(run).train.all_rows()
    seen = torch.empty(0, dtype=torch.long) if rows is None else run.task.graph_keys(rows.prompt).unique()
    return sample_unseen(run.task, n, generator(seed, "probe"), seen)


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


def score(run: Run, batches: "Iterator[Batch]", decoder: str | None = None) -> Evaluation:
    """Return the scores of a run on all graphs of some batches, of which there is at least one. See `Run.evaluate`."""
    total = run.evaluate(next(batches), decoder)
    for batch in batches:
        total += run.evaluate(batch, decoder)
    return total


def probe(run: Run, n_graphs: int, folder: Path) -> tuple[Probes, dict[str, str]]:
    """Return the results of all probes on the first test graphs, and why a probe has none, by its name.

    Args:
        run: a run, or a model with the task and objective that `pitfalls.experiment.loading` gave it.
        n_graphs: number of test graphs.
        folder: the folder of the run. Its ``metrics.jsonl`` has the learning curve, if there is one.
    """
    graphs, train = first_test_graphs(run, n_graphs), make_run_splits(run).train.all_rows()
    evaluations: dict[Split, Evaluation] = {"test": run.evaluate(graphs)}
    if train is not None:
        evaluations["train"] = run.evaluate(train)
    curve = [row for row in run_folder.read_metrics(folder) if isinstance(row, EvaluationRow)]
    run.trunk.eval()
    return run.probe(graphs, evaluations, curve)


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
    with run.autocast():
        return score_strategies(run.trunk, run.objective, graphs, run.task.degree, seed, assistant)
