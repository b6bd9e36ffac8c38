"""The inventory names the command that made each table."""

import msgspec

from pitfalls.report.inventory import inventory
from pitfalls.results.plans import Cell, Plan
from pitfalls.runs.records import Hardware
from tests.kept_runs import a_result

PLAN = Plan("graphs", "Several graphs", (Cell("x", "graphs", (), "x", {}, (0, 1, 2)),))
START = "| [graphs](graphs/table.md) | Several graphs | `python scripts/reproduce.py graphs` |"


def elsewhere(run, **changes):
    return msgspec.structs.replace(run, record=msgspec.structs.replace(run.record, **changes))


def test_a_row_says_what_made_a_set_when_and_on_what():
    text = inventory([(PLAN, [a_result(500, 0), a_result(500, 1)])])
    assert f"{START} 2 of 3 | 2026-11-22 | a CPU, 2 cores | 1.0 |" in text


def test_several_days_and_machines_are_all_named():
    other = elsewhere(a_result(500, 1), finished="2026-11-24", hardware=Hardware("another", 4, "Linux"))
    text = inventory([(PLAN, [a_result(500, 0), other])])
    assert f"{START} 2 of 3 | 2026-11-22 to 2026-11-24 | a CPU, 2 cores; another, 4 cores | 1.0 |" in text


def test_runs_on_many_machines_can_be_shown():
    """Guards against a report that ends in an error because a set was trained on a cluster."""
    runs = [elsewhere(a_result(500, seed), hardware=Hardware(f"machine {seed}", 2, "Linux")) for seed in range(12)]
    assert "machine 0, 2 cores; " in inventory([(PLAN, runs)])
