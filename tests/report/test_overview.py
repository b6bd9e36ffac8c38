"""Tables over all runs, and the page: what they show is what the records hold."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pitfalls.claims.ledger import Check, Claim
from pitfalls.claims.verdicts import judge
from pitfalls.report import overview, page
from pitfalls.report.inventory import inventory
from pitfalls.results.kept import Kept, Result, keep, read_result, unique
from pitfalls.results.plans import Cell, Plan

CONF = Path(__file__).resolve().parents[2] / "conf"


def count(k: int, n: int = 1000) -> dict[str, int]:
    return {"k": k, "n": n}


def kept(seed: int = 0, exact: int = 500, *, objective: str = "next_token", n_steps: int = 100, **task: Any) -> Kept:
    """A next-token run of G(2,5) with every probe, or of another graph or objective."""
    graph = {"degree": 2, "path_length": 5, "n_values": 50, "train_graphs": None} | task
    config = {
        "seed": seed,
        "runs_dir": "r",
        "objective": {"name": objective},
        "task": graph,
        "model": {"name": "gpt_tiny", "architecture": "gpt2", "init_from": None},
        "training": {"n_steps": n_steps, "batch_size": 100, "precision": "fp32"},
    }
    length = graph["path_length"]
    test = {
        "exact_match": count(exact),
        "first_hop": count(exact + 10),
        "forced_position_accuracy": [count(1000), count(exact), *[count(990)] * (length - 2)],
    }
    probes = {
        "arm_following": {"follows": count(970), "to_its_leaf": count(600), "to_the_goal": count(370)},
        "learning_order": None,
        "uncertainty": {"entropy": [{"sum": s, "sum_sq": 1.0, "n": 100} for s in (1.0, 70.0, *[3.0] * (length - 2))]},
        "verifier": {"solved": {"1": count(500), "8": count(991)}},
    }
    example = {
        "edges": [[1, 2], [3, 4], [0, 1], [0, 3]],
        "start": 0,
        "goal": 4,
        "target": ["0", "3", "4"],
        "answer": ["0", "1", "4"],
        "outcome": "wrong_arm_then_goal",
        "answered": [0, 1, 2],
        "reading": {"p_answer": [1, 0.5, 1], "p_target": [1, 0.5, 1], "entropy": [0, 0.69, 0]},
    }
    record = {
        "run": f"{objective}-{length}-{n_steps}-s{seed}",
        "seed": seed,
        "samples_seen": n_steps * 100,
        "config": config,
        "evaluation": {"test": test},
        "probes": probes,
        "examples": [example],
        "wall_s": 1800.0,
        "finished": "2026-11-22",
        "hardware": {"cpu": "a CPU", "n_cpus": 2},
    }
    return Kept(record, ({"samples": 0, "split": "test", "evaluation": test},))


def test_accuracy_has_a_row_per_graph_and_a_column_per_objective():
    others = [kept(0, 1000, objective="reversed"), kept(0, 700, objective="first_hop"), kept(0, 300, degree=3)]
    runs = [kept(0), kept(1, 510), *others]
    table = overview.accuracy(runs)
    assert table.rows[0] == (
        "G(2,5), 50",
        "0.500",
        "gpt_tiny",
        "new graphs",
        "0.500 / 0.510 (0 of 2, 10 k samples)",
        "-",
        "1.000 (1 of 1, 10 k samples)",
    )
    assert table.rows[1][:5] == ("G(3,5), 50", "0.333", "gpt_tiny", "new graphs", "0.300 (0 of 1, 10 k samples)")
    assert "could not be read" in table.note


def test_cells_that_differ_in_training_stand_side_by_side():
    """Guards seeds of a long and a short run pooled as one cell."""
    (row,) = overview.accuracy([kept(0), kept(0, 600, n_steps=200)]).rows
    assert row[4] == "0.500 (0 of 1, 10 k samples); 0.600 (0 of 1, 20 k samples)"


def test_cheat():
    (row,) = overview.cheat([kept(0), kept(1, 510), kept(0, 1000, objective="reversed")]).rows
    assert row == (
        "G(2,5), 50",
        "gpt_tiny",
        "new graphs",
        "10 k samples",
        "0.500 / 0.510",
        "0.990 / 0.990",
        "0.600 / 0.600",
        "0.370 / 0.370",
        "0.70 / 0.70 (0.69)",
        "0.03 / 0.03",
        "0.980 / 0.980",
        "0.991 / 0.991 (0.996)",
    )


def test_published_numbers_stand_beside_ours():
    """Method by method: what a paper calls otherwise is found by its mapping, and another method of ours is not beside it."""
    runs = [kept(0, 330, degree=3, n_values=30), kept(0, 990, degree=3, n_values=30, objective="token_order")]
    table = overview.published(CONF / "published.yaml", runs)
    rows = {(row[0], row[3]): row[4:] for row in table.rows}
    assert rows["G(3,5), 30", "next_token"] == ("0.325", "next_token 0.330 (0 of 1, 10 k samples), gpt_tiny, N=30")
    assert rows["G(3,5), 30", "TOP"] == ("1.000", "token_order 0.990 (1 of 1, 10 k samples), gpt_tiny, N=30")
    assert rows["G(3,5), 30", "MTP-2"] == ("0.590", "-")
    assert rows["G(7,7), 100", "next_token"] == ("0.126", "-")
    assert "could not be read" in table.note


CHECK = Check({"objective": "next_token"}, {}, "exact_match", None, None, 0.05, cells=1, seeds=2)
CLAIM = Claim("c", "It fails.", "section 4", (CHECK,), ("graphs",))


def test_evidence_names_the_cell_the_seeds_the_interval_and_the_rule():
    (line,) = overview.evidence_lines(judge(CLAIM, [kept(0), kept(1, 600)]))
    assert line == (
        "exact match: next_token, gpt_tiny, G(2,5) N=50, new graphs, 10 k samples, fp32: 0.500 / 0.600 +-0.031, "
        "1 of 2 as claimed (0.45 to 0.55)."
    )
    seen, line = overview.evidence_lines(judge(CLAIM, [kept(0)]))
    assert seen.startswith("exact match: [not counted, 1 of 2 seeds: next_token, gpt_tiny, G(2,5) N=50")
    assert line == "Missing: exact_match: 0 of 1 cells with at least 2 seeds (`python scripts/reproduce.py graphs`)."


def test_inventory_says_what_made_what():
    plan = Plan("graphs", "Several graphs", (Cell("x", "graphs", (), "x", {}, (0, 1, 2)),))
    results = [Result(run.record, run.curve, plan.cells[0]) for run in (kept(0), kept(1))]
    text = inventory([(plan, results)])
    command = "`python scripts/reproduce.py graphs`"
    assert f"| [graphs](graphs/table.md) | Several graphs | {command} | 2 of 3 | 2026-11-22 | a CPU, 2 cores | 1.0 |" in text


def test_a_run_of_two_sets_counts_once():
    plan = Cell("x", "graphs", (), "x", {}, (0,))
    results = [Result(run.record, run.curve, plan) for run in (kept(1), kept(0), kept(1))]
    assert [run.record["seed"] for run in unique(results)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not a kept record"),
        ("[]", "not a kept record"),
        ('{"record": {"run": "r"}, "curve": []}', "not a kept record"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, text, words):
    (tmp_path / "x-s0.json").write_text(text)
    with pytest.raises(ValueError, match=f"x-s0.json: .*{words}"):
        read_result(Cell("x", "graphs", (), "x", {}, (0,)), tmp_path / "x-s0.json")


def test_a_run_of_an_older_version_replaces_nothing(tmp_path):
    """Guards a good record that is overwritten by one that no table can read."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").write_text('{"run": "run", "config": {}}')
    (tmp_path / "kept.json").write_text("as it was")
    with pytest.raises(ValueError, match="older version: delete the file"):
        keep(tmp_path / "run", tmp_path / "kept.json")
    assert (tmp_path / "kept.json").read_text() == "as it was"


