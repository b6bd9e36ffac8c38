"""The answers of a finished run: graphs for it, its scores, its probes, and the tables for the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table
from rich.text import Text

from pitfalls.results.formats import Table as TextTable
from pitfalls.results.statistics import wilson
from pitfalls.runs import run_folder
from pitfalls.runs.records import FIRST_HOP, Count, Evaluation, EvaluationRow, Example, Probes, Split
from pitfalls.schemas import ConfigError

if TYPE_CHECKING:  # torch takes seconds to import
    from pitfalls.experiment.build import Run
    from pitfalls.tasks.batch import Batch

OUTCOMES = ("exact_match", "first_hop", "right_arm", "wrong_arm", "wrong_arm_then_goal", "broken_walk")

# ------------------------------------------------------------------ graphs


def graphs_for(run: "Run", n: int | None, *, seed: int, data: Path | None) -> "Iterator[Batch]":
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


def file_graphs(run: "Run", path: Path, n: int | None = None) -> "Iterator[Batch]":
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


def new_graphs(run: "Run", n: int, seed: int) -> "Batch":
    """Return n graphs drawn anew, none of them from a fixed training set. An online run of a small task may have seen some."""
    import torch

    from pitfalls.experiment.build import make_run_splits
    from pitfalls.seeding import generator
    from pitfalls.tasks.splits import sample_unseen

    rows = make_run_splits(run).train.all_rows()
    seen = torch.empty(0, dtype=torch.long) if rows is None else run.task.graph_keys(rows.prompt).unique()
    return sample_unseen(run.task, n, generator(seed, "probe"), seen)


def first_test_graphs(run: "Run", n: int) -> "Batch":
    """Return the first n test graphs of a run.

    Raises:
        ConfigError: there are fewer.
    """
    from pitfalls.experiment.build import make_run_splits

    test = make_run_splits(run).test
    if not 1 <= n <= len(test.prompt):
        raise ConfigError(f"--graphs {n}: from 1 to {len(test.prompt)}, the run's test graphs (task.test_graphs)")
    return test.rows(0, n)


# ------------------------------------------------------------------ answers


def score(run: "Run", batches: "Iterator[Batch]", decoder: str | None = None) -> Evaluation:
    """Return the scores of a run on graphs.

    Args:
        run: the run.
        batches: the graphs.
        decoder: a decoding procedure of the objective, by default its own inference.

    Raises:
        ConfigError: the objective has no such procedure.
    """
    from pitfalls.evaluation.score import evaluate
    from pitfalls.training.device import autocast

    total: Evaluation | None = None
    for batch in batches:
        rows = batch.to(run.config.training.device)
        with autocast(run.config.training):
            part = evaluate(run.trunk, run.objective, run.task, rows, procedure=decoder)
        total = part if total is None else total + part
    assert total is not None  # an empty file has no shape
    return total


def answer(run: "Run", batch: "Batch") -> list[Example]:
    """Return a run's answers to graphs, token by token."""
    from pitfalls.evaluation.score import examples
    from pitfalls.training.device import autocast

    with autocast(run.config.training):
        return examples(run.trunk, run.objective, run.task, batch.to(run.config.training.device))


def probe(run: "Run", n_graphs: int, folder: Path) -> Probes:
    """Return the results of all probes on the first test graphs.

    Args:
        run: a run, or a model with the task and objective that `load` gave it.
        n_graphs: number of test graphs.
        folder: the folder of the run. Its ``metrics.jsonl`` has the learning curve, if there is one.
    """
    from pitfalls.experiment.build import make_run_splits
    from pitfalls.probes import ProbedModel, run_probes
    from pitfalls.training.device import autocast

    graphs, train = first_test_graphs(run, n_graphs), make_run_splits(run).train.all_rows()
    evaluations: dict[Split, Evaluation] = {"test": score(run, iter([graphs]))}
    if train is not None:
        evaluations["train"] = score(run, iter([train]))
    curve = [row for row in run_folder.read_metrics(folder) if isinstance(row, EvaluationRow)]
    graphs = graphs.to(run.config.training.device)
    with autocast(run.config.training):
        return run_probes(ProbedModel(run.trunk.eval(), run.objective, run.task, graphs, run.config.seed, evaluations, curve))


