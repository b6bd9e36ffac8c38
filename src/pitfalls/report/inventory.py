"""``results/README.md``: which command made which table, when, on what, in how many hours."""

from collections.abc import Sequence

from pitfalls.results.formats import Table, to_markdown
from pitfalls.results.kept import Result
from pitfalls.results.plans import Plan

ABOUT = """
Everything here but the records is made from them by `make report` (`python scripts/report.py`), byte for byte the same each
time; a test makes all but the pictures again and compares. `<set>/records/` holds one JSON file per run: its record (config,
commit, versions, hardware, counts, probes, example answers) and its learning curve. Weights are not kept.

- `claims`: the paper's claims with verdicts; the rules are in `conf/claims.yaml`
- `accuracy`: exact match per graph, model and objective
- `cheat`: what the models do that are right 1 time in d
- `published`: the numbers of other papers beside ours
- `objectives/at_a_glance`, `leaderboard`, `solved`, `agreement`, `by_cost`, `decodings`: who solves what; every objective; seed
  by seed; its order beside published ones; samples against FLOP; what models answer when asked in other ways than their own
- `degeneration/smollm2/ledger`, `loops`, `copies`, `rules`, `map`, `context`, `sign`, `heads`: loops of a pretrained model, from
  `record.json` (`python scripts/degenerate.py model=smollm2`); `degeneration/path_star`: our models past the goal (`--runs`)
- `benchmark/<machine>/goals`, `ratios`, `lines`, `parts`: speed, once
  `python scripts/benchmark.py --json results/benchmark/<machine>/measured.json` has measured it
- `scaling/steps`, `attention`, `figure`: time and memory of a step, once
  `python scripts/benchmark.py --scaling results/scaling/measured.json` has measured them
- `roofline/on_paper`: what one GPU could do, once
  `python scripts/benchmark.py --roofline results/roofline/estimated.json` has estimated it
- `<set>/table`, `figure`, `positions`, `entropy`: one set of runs
- `report.html`: all of it on one page, not committed
"""


def inventory(sets: Sequence[tuple[Plan, Sequence[Result]]]) -> str:
    """The file's text."""
    header = ("set", "what", "command", "runs", "finished", "hardware", "hours of training (sum over runs)")
    rows = tuple(_row(plan, results) for plan, results in sets)
    return to_markdown(Table("Results", header, rows, ABOUT.strip()))


def _row(plan: Plan, results: Sequence[Result]) -> tuple[str, ...]:
    planned = sum(len(cell.seeds) for cell in plan.cells)
    days = sorted({result.record["finished"] for result in results})
    machines = sorted({f"{r.record['hardware']['cpu']}, {r.record['hardware']['n_cpus']} cores" for r in results})
    return (
        f"[{plan.name}]({plan.name}/table.md)",
        plan.title,
        f"`python scripts/reproduce.py {plan.name}`",
        f"{len(results)} of {planned}",
        days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}",
        "; ".join(machines),
        f"{sum(result.record['wall_s'] for result in results) / 3600:.1f}",
    )
