"""The terminal's tables of a set of runs: its plan, and at the end its results compared with the committed ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table as TerminalTable
from rich.text import Text

from pitfalls.experiment.cli import terminal_table
from pitfalls.experiment.run_sets import PlannedRun, name_of, run_costs
from pitfalls.report.folder import write_set
from pitfalls.report.set_table import set_table
from pitfalls.results.formats import Table
from pitfalls.results.kept import Result
from pitfalls.results.plans import Plan
from pitfalls.runs.sweeps import state_of
from pitfalls.training.display import bar

STATES = {
    "finished": "finished",
    "running": "running",
    "failed": "failed, is tried again",
    "stopped": "stopped, continues",
    "waiting": "to train",
}
"""The states of a run (`pitfalls.runs.sweeps.STATES`) as ``--dry-run`` shows them."""

# ------------------------------------------------------------------ before


def before(plan: Plan, runs: Sequence[PlannedRun], n_workers: int, first: int) -> list[TerminalTable | str]:
    """Return the output of ``--dry-run``: the runs with their time, or with their cost on GPUs if the plan names a throughput.

    Args:
        plan: the set.
        runs: the runs to list.
        n_workers: number of runs that train at a time.
        first: the number of the first run, as ``--only`` counts.
    """
    if plan.gpu_tflops is None:
        return [terminal_table(_time_table(runs, n_workers, first))]
    return [terminal_table(_gpu_table(plan.gpu_tflops, runs, first)), *_commands(plan, len(runs))]


def _time_table(runs: Sequence[PlannedRun], n_workers: int, first: int) -> Table:
    """Return a table of the runs with their state and an estimate of their time."""
    header = ("number", "run", "objective", "model", "samples", "estimated s", "state")
    times = [run.estimated_s() for run in runs]
    states = ["finished" if run.finished else state_of(run.run_dir).name for run in runs]
    rows = tuple(
        (
            str(number),
            run.title,
            run.config.objective.name,
            run.config.model.name,
            f"{run.n_samples:,}",
            f"{seconds:.0f}" if seconds else "unknown",
            STATES[state],
        )
        for number, (run, seconds, state) in enumerate(zip(runs, times, states, strict=True), first)
    )
    todo = [seconds for seconds, state in zip(times, states, strict=True) if state not in ("finished", "running")]
    known = [seconds for seconds in todo if seconds]
    total = sum(known) / min(n_workers, max(1, len(todo)))
    n_unknown = len(todo) - len(known)
    shown = f"at least {total:.0f} s, {n_unknown} of unknown length" if n_unknown else f"about {total:.0f} s"
    elsewhere = f"; {states.count('running')} trained by another process now" if "running" in states else ""
    note = f"{len(todo)} of {len(runs)} runs to train, {n_workers} at a time: {shown}{elsewhere}"
    return Table("what would be trained (seconds on the machine that made the committed record)", header, rows, note)


def _gpu_table(tflops: float, runs: Sequence[PlannedRun], first: int) -> Table:
    """Return a table of the estimated cost of the runs on a GPU."""
    header = ("number", "run", "graph, N", "training graphs", "parameters", "samples", "EFLOP", "GPU-hours")
    rows, total = [], 0.0
    for number, (run, cost) in enumerate(zip(runs, run_costs(runs), strict=True), first):
        task = run.config.task
        hours = cost.flop / (tflops * 1e12) / 3600
        total += hours
        rows.append(
            (
                str(number),
                run.title,
                f"G({task.degree},{task.path_length}), {task.n_values}",
                "new ones" if task.train_graphs is None else f"{task.train_graphs:,}",
                f"{cost.n_parameters:,}",
                f"{run.n_samples:,}",
                f"{cost.flop / 1e18:.3g}",
                f"{hours:.1f}",
            )
        )
    note = f"nominal FLOP: 6 x parameters x all tokens, prompt included; {total:,.0f} GPU-hours in all"
    title = f"on a GPU that sustains {tflops:g} TFLOP/s (an assumption; nothing has been run on one)"
    return Table(title, header, tuple(rows), note)


def _commands(plan: Plan, n_runs: int) -> list[str]:
    """Return the commands that train a set on GPUs."""
    return [
        f"one GPU:  python scripts/reproduce.py {plan.name} --workers 1",
        f"SLURM:    sbatch --array=0-{n_runs - 1} --gres=gpu:1 --cpus-per-task=4 --requeue --wrap "
        f"'python scripts/reproduce.py {plan.name} --only $SLURM_ARRAY_TASK_ID --workers 1'",
        f"then:     python scripts/reproduce.py {plan.name}   "
        "(it makes table and figures; a finished run is not trained again, and one that was cut off continues)",
    ]


# ------------------------------------------------------------------ at the end


def write_and_show(plan: Plan, results: Sequence[Result], folder: Path) -> list[TerminalTable | Text | str]:
    """Write table and figures of a set to a folder, and return the table and a bar per run for the terminal."""
    if not results:
        return []
    write_set(plan, results, folder)
    bars = TerminalTable.grid(padding=(0, 1))
    for result in results:
        value = _main_score(result)
        bars.add_row(name_of(result), bar(value, result.chance), f"{value:.3f}")
    head = Text("\nexact match on test graphs (of first_hop: that token); ┃ marks 1/d", "bold")
    files = f"\n{_shown(folder)}: table (md, csv, tex); figure, positions, entropy (png, svg)"
    return [terminal_table(replace(set_table(results, plan.title), note="")), head, bars, files]


def _main_score(result: Result) -> float:
    """Return exact match, or the accuracy of the first hop if the method does not answer whole paths."""
    test = result.record.test
    return (test.exact_match if test.exact_match.n else test.first_hop).share or 0.0


def _shown(path: Path) -> Path:
    """Return a path as the user would type it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def unexpected(results: Sequence[Result]) -> list[str]:
    """Return in words the expectations that runs do not meet."""
    return [f"not as expected: {name_of(result)}: {miss}" for result in results for miss in result.misses()]