# ------------------------------------------------------------------ the page


def rendered(runs: list[Kept]) -> str:
    return page.render([judge(CLAIM, runs)], {"accuracy": overview.accuracy(runs)}, runs)


def test_the_page_holds_the_records_and_nothing_from_elsewhere():
    text = rendered([kept(0)])
    data = json.loads(re.search(r"const DATA = (.*);\n", text)[1])
    assert data["claims"][0]["verdict"] == "not yet run"
    assert data["runs"][0]["curve"][0]["forced"] == [1.0, 0.5, 0.99, 0.99, 0.99]
    assert data["runs"][0]["examples"][0]["outcome"] == "wrong_arm_then_goal"
    assert not re.findall(r'(?:src|href)="(?!#)|https?://(?!www\.w3\.org)|@import|url\((?!#)', text)


def test_a_record_cannot_become_markup():
    """Guards a run, or an answer, named </script>: only the script's own text may end it."""
    run = kept(0)
    run.record["examples"][0]["answer"][1] = "</script><script>alert(1)</script>"
    run.record["config"]["model"]["name"] = "<img src=x onerror=alert(2)>"
    text = rendered([run])
    assert text.count("</script>") == 1
    assert "<img" not in text
    assert "innerHTML" not in text


def test_nodes_are_drawn_arm_by_arm_around_the_start():
    places = page.places(kept(0).record["examples"][0])
    assert places["0"] == [0, 0]
    assert {node for node, place in places.items() if place[0] > 0} in ({"1", "2"}, {"3", "4"})
    assert abs(places["2"][0]) > abs(places["1"][0])


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path):
    """Loads without a word on the console; the controls change what they say they change."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    path, messages = tmp_path / "report.html", []
    second = replace(kept(1, 900, objective="teacherless"))
    second.record["examples"].append(second.record["examples"][0] | {"goal": 2})
    path.write_text(rendered([kept(0), second]))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.on("console", lambda message: messages.append(message.text))
        tab.on("pageerror", lambda error: messages.append(str(error)))
        tab.goto(path.as_uri())
        assert tab.inner_text("#tally").startswith("1 ")
        assert tab.locator("#plot polyline").count() == 6, "five positions and exact match"
        before = tab.inner_html("#graph")
        assert tab.get_attribute("#back", "aria-disabled") == "true"
        tab.click("#forward")
        assert tab.inner_html("#graph") != before
        assert "token 2 of 3" in tab.inner_text("#which")
        tab.select_option("#position", "1")
        assert tab.locator('#plot polyline[opacity="1"]').count() == 1
        tab.select_option("#run", "1")
        assert "graph 1 of 2" in tab.inner_text("#which")
        assert "0.900" in tab.inner_text("#reading")
        tab.click("#next")
        assert "from 0 to 2" in tab.inner_text("#which")
        tab.locator("#forward").focus()
        tab.keyboard.press("Enter")
        tab.keyboard.press("Enter")
        tab.keyboard.press("Enter")
        assert "token 3 of 3" in tab.inner_text("#which")
        assert tab.evaluate("document.activeElement.id") == "forward", "the end of a walk must not throw the focus away"
        tab.click("#ledger summary")
        assert tab.is_visible("#ledger li")
        assert tab.is_hidden("#degeneration"), "no lab, no section"
        browser.close()
    assert messages == []
