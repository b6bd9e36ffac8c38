"""All finished runs of a folder as one table of plain values."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pitfalls.runs import run_folder
from pitfalls.runs.sweeps import run_dirs

SPLITS = ("test", "train")
FACTS = ("run", "seed", "samples_seen", "stopped_early", "n_parameters", "wall_s", "commit", "dirty")


def rows(runs_dir: Path, tell: Callable[[str], None]) -> list[list[Any]]:
    """A header, then a row per finished run in the order of names; what is kept in memory is a row per run, not its record.

    Args:
        runs_dir: the folder with the runs.
        tell: takes a line about every record that cannot be read; the run is left out.
    """
    kept = [(facts, config) for facts, config in _read(runs_dir, tell)]
    keys = list(dict.fromkeys(key for _, config in kept for key in config))
    differing = [key for key in keys if len({repr(config.get(key)) for _, config in kept}) > 1]
    names = list(dict.fromkeys(name for facts, _ in kept for name in facts))
    table = [[facts.get(name) for name in names] + [config.get(key) for key in differing] for facts, config in kept]
    return [[*names, *differing], *table]


def _read(runs_dir: Path, tell: Callable[[str], None]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for run_dir in run_dirs(runs_dir):
        if not run_folder.is_finished(run_dir):
            continue
        try:
            record = run_folder.read_summary(run_dir)
        except (OSError, ValueError) as error:
            tell(str(error))
            continue
        left_out = ("seed", *run_folder.NOT_IDENTITY)
        config = {key: value for key, value in run_folder.flatten(dict(record["config"])) if key not in left_out}
        facts: dict[str, Any] = dict(record)
        yield {name: facts[name] for name in FACTS} | dict(_counts(facts["evaluation"])), config


def _counts(evaluation: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """``test_exact_match_k``, ``test_position_1_n`` and so on."""
    for split in SPLITS:
        if split in evaluation:
            found = evaluation[split]
            named = {name: found[name] for name in ("exact_match", "first_hop")}
            named |= {f"position_{i}": count for i, count in enumerate(found["forced_position_accuracy"])}
            for name, count in named.items():
                yield f"{split}_{name}_k", count["k"]
                yield f"{split}_{name}_n", count["n"]
