"""``results/README.md``: a list of all tables with command, date, machine and hours."""

from collections.abc import Sequence

from pitfalls.results.formats import Table, to_markdown
from pitfalls.results.kept import Result
from pitfalls.results.plans import Plan

TITLE = "Results"
ABOUT = """
`make report` (`python scripts/report.py`) makes tables, figures and `report.html` from the records, byte for byte the same each
time. It writes to `runs/report/`; with `--keep` it writes here. A test makes all texts again and compares. `<set>/records/`
holds one JSON file per run: its record (config, commit, versions, hardware, counts, probes, example answers) and its learning
curve. Weights are not kept.

- `claims`: the paper's claims with verdicts. `claims/<name>.md`: the evidence of each. The rules are in `conf/claims.yaml`.
- `accuracy`: exact match per graph, model and objective.
- `cheat`: what the models do that are right 1 time in d.
- `published`: the numbers of other papers beside ours.
- `real_input/table`: scores on the authors' files (`python scripts/evaluate.py RUN --data FILE --json`).
- `<set>/table`, `figure`, `positions`, `entropy`: one set of runs.
- `objectives/summary`, `at_a_glance`, `at_a_glance_n50`, `by_objective/<name>`: which objective solves which graph.
- `objectives/leaderboard`, `solved`: every objective, seed by seed.
- `objectives/agreement`, `by_cost`, `decodings`: beside published orderings, by FLOP, asked in other ways.
- `degeneration/smollm2/ledger`, `loops`, `copies`, `rules`, `map`, `context`, `sign`, `heads`: loops of a pretrained model, from
  `record.json` (`python scripts/degenerate.py model=smollm2 --keep`).
- `degeneration/path_star`: our models past the goal (`python scripts/degenerate.py --runs RUN... --keep`).
- `benchmark/<machine>/goals`, `ratios`, `lines`, `parts`, `skipped`: speed (`python scripts/benchmark.py --output FILE`).
- `scaling/steps`, `attention`, `figure`: time and memory of a step (`python scripts/benchmark.py scaling --output FILE`).
- `roofline/on_paper`: what one GPU could do (`python scripts/benchmark.py roofline --output FILE`).
- `figures.json`: a digest per figure, so that only what changed is drawn again.
"""


def inventory(sets: Sequence[tuple[Plan, Sequence[Result]]]) -> str:
    """Return the text of the file."""
    header = ("set", "what", "command", "runs", "finished", "hardware", "hours of training")
    rows = tuple(_row(plan, results) for plan, results in sets)
    return to_markdown(Table(TITLE, header, rows, ABOUT.strip()))


def _row(plan: Plan, results: Sequence[Result]) -> tuple[str, ...]:
    planned = sum(len(cell.seeds) for cell in plan.cells)
    days = sorted({result.record.finished for result in results})
    machines = sorted({run.record.hardware.machine for run in results})
    return (
        f"[{plan.name}]({plan.name}/table.md)",
        plan.title,
        f"`python scripts/reproduce.py {plan.name}`",
        f"{len(results)} of {planned}",
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        "; ".join(machines),
        f"{sum(result.record.wall_s for result in results) / 3600:.1f}",
    )
