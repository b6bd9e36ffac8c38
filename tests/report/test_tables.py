"""Tables, figures and verdicts say what the records say."""

import csv
import io
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pitfalls.report import bench_figures, figures, tables
from pitfalls.report.folder import write_texts
from pitfalls.results.formats import to_markdown
from pitfalls.results.kept import Result, read_results, record_file
from pitfalls.results.plans import Cell, Plan, read_plan

ROOT = Path(__file__).resolve().parents[2]
DRAWN = ("draw", "draw_positions", "draw_entropy")
SETS = tuple(yaml.safe_load((ROOT / "conf" / "reproduce.yaml").read_text()))


def count(k, n=1000):
    return {"k": k, "n": n}


def evaluation(exact, *, forced=(1000, 500, 1000), complete=True):
    n = 1000 if complete else 0
    return {
        "exact_match": count(exact if complete else 0, n),
        "first_hop": count(forced[1]),
        "free_position_accuracy": [count(k, 1000 if k is not None else 0) if k is not None else count(0, 0) for k in forced],
        "forced_position_accuracy": [count(k) if k is not None else count(0, 0) for k in forced],
        "right_arm": count(exact if complete else 0, n),
        "wrong_arm": count(1000 - exact if complete else 0, n),
        "wrong_arm_then_goal": count(0, n),
        "broken_walk": count(0, n),
        "decoder": "autoregressive",
    }


def forced_of(kwargs):
    return kwargs.get("forced", (1000, 500, 1000))


def result(exact=500, seed=0, expect=None, train=None, label="next token", **kwargs):
    task = {"degree": 2, "path_length": 3, "n_values": 20, "train_graphs": None if train is None else 64}
    config = {"task": task, "objective": {"name": "next_token"}, "model": {"name": "gpt_nano"}, "seed": seed}
    test = evaluation(exact, **kwargs)
    evaluations = {"test": test} | ({} if train is None else {"train": evaluation(train)})
    entropy = None if forced_of(kwargs)[0] is None else [{"sum": s, "sum_sq": 1.0, "n": 10} for s in (0.1, 7.0, 0.1)]
    probes = {"uncertainty": entropy and {"entropy": entropy}}
    record = {
        "probes": probes,
        "examples": [],
        "seed": seed,
        "samples_seen": 12345,
        "n_parameters": 7,
        "wall_s": 3.21,
        "config": config,
        "evaluation": evaluations,
    }
    curve = [{"samples": s, "split": "test", "evaluation": test} for s in (0, 6000, 12345)]
    name = label.replace(" ", "_")
    return Result(record, tuple(curve), Cell(name, f"laptop/{name}", (), label, expect or {}, (seed,)))


def test_csv_has_one_row_per_cell_and_seed_with_the_promised_columns():
    rows = list(csv.DictReader(io.StringIO(tables.to_csv([result(480, 0), result(520, 1, train=990)]))))
    assert [row["exact_match"] for row in rows] == ["0.48", "0.52"]
    assert [row["train_exact_match"] for row in rows] == ["", "0.99"]
    assert [row["regime"] for row in rows] == ["online", "fixed 64"]
    assert rows[0]["position_accuracy"] == "1.0000 0.5000 1.0000"
    assert set(rows[0]) >= {
        "objective",
        "model",
        "graph",
        "n_values",
        "regime",
        "seed",
        "samples_seen",
        "exact_match",
        "first_hop",
        "position_accuracy",
    }


def test_unanswered_positions_are_empty_not_zero():
    """A first-hop run answers one position; its exact match is not 0 but no number at all."""
    row = next(csv.DictReader(io.StringIO(tables.to_csv([result(0, forced=(None, 510, None), complete=False)]))))
    assert row["exact_match"] == "" == row["wrong_arm"] == row["exact_match_low"]
    assert row["position_accuracy"] == "- 0.5100 -"
    assert "| - |" in to_markdown(tables.of_set([result(0, forced=(None, 510, None), complete=False)], "t"))


@pytest.mark.parametrize(
    ("expect", "missed"),
    [
        ({"exact_match": (0.46, 0.54)}, []),
        ({"exact_match": (0.99, 1.0)}, ["exact_match 0.5000, expected 0.99 to 1"]),
        ({"other_positions": (0.98, 1.0)}, []),
        ({"first_hop": (0.5, 0.5)}, []),
        ({"train_exact_match": (0, 1)}, ["train_exact_match missing"]),
    ],
)
def test_expectations(expect, missed):
    misses = result(500, expect=expect).misses()
    assert len(misses) == len(missed)
    assert all(found.startswith(words) for found, words in zip(misses, missed, strict=True))


def test_a_missed_expectation_shows_in_both_tables():
    """A table that says nothing of a failed seed would pass for a success."""
    results = [result(500, 0, {"exact_match": (0.46, 0.54)}), result(700, 1, {"exact_match": (0.46, 0.54)})]
    assert "| 1 of 2 |" in to_markdown(tables.of_set(results, "t"))
    assert [row["as_expected"] for row in csv.DictReader(io.StringIO(tables.to_csv(results)))] == ["yes", "no"]


