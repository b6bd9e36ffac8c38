"""One line per claim shows the deciding value, and its page has all of the evidence."""

import msgspec
import pytest

from pitfalls.claims.ledger import Check, Claim
from pitfalls.claims.verdicts import CONTRADICTED, REPRODUCED, judge
from pitfalls.report.claims_table import claims_table, deciding, evidence_lines, evidence_page
from tests.kept_runs import a_kept

CHECK = msgspec.convert(
    dict(where={"objective": "next_token"}, measure="exact_match", chance_margin=0.05, cells=1, seeds=2), Check
)
CLAIM = Claim(headline="It fails", statement="It fails.", source="section 4", checks=(CHECK,), sets=("graphs",), name="fails")
G2 = "next token, gpt_tiny, G(2,5) N=50, new graphs, 10 k samples, fp32"
G3 = "next token, gpt_tiny, G(3,5) N=50, new graphs, 10 k samples, fp32"


def seeds(*exact, degree=2, **changes):
    return [a_kept(k, seed, graph=(degree, 5, 50), **changes) for seed, k in enumerate(exact)]


def claim(*checks, **changes):
    return msgspec.structs.replace(CLAIM, checks=checks or (CHECK,), **changes)


def test_a_line_has_the_verdict_the_deciding_config_and_a_link():
    table = claims_table([judge(CLAIM, seeds(500, 510)), judge(CLAIM, seeds(500))])
    assert table.rows == (
        ("reproduced", "It fails", "exact match", "0.500 / 0.510 ±0.031", "2 of 2", "1 of 1", "[page](claims/fails.md)"),
        ("not yet run", "It fails", "exact match", "-", "-", "0 of 1", "[page](claims/fails.md)"),
    )


def test_a_contradicted_claim_is_decided_by_a_config_that_disagrees():
    """Guards against a contradicted claim shown with a number that agrees: one seed of three is far off, but outvoted."""
    agrees, disagrees = seeds(500, 500, 1000), seeds(400, 400, degree=3)
    for runs in ([*agrees, *disagrees], [*disagrees, *agrees]):
        found = judge(CLAIM, runs)
        assert found.verdict == CONTRADICTED
        assert deciding(found)[1].config == G3
        assert claims_table([found]).rows[0][3:5] == ("0.400 / 0.400 ±0.031", "0 of 2")


@pytest.mark.parametrize(("values", "others", "wanted"), [((500, 549), (333, 333), G2), ((500, 500), (333, 380), G3)])
def test_a_reproduced_claim_is_decided_by_the_config_nearest_to_its_bound(values, others, wanted):
    """Guards against the most flattering number in the table."""
    found = judge(CLAIM, [*seeds(*values), *seeds(*others, degree=3)])
    assert found.verdict == REPRODUCED
    assert deciding(found)[1].config == wanted


def test_what_does_not_count_decides_nothing():
    found = judge(CLAIM, [*seeds(500, 500), *seeds(900, degree=3)])
    assert deciding(found)[1].config == G2
    assert claims_table([found]).rows[0][5] == "1 of 2"
    assert deciding(judge(CLAIM, [])) is None


def test_the_check_that_decides_is_named():
    loose = msgspec.convert(dict(where={}, measure="other_positions", low=0.5, cells=1, seeds=2), Check)
    row = claims_table([judge(claim(loose, CHECK), seeds(500, 500))]).rows[0]
    assert row[2:4] == ("exact match", "0.500 / 0.500 ±0.031")
    strict = msgspec.convert(dict(where={}, measure="other_positions", low=0.99, cells=1, seeds=2), Check)
    assert claims_table([judge(claim(strict, CHECK), seeds(500, 500))]).rows[0][2:4] == ("other positions", "1.000 / 1.000")


def test_a_page_has_the_config_the_seeds_the_interval_and_the_rule():
    page = evidence_page(judge(CLAIM, [*seeds(500, 600), *seeds(333, degree=3)]))
    assert page.startswith("# It fails: contradicted\n")
    assert f"| exact match | {G2} | 0.500 / 0.600 ±0.031 | 1 of 2 | 0.45 to 0.55 |" in page
    assert G3 not in page, "what does not count is counted, not listed"
    assert "**Not counted.** 1 config that speaks to the claim: 1 with 1 of 2 seeds." in page
    assert "**Claim.** It fails." in page
    assert "**Source.** section 4." in page
    assert "[table of all claims](../claims.md)" in page
    assert "Missing" not in page


def test_a_page_says_what_is_missing_and_how_to_get_it():
    page = evidence_page(judge(claim(sets=("graphs", "grokking"), remark="Longer runs are owed."), seeds(500)))
    assert (
        "**Missing.** exact_match: 0 of 1 configs with at least 2 seeds. To produce it: "
        "`python scripts/reproduce.py graphs`, `python scripts/reproduce.py grokking`."
    ) in page
    assert "**Since the runs.** Longer runs are owed." in page


@pytest.mark.parametrize(
    ("bounds", "words"),
    [({"low": 0.99}, "at least 0.99"), ({"high": 0.1}, "at most 0.1"), ({"low": 0.1, "high": 0.9}, "0.1 to 0.9")],
)
def test_rules_in_words(bounds, words):
    rule = msgspec.convert(dict(where={}, measure="exact_match", cells=1, seeds=2, **bounds), Check)
    assert f"| {words} |" in evidence_page(judge(claim(rule), seeds(500, 500)))


def test_lines_for_the_page_of_everything():
    assert evidence_lines(judge(CLAIM, seeds(500, 600))) == [
        f"exact match: {G2}: 0.500 / 0.600 ±0.031, 1 of 2 as claimed (0.45 to 0.55)"
    ]
    assert evidence_lines(judge(claim(remark="owed"), seeds(500))) == [
        "not counted: 1 config that speaks to the claim: 1 with 1 of 2 seeds",
        "missing: exact_match: 0 of 1 configs with at least 2 seeds (python scripts/reproduce.py graphs)",
        "since the runs: owed",
    ]
