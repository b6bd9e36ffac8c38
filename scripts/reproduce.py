"""Train a named set of runs and make its table and figure: ``python scripts/reproduce.py laptop``.

The sets are in conf/reproduce.yaml. ``--dry-run`` lists the runs, their samples and the time that the committed records
took. Ctrl-C saves every run; the same command continues. Results go to results/NAME/.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from pitfalls.experiment.batch import Display, PlannedRun, collect, load_plan, overrides, plan_jobs, train, training_costs
from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.config import CONF, ROOT
from pitfalls.report.folder import write_set, write_texts
from pitfalls.results.kept import Result, read_results
from pitfalls.results.plans import Plan
from pitfalls.runs.records import Evaluation, MetricsRow, TrainRow
from pitfalls.schemas import ConfigError
from pitfalls.training.display import BAR_WIDTH, PlainLines, Rate, bar, position_bars

WIDE = 140
"""Columns of a terminal that the whole table fits."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="laptop", help="a set of conf/reproduce.yaml (default: laptop)")
    parser.add_argument("--dry-run", action="store_true", help="list runs, samples and estimated time, and stop")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="runs at a time (default: one per core)")
    parser.add_argument("--runs-dir", type=Path, default=ROOT / "runs", help="working folders of the runs")
    parser.add_argument("--results-dir", type=Path, help="where table and figure go (default: results/NAME)")
    parser.add_argument("--only", metavar="N", type=int, help="train and keep the N-th run alone, from 0: for job arrays")
    parser.add_argument("--smoke", action="store_true", help="a few steps per run, to try the machinery; proves nothing")
    parser.add_argument("--report-only", action="store_true", help="make table and figure from the kept records again")
    args = parser.parse_args()
    if args.workers < 1:
        parser.error(f"--workers {args.workers}: at least 1")
    if args.smoke and args.results_dir is None:
        parser.error("--smoke needs a --results-dir of its own: its numbers prove nothing")
    return args


def main() -> None:
    """Train, collect, report; status 1 if a run failed or a cell is not as expected."""
    args = arguments()
    plan = load_plan(args.name)
    results_dir = args.results_dir or ROOT / "results" / plan.name
    console = Console() if sys.stdout.isatty() else Console(width=160)  # a log has no width to keep to
    if args.report_only:
        kept = read_results(results_dir, plan)
        if not kept:
            raise ConfigError(f"{results_dir}: no run of {plan.name} is kept there; train some first")
        console.print(Markdown(write_set(plan, kept, results_dir)))
        return
    jobs = plan_jobs(plan, args.runs_dir, results_dir, args.smoke, args.only)
    if args.dry_run:
        if plan.gpu_tflops:
            console.print(gpu_plan(plan, jobs))
            console.print(*commands(plan, jobs), sep="\n", soft_wrap=True)
        else:
            console.print(dry_run(jobs, args.workers, args.only or 0))
        return
    started = time.monotonic()
    with make_display(jobs) as display:
        failed = train(jobs, args.workers, display, lambda job: overrides(job.cell, job.config.seed, args.runs_dir, args.smoke))
    results = collect(jobs)
    if results and args.only is None:  # else other jobs of the array are still running
        write_set(plan, results, results_dir)
        if results_dir.parent == ROOT / "results" and not failed:
            write_texts(results_dir.parent, CONF, CONF / "claims.yaml")  # what is told of all sets must not contradict this one
        console.print(*summary(plan, results, console.width), sep="\n")
        seconds = time.monotonic() - started
        console.print(f"{results_dir}: table (md, csv, tex); figure, positions, entropy (png, svg)   ({seconds:.0f} s)")
    misses = [f"{r.cell.name} seed {r.seed}: {miss}" for r in results for miss in r.misses()]
    for line in [f"failed: {text}" for text in failed] + [f"not as expected: {text}" for text in misses if not args.smoke]:
        print(line, file=sys.stderr)
    sys.exit(1 if failed or (misses and not args.smoke) else 0)


def dry_run(jobs: list[PlannedRun], n_workers: int, first: int) -> Table:
    """The runs of a set, before anything is trained; ``first`` is the number of the first one, as `--only` counts."""
    table = Table(title="what would be trained (seconds: the kept record of the same cell, on the machine that made it)")
    for name in ("number", "run", "objective", "model", "samples", "estimated s", "state"):
        table.add_column(name, justify="right" if name in ("number", "samples", "estimated s") else "left")
    for number, job in enumerate(jobs, first):
        state = "finished" if job.finished else "stopped, continues" if job.run_dir.exists() else "to train"
        seconds = job.estimated_s()
        table.add_row(
            str(number),
            job.title,
            job.config.objective.name,
            job.config.model.name,
            f"{job.n_samples:,}",
            f"{seconds:.0f}" if seconds else "unknown",
            state,
        )
    todo = [job for job in jobs if not job.finished]
    known = [seconds for job in todo if (seconds := job.estimated_s())]
    total = sum(known) / min(n_workers, max(1, len(todo)))
    n_unknown = len(todo) - len(known)
    shown = f"at least {total:.0f} s, {n_unknown} of unknown length" if n_unknown else f"about {total:.0f} s"
    table.caption = f"{len(todo)} of {len(jobs)} runs to train, {n_workers} at a time: {shown}"
    return table


