"""One table of finished runs, for ``scripts/collect.py`` and for a data frame. It imports neither torch nor pandas."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pitfalls.runs import run_folder
from pitfalls.runs.counts import Count, Evaluation
from pitfalls.runs.files import FileError
from pitfalls.runs.records import Record, Summary
from pitfalls.runs.sweeps import run_dirs


def read_finished(runs_dir: Path, tell: Callable[[str], None], tell_copy: Callable[[str], None]) -> list[Summary]:
    """Return the finished runs of a folder, in the order of their names. A run that several folders hold is returned once.

    Args:
        runs_dir: the folder with the runs.
        tell: called with one line about each record that cannot be read. The run of that record is left out.
        tell_copy: called with one line about each folder whose run another folder holds. Of the two, the folder counts that
            has the name of the run, or else the first one.
    """
    found: dict[str, tuple[Path, Summary]] = {}
    for run_dir in filter(run_folder.is_finished, run_dirs(runs_dir)):
        try:
            run = run_folder.read_summary(run_dir)
        except (OSError, FileError) as error:
            tell(str(error))
            continue
        counted, copy = found.get(run.run, (run_dir, run)), (run_dir, run)
        if run_dir.name == run.run:
            counted, copy = copy, counted
        found[run.run] = counted
        if counted[0] != copy[0]:
            how = "" if counted[1].evaluation == copy[1].evaluation else ", with other numbers"
            tell_copy(f"{copy[0]}: it holds the run of {counted[0]}{how}")
    return [run for _, run in sorted(found.values(), key=lambda pair: pair[0].name)]


def table(runs: Iterable[Summary]) -> list[dict[str, Any]]:
    """Return a row per run, from the name of a column to its value. All rows have the same columns in the same order.

    The columns are:

    - ``run``, the objective, the model, the graph (``degree``, ``path_length``, ``n_values``), the seed, and ``chance`` = 1/d.
    - ``exact_match``, ``first_hop`` and the outcomes on test graphs, as shares, and ``train_exact_match``.
    - ``samples_seen``, ``stopped_early``, ``n_parameters``, ``wall_s`` (seconds), ``commit`` and ``dirty``.
    - ``forced_0``, ``forced_1``, ...: accuracy at each target position, given the gold tokens before it.
    - ``free_0``, ...: accuracy at each position in the method's own answers. ``entropy_0``, ...: mean entropy in nats, for whole
      records only.
    - the counts behind the shares: ``test_exact_match_k`` of ``test_exact_match_n``, ``train_position_1_k``, and so on.
    - every key of the config in which the runs differ, such as ``training.lr``.

    A number that a run does not have is None.
    """
    runs = list(runs)
    longest = max((run.config.task.path_length for run in runs), default=0)
    rows = [_facts(run, longest) | dict(_counts(run)) for run in runs]
    configs = [_config(run) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    differing = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [
        {name: row.get(name) for name in names} | {key: config.get(key) for key in differing}
        for row, config in zip(rows, configs, strict=True)
    ]


def _facts(run: Summary, n_positions: int) -> dict[str, Any]:
    def by_position(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
        return {f"{name}_{i}": values[i] if i < len(values) else None for i in range(n_positions)}

    task, test, train = run.config.task, run.evaluation["test"], run.evaluation.get("train")
    facts = {
        "run": run.run,
        "objective": run.config.objective_name,
        "model": run.config.model_name,
        "degree": task.degree,
        "path_length": task.path_length,
        "n_values": task.n_values,
        "seed": run.seed,
        "chance": 1 / task.degree,
        **_shares(test),
        "train_exact_match": None if train is None else train.exact_match.share,
        "samples_seen": run.samples_seen,
        "stopped_early": run.stopped_early,
        "n_parameters": run.n_parameters,
        "wall_s": run.wall_s,
        "commit": run.commit,
        "dirty": run.dirty,
        **by_position("forced", test.forced),
        **by_position("free", test.free),
    }
    if isinstance(run, Record):
        probe = run.probes.uncertainty
        facts |= by_position("entropy", [] if probe is None else [moments.mean for moments in probe.entropy])
    return facts


def _shares(evaluation: Evaluation) -> dict[str, float | None]:
    """Return the whole-answer counts as shares."""
    counts = {name: getattr(evaluation, name) for name in evaluation.__struct_fields__}
    return {name: count.share for name, count in counts.items() if isinstance(count, Count)}


def _counts(run: Summary) -> Iterator[tuple[str, int]]:
    for split, evaluation in run.evaluation.items():
        named = {"exact_match": evaluation.exact_match, "first_hop": evaluation.first_hop}
        named |= {f"position_{i}": count for i, count in enumerate(evaluation.forced_position_accuracy)}
        for name, count in named.items():
            yield f"{split}_{name}_k", count.k
            yield f"{split}_{name}_n", count.n


def _config(run: Summary) -> dict[str, Any]:
    """Return the config as dotted keys, without the seed and the keys that cannot change the trained model."""
    left_out = ("seed", *run_folder.NOT_IDENTITY)
    return {key: value for key, value in run_folder.flatten(msgspec.to_builtins(run.config)) if key not in left_out}