@pytest.mark.parametrize("draw", [getattr(drawn, name) for drawn in (figures, bench_figures) for name in DRAWN])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figures_are_byte_identical_when_drawn_again(tmp_path, draw, kind):
    results = [result(500), result(990, label="teacherless"), result(0, forced=(None, 510, None), complete=False, label="hop")]
    for name in ("a", "b"):
        draw(results, "t", tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    draw(
        [result(510), *results[1:]] if draw.__name__ == "draw" else [result(500, forced=(900, 400, 900)), *results[1:]],
        "other",
        tmp_path / f"c.{kind}",
    )
    assert (tmp_path / f"c.{kind}").read_bytes() != (tmp_path / f"a.{kind}").read_bytes()


def test_a_figure_without_data_is_not_drawn(tmp_path):
    hop = result(0, forced=(None, 510, None), complete=False, label="hop")
    figures.draw_entropy([hop], "t", tmp_path / "a.svg")
    assert not (tmp_path / "a.svg").exists()


def test_more_labels_on_a_graph_than_styles_make_a_crowd():
    """Guards seventeen curves in one panel."""
    results = [result(label=f"objective {i}") for i in range(len(figures.STYLES))]
    assert not figures.crowded([*results, result(seed=1, label="objective 0")])
    assert figures.crowded([*results, result(label="one more")])


def test_longer_runs_of_an_objective_share_its_panel_in_a_crowd():
    """Guards a curve whose end or start is thinned away, and a longer run that stands where nobody compares it."""
    short, longer, other = result(500), result(990, label="next token, longer"), result(0, label="hop")
    other.record["config"]["objective"]["name"] = "first_hop"
    assert bench_figures.by_objective([short, longer, other]) == {"next token": [short, longer], "first hop": [other]}
    x, y = bench_figures.thinned(range(402), range(402))
    assert x[-1] == y[-1] == 401
    assert x[:15] == list(range(1, 16)), "a short distance late is a long one early"
    assert all(bench_figures.SPACING * a <= b for a, b in itertools.pairwise(x))


def test_a_cell_of_shades_is_a_run_that_happened():
    """Guards a mean of seeds that solve a graph and seeds that do not: a value that no model has."""
    assert bench_figures.median_seed([result(k, seed) for seed, k in enumerate((1000, 330, 990))]).test["exact_match"]["k"] == 990
    assert bench_figures.median_seed([result(k, seed) for seed, k in enumerate((1000, 330))]).test["exact_match"]["k"] == 330


def test_every_label_of_a_figure_has_its_own_style():
    """Guards two curves that look alike: six colours go round, dash, marker and hatch then differ."""
    styles = [figures.style(i) for i in range(12)]
    assert len(set(styles)) == 12
    assert len({style[1:] for style in styles[:6]}) == 6, "told apart in black and white"


def test_plan_of_an_unknown_set_lists_the_sets():
    with pytest.raises(ValueError, match="has laptop, laptop_full, graphs, objectives, precision, grokking, pretrained, paper"):
        read_plan(ROOT / "conf" / "reproduce.yaml", "nope")


@pytest.mark.parametrize("name", SETS)
def test_every_cell_of_a_set_is_a_preset(name):
    for cell in read_plan(ROOT / "conf" / "reproduce.yaml", name).cells:
        assert (ROOT / "conf" / "experiment" / f"{cell.experiment}.yaml").exists()


COMPLETE = ("laptop", "laptop_full")
"""Sets of which every run is kept."""


@pytest.mark.parametrize("name", COMPLETE)
def test_no_run_of_a_finished_set_is_missing(name):
    plan = read_plan(ROOT / "conf" / "reproduce.yaml", name)
    kept = {(result.cell.name, result.record["seed"]) for result in read_results(ROOT / "results" / name, plan)}
    assert {(cell.name, seed) for cell in plan.cells for seed in cell.seeds} - kept == set()


def test_committed_tables_come_from_committed_records(tmp_path):
    """A number typed by hand, a verdict of other rules, or a table left behind by a change, does not survive this."""
    for records in (ROOT / "results").glob("*/records"):
        shutil.copytree(records, tmp_path / records.parent.name / "records")
    for measured in (ROOT / "results").rglob("*.json"):
        if measured.parent.name != "records":
            copy = tmp_path / measured.relative_to(ROOT / "results")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(measured, copy)
    write_texts(tmp_path, ROOT / "conf", ROOT / "conf" / "claims.yaml")
    made = {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.suffix in (".md", ".csv", ".tex")}
    committed = {p.relative_to(ROOT / "results") for p in (ROOT / "results").rglob("*") if p.suffix in (".md", ".csv", ".tex")}
    assert made == committed
    for name in sorted(made):
        assert (ROOT / "results" / name).read_text() == (tmp_path / name).read_text(), f"results/{name}: run make report"


def git(*arguments):
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", git("ls-files", "results/*/records/*.json").split() or ["none"])
def test_committed_record_comes_from_a_clean_tree(path):
    """A number of code that nobody else has."""
    if path == "none":
        pytest.skip("no committed records: not a git checkout")
    record = json.loads(git("show", f"HEAD:{path}"))["record"]
    assert record["dirty"] is False
    assert record["commit"]


def test_records_and_reports_start_without_torch():
    """Reading a table must not take the seconds that torch takes to import."""
    code = "import sys, pitfalls.runs.run_folder, pitfalls.schemas, pitfalls.report.tables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_record_file_is_named_by_cell_and_seed(tmp_path):
    plan = Plan("p", "t", (Cell("x", "laptop/x", (), "x", {}, (0,)),))
    assert record_file(tmp_path, plan.cells[0], 0) == tmp_path / "records" / "x-s0.json"
    assert read_results(tmp_path, plan) == []


def test_no_committed_file_is_large():
    """Guards a clone that grows with every figure."""
    files = [ROOT / name for name in git("ls-files").splitlines()]
    assert {str(path): size for path in files if path.exists() and (size := path.stat().st_size) > 500_000} == {}
