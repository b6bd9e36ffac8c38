"""One table of all finished runs of a folder: a few facts, counts, and the config keys that differ."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from pitfalls.runs import run_folder
from pitfalls.runs.files import FileError
from pitfalls.runs.records import Evaluation, Summary
from pitfalls.runs.sweeps import run_dirs

SPLITS = ("test", "train")
FACTS = ("run", "seed", "samples_seen", "stopped_early", "n_parameters", "wall_s", "commit", "dirty")


def rows(runs_dir: Path, tell: Callable[[str], None]) -> list[list[Any]]:
    """Return a header, then a row per finished run in the order of names.

    Args:
        runs_dir: the folder with the runs.
        tell: called with one line about each record that cannot be read. The run of that record is left out.
    """
    kept = [(_facts(record), _config(record)) for record in _read(runs_dir, tell)]
    keys = list(dict.fromkeys(key for _, config in kept for key in config))
    differing = [key for key in keys if len({repr(config.get(key)) for _, config in kept}) > 1]
    names = list(dict.fromkeys(name for facts, _ in kept for name in facts))
    table = [[facts.get(name) for name in names] + [config.get(key) for key in differing] for facts, config in kept]
    return [[*names, *differing], *table]


def _read(runs_dir: Path, tell: Callable[[str], None]) -> Iterator[Summary]:
    for run_dir in run_dirs(runs_dir):
        if not run_folder.is_finished(run_dir):
            continue
        try:
            yield run_folder.read_summary(run_dir)
        except (OSError, FileError) as error:
            tell(str(error))


def _config(record: Summary) -> dict[str, Any]:
    """Return the config as dotted keys, without the seed and the keys that cannot change the trained model."""
    left_out = ("seed", *run_folder.NOT_IDENTITY)
    flat = run_folder.flatten(msgspec.to_builtins(record.config))
    return {key: value for key, value in flat if key not in left_out}


def _facts(record: Summary) -> dict[str, Any]:
    facts = {name: getattr(record, name) for name in FACTS}
    for split, evaluation in record.evaluation.items():
        facts |= dict(_counts(split, evaluation))
    return facts


def _counts(split: str, evaluation: Evaluation) -> Iterator[tuple[str, int]]:
    """Yield counts by name: ``test_exact_match_k``, ``test_position_1_n`` and so on."""
    named = {"exact_match": evaluation.exact_match, "first_hop": evaluation.first_hop}
    named |= {f"position_{i}": count for i, count in enumerate(evaluation.forced_position_accuracy)}
    for name, count in named.items():
        yield f"{split}_{name}_k", count.k
        yield f"{split}_{name}_n", count.n