def gpu_plan(plan: Plan, jobs: list[PlannedRun]) -> Table:
    """What the runs cost on a GPU, on paper."""
    assert plan.gpu_tflops is not None
    table = Table(title=f"on a GPU that sustains {plan.gpu_tflops:g} TFLOP/s (an assumption; nothing has been run on one)")
    for name in ("number", "run", "graph, N", "training graphs", "parameters", "samples", "EFLOP", "GPU-hours"):
        table.add_column(name, justify="left" if name in ("run", "graph, N") else "right")
    total, costs = 0.0, training_costs(jobs)
    for number, (job, cost) in enumerate(zip(jobs, costs, strict=True)):
        task = job.config.task
        hours = cost.flop / (plan.gpu_tflops * 1e12) / 3600
        total += hours
        table.add_row(
            str(number),
            job.title,
            f"G({task.degree},{task.path_length}), {task.n_values}",
            "new ones" if task.train_graphs is None else f"{task.train_graphs:,}",
            f"{cost.n_parameters:,}",
            f"{job.n_samples:,}",
            f"{cost.flop / 1e18:.3g}",
            f"{hours:.1f}",
        )
    table.caption = f"nominal FLOP: 6 x parameters x all tokens, prompt included; {total:,.0f} GPU-hours in all"
    return table


def commands(plan: Plan, jobs: list[PlannedRun]) -> list[str]:
    """How to launch them."""
    return [
        "one GPU:  python scripts/reproduce.py " + f"{plan.name} --workers 1",
        f"SLURM:    sbatch --array=0-{len(jobs) - 1} --gres=gpu:1 --cpus-per-task=4 --requeue --wrap "
        f"'python scripts/reproduce.py {plan.name} --only $SLURM_ARRAY_TASK_ID --workers 1'",
        f"then:     python scripts/reproduce.py {plan.name} --report-only   "
        "(each job keeps its record; a run that was cut off continues)",
    ]


def summary(plan: Plan, results: list[Result], width: int) -> list[Any]:
    """The table and the figure for a terminal of that width; a narrow one gets the columns that decide."""
    from pitfalls.report.tables import HEADER, rows

    wanted = HEADER if width >= WIDE else ("cell", "graph, N", "exact match", "per position", "as expected")
    table = Table(title=plan.title)
    for name in wanted:
        table.add_column(name, overflow="fold")
    for row in rows(results):
        table.add_row(*(row[HEADER.index(name)] for name in wanted))
    bars = Table.grid(padding=(0, 1))
    for result in results:
        test = result.record.test
        value = (test.exact_match if test.exact_match.n else test.first_hop).share or 0.0
        label = f"{result.cell.name} s{result.seed}"
        bars.add_row(label, bar(value, result.chance), f"{value:.3f}")
    return ["", table, "", Text("exact match on test graphs (of first_hop: that token); ┃ marks 1/d", "bold"), bars, ""]


# ------------------------------------------------------------------ displays


class PlainDisplay(Display):
    """Lines every few seconds, for logs."""

    def __init__(self, jobs: list[PlannedRun]) -> None:
        self._lines = {job.title: PlainLines(job.title, job.n_samples) for job in jobs}

    def __enter__(self) -> "PlainDisplay":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def row(self, job: PlannedRun, row: MetricsRow) -> None:
        """Print it, unless the last one was moments ago."""
        self._lines[job.title].log(row)

    def done(self, job: PlannedRun, message: str) -> None:
        """Say so."""
        print(f"{job.title}: {message}", file=sys.stderr, flush=True)


class LiveDisplay(Display):
    """One block per running cell: progress, and a bar of test accuracy per target position."""

    def __init__(self, jobs: list[PlannedRun], console: Console) -> None:
        self._blocks: dict[str, Group] = {}
        self._rates = {job.title: Rate() for job in jobs}
        self._last: dict[str, tuple[TrainRow | None, Evaluation | None, float]] = {}
        self._n_done, self._n_jobs = sum(job.finished for job in jobs), len(jobs)
        self._live = Live(console=console, refresh_per_second=4)

    def __enter__(self) -> "LiveDisplay":
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def row(self, job: PlannedRun, row: MetricsRow) -> None:
        """Redraw the block of a run."""
        train_row, evaluation, rate = self._last.get(job.title, (None, None, 0.0))
        if isinstance(row, TrainRow):
            train_row, rate = row, self._rates[job.title].update(row.samples, time.monotonic())
        elif row.split == "test":
            evaluation = row.evaluation
        self._last[job.title] = (train_row, evaluation, rate)
        self._blocks[job.title] = self._block(job, train_row, evaluation, rate)
        self._draw()

    def _block(self, job: PlannedRun, row: TrainRow | None, evaluation: Evaluation | None, rate: float) -> Group:
        line = Text(f"{job.title}  ", "bold")
        if row:
            done = row.samples
            filled = round(BAR_WIDTH * done / job.n_samples)
            left = f"{(job.n_samples - done) / rate:.0f} s left" if rate else ""
            line.append("━" * filled, "cyan").append("━" * (BAR_WIDTH - filled), "dim")
            line.append(f"  {done:,}/{job.n_samples:,} samples  loss {row.loss:.3f}  {rate:,.0f} samples/s  {left}", "")
        degree = job.config.task.degree
        return Group(line, position_bars(evaluation, degree)) if evaluation else Group(line)

    def done(self, job: PlannedRun, message: str) -> None:
        """Replace the block of a run by one line above the others."""
        self._blocks.pop(job.title, None)
        self._n_done += 1
        self._live.console.print(f"{job.title}: {message}")
        self._draw()

    def _draw(self) -> None:
        head = Text(f"{self._n_done} of {self._n_jobs} runs finished; Ctrl-C saves, the same command continues", "dim")
        self._live.update(Group(head, *self._blocks.values()))


def make_display(jobs: list[PlannedRun]) -> PlainDisplay | LiveDisplay:
    """The display that suits standard error."""
    console = Console(stderr=True)
    return LiveDisplay(jobs, console) if console.is_terminal else PlainDisplay(jobs)


if __name__ == "__main__":
    exit_on_error(main)
