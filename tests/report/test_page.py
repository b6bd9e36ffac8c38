"""The page holds what the records hold, and nothing that they say can become markup."""

import json
import re
import shutil

import msgspec
import pytest

from pitfalls.claims.ledger import Check, Claim
from pitfalls.claims.verdicts import judge
from pitfalls.report.accuracy import accuracy
from pitfalls.report.page import places, render
from pitfalls.results.formats import Table
from pitfalls.results.kept import Kept
from pitfalls.runs.records import Example
from tests.kept_runs import EXAMPLE, a_kept

CHECK = msgspec.convert(
    dict(where={"objective": "next_token"}, measure="exact_match", chance_margin=0.05, cells=1, seeds=2), Check
)
CLAIM = Claim(headline="It fails", statement="It fails.", source="section 4", checks=(CHECK,), sets=("graphs",), name="c")
RUN = a_kept(500, first_hop=500, others=990, examples=[EXAMPLE])


def rendered(runs: list[Kept], **tables: Table) -> str:
    return render([judge(CLAIM, runs)], {"accuracy": accuracy(runs), **tables}, runs)


def data(text: str):
    return json.loads(re.search(r"const DATA = (.*);\n", text)[1])


def example(**changes) -> Kept:
    return a_kept(500, examples=[msgspec.structs.replace(EXAMPLE, **changes)])


def test_the_page_holds_the_records_and_nothing_from_elsewhere():
    text = rendered([RUN])
    found = data(text)
    assert found["claims"][0]["verdict"] == "not yet run"
    assert found["claims"][0]["statement"] == "It fails."
    assert found["runs"][0]["curve"][0]["forced"] == [1.0, 0.5, 0.99, 0.99, 1.0]
    assert found["runs"][0]["examples"][0]["outcome"] == "wrong_arm_then_goal"
    assert found["lab"] is None
    assert not re.findall(r'(?:src|href)="(?!#)|https?://(?!www\.w3\.org)|@import|url\((?!#)', text)


def test_the_page_shows_the_columns_that_are_for_people():
    wide = Table("wide", ("a", "b"), (("1", "2"),), shown=("b",))
    tables = data(rendered([RUN], **{"claims": wide, "objectives/by_objective/mutor": wide, "wide": wide}))["tables"]
    assert [table["title"] for table in tables] == ["Accuracy per graph and model", "wide"], "claims are shown in their own way"
    assert (tables[1]["header"], tables[1]["rows"]) == (["b"], [["2"]])


def test_a_record_cannot_become_markup():
    """Guards against a run, or an answer, named </script>: only the script's own text may end it."""
    run = example(answer=["0", "</script><script>alert(1)</script>", "4", "7", "8"])
    text = rendered([run, a_kept(500, model="<img src=x onerror=alert(2)>", examples=[EXAMPLE])])
    assert text.count("</script>") == 1
    assert "<img" not in text
    assert "innerHTML" not in text
    assert "alert(2)" in json.dumps(data(text)["runs"])


def test_nodes_are_drawn_arm_by_arm_around_the_start():
    found = places(EXAMPLE)
    assert found["0"] == [0, 0]
    assert {node for node, place in found.items() if place[0] > 0} in ({"1", "2", "5", "6"}, {"3", "4", "7", "8"})
    assert abs(found["2"][0]) > abs(found["1"][0])


def second_graph() -> Example:
    return msgspec.structs.replace(EXAMPLE, goal=6)


@pytest.mark.slow
def test_the_page_works_in_a_browser(tmp_path):
    """The page loads without a message on the console, and each control changes what its name promises."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium")
    path, messages = tmp_path / "report.html", []
    second = a_kept(900, 1, objective="teacherless", others=990, examples=[EXAMPLE, second_graph()])
    path.write_text(rendered([RUN, second]))
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
        assert "token 2 of 5" in tab.inner_text("#which")
        tab.select_option("#position", "1")
        assert tab.locator('#plot polyline[opacity="1"]').count() == 1
        tab.select_option("#run", "1")
        assert "graph 1 of 2" in tab.inner_text("#which")
        assert "0.900" in tab.inner_text("#reading")
        tab.click("#next")
        assert "from 0 to 6" in tab.inner_text("#which")
        tab.locator("#forward").focus()
        for _ in range(5):
            tab.keyboard.press("Enter")
        assert "token 5 of 5" in tab.inner_text("#which")
        assert tab.evaluate("document.activeElement.id") == "forward", "the end of a walk must not throw the focus away"
        tab.click("#ledger summary")
        assert tab.is_visible("#ledger li")
        assert tab.is_hidden("#degeneration"), "no lab, no section"
        browser.close()
    assert messages == []