def load(folder: Path, overrides: list[str]) -> "Run":
    """Return the run of a folder, or a model in the hub's layout with a task and an objective.

    Args:
        folder: the folder of a run, or one written by ``save_pretrained``.
        overrides: for a model, arguments of ``scripts/train.py``: ``task=...`` and, for example, ``objective=...``.

    Raises:
        ConfigError: the folder is neither, or the overrides do not go with it.
    """
    from pitfalls.experiment.build import build, load_run
    from pitfalls.experiment.config import resolve
    from pitfalls.experiment.hydra_app import compose

    if (folder / run_folder.CONFIG).exists():
        if overrides:
            raise ConfigError(f"{overrides[0]}: {folder} is a run and brings its own config; leave the overrides out")
        return load_run(folder)
    if not (folder / "config.json").exists():
        raise ConfigError(f"{folder}: neither a run ({run_folder.CONFIG}) nor a model in the hub's layout (config.json)")
    if not any(override.startswith("task") for override in overrides):
        raise ConfigError(f"{folder} is a model: say which graphs it is to answer, for example task=g2_5")
    source = ["model=gpt2", f"model.name={folder.name}", f"model.source={folder}", "model.revision=null"]
    return build(resolve(compose([*source, *overrides])))


# ------------------------------------------------------------------ tables


def score_table(evaluation: Evaluation, title: str) -> TextTable:
    """Return every count with its share and its 95 % Wilson interval."""
    rows = [_count_row(name.replace("_", " "), getattr(evaluation, name)) for name in OUTCOMES]
    for i, (free, forced) in enumerate(zip(evaluation.free_position_accuracy, evaluation.forced_position_accuracy, strict=True)):
        rows += [_count_row(f"position {i}, free ({evaluation.decoder})", free), _count_row(f"position {i}, forced", forced)]
    return TextTable(title, ("what", "share", "95 % interval", "k of n"), tuple(rows))


def _count_row(name: str, count: Count) -> tuple[str, ...]:
    if not count.n:
        return name, "-", "-", "not answered"
    low, high = wilson(count.k, count.n)
    return name, f"{count.k / count.n:.4f}", f"{low:.4f} to {high:.4f}", f"{count.k} of {count.n}"


def probe_table(probes: Probes, title: str) -> TextTable:
    """Return one row per number. Where a probe has a number per target position, the row has them all."""
    rows: list[tuple[str, ...]] = []
    for name, result in msgspec.to_builtins(probes).items():
        lines = [("does not apply to this method", "", "")] if result is None else _probe_lines(result)
        rows += [("" if i else name.replace("_", " "), *line) for i, line in enumerate(lines)]
    return TextTable(title, ("probe", "what", "value", "of"), tuple(rows))


def _probe_lines(result: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    """Return name, value and number of values of each number."""
    lines: list[tuple[str, str, str]] = []
    for name, value in result.items():
        what = f"{prefix} {name}".strip().replace("_", " ")
        if isinstance(value, dict) and "n" not in value:
            lines += _probe_lines(value, what)
        elif isinstance(value, list):
            shown, sizes = zip(*map(_number, value), strict=True)
            lines.append((f"{what}, start to goal", " ".join(shown), " ".join(dict.fromkeys(sizes))))
        else:
            text, size = _number(value)
            if isinstance(value, dict) and value["n"] and "k" in value:
                low, high = wilson(value["k"], value["n"])
                text += f"  [{low:.3f}, {high:.3f}]"
            lines.append((what, text, size))
    return lines


def _number(value: Any) -> tuple[str, str]:
    """Return one number as text, and the number of values behind it."""
    if value is None:
        return "-", ""
    if isinstance(value, dict) and "k" in value:
        return (f"{value['k'] / value['n']:.3f}" if value["n"] else "-"), f"{value['n']:,}"
    if isinstance(value, dict):
        return f"{value['sum'] / value['n']:.3f} nats", f"{value['n']:,}"
    return (f"{value:,}" if isinstance(value, int) else f"{value:.3f}"), ""


def example_blocks(number: int, example: Example) -> list[Text | Table]:
    """Return one graph with its question, and its answer token by token: right tokens green, wrong ones red."""
    edges = "  ".join(f"{a}→{b}" for a, b in example.edges)
    head = Text(f"\ngraph {number}: {edges}\nfrom {example.start} to {example.goal}", "bold")
    table = Table(title=f"answer: {example.outcome.replace('_', ' ')}" if example.outcome else "answer")
    for name in ("position", "target", "answer", "p(answer)", "p(target)", "entropy, nats"):
        table.add_column(name, justify="right")
    reading = example.reading
    for i, (want, got) in enumerate(zip(example.target, example.answer, strict=True)):
        style = "dim" if i not in example.answered else "green" if want == got else "bold red"
        name = f"{i} (first hop)" if i == FIRST_HOP else str(i)
        numbers = (
            [f"{values[i]:.3f}" for values in (reading.p_answer, reading.p_target, reading.entropy)] if reading else ["-"] * 3
        )
        table.add_row(name, want, Text(got, style), *numbers)
    return [head, table]