def comparison(results: Sequence[Result], committed: Mapping[str, Result], source: Path) -> list[str]:
    """Return five lines or fewer that compare runs with the committed runs of the same cells and seeds.

    Args:
        results: the runs of a set.
        committed: the committed runs by name (`pitfalls.experiment.run_sets.name_of`).
        source: the folder that holds the committed runs.
    """
    pairs = [(result, committed[name_of(result)]) for result in results if name_of(result) in committed]
    if not pairs:
        return [f"Nothing to compare with: {_shown(source)} has no record of these runs."]
    same_config = sum(here.record.run == kept.record.run for here, kept in pairs)
    differences = [abs(_main_score(here) - _main_score(kept)) for here, kept in pairs]
    here, kept = pairs[differences.index(max(differences))]
    others = [here for here, kept in pairs if bool(here.misses()) != bool(kept.misses())]
    lines = [
        f"Compared with {_shown(source)}: {len(pairs)} of {len(results)} runs have a committed record, "
        f"{same_config} of the same config.",
        f"The same exact match to the last digit: {differences.count(0)} of {len(pairs)}.",
    ]
    if max(differences):
        scores = f"{_main_score(here):.3f} here, {_main_score(kept):.3f} committed"
        lines.append(f"The largest difference: {name_of(here)}, {scores}.")
    if others:
        told = [f"{name_of(run)} ({'; '.join(run.misses()) or 'as expected here only'})" for run in others[:3]]
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        lines.append(f"Another verdict: {', '.join(told)}{more}.")
    n_same = len(pairs) - len(others)
    verdicts = "every run has" if not others else f"{n_same} of {len(pairs)} runs have"
    lines.append(f"Conclusion: {verdicts} the verdict of the committed run.")
    return lines
