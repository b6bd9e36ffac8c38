"""The claims of the file: its queries select the right runs, and mistakes are named."""

import math
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pitfalls.claims.ledger import Check, read_claims
from pitfalls.claims.verdicts import judge
from pitfalls.schemas import ConfigError
from tests.kept_runs import a_kept

CONF = Path(__file__).resolve().parents[2] / "conf"
RULE = "{where: {}, measure: exact_match, high: 0.6, cells: 1, seeds: 3}"
WORDS = "headline: h, statement: s, source: p, sets: []"


def check(**changes: Any) -> Check:
    plain: dict[str, Any] = {"where": {"objective": "next_token"}, "measure": "exact_match", "chance_margin": 0.05}
    return msgspec.convert(plain | {"cells": 1, "seeds": 3} | changes, Check)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("where", "n"),
    [
        ({"family": "transformer"}, 1),
        ({"family": "mamba"}, 1),
        ({"degree": {"at_least": 3}}, 1),
        ({"regime": "online"}, 2),
        ({"model": "gpt_conv"}, 0),
        ({"objective": ["next_token", "reversed"]}, 2),
        ({"samples": {"at_least": 1000, "at_most": 1000}}, 2),
        ({"samples": {"at_least": 1001}}, 0),
    ],
)
def test_queries(where, n):
    runs = [a_kept(samples=1000), a_kept(architecture="mamba2", graph=(3, 5, 50), samples=1000)]
    assert sum(check(where=where).where.holds_for(run) for run in runs) == n


@pytest.mark.parametrize(
    ("changes", "degree", "bounds"),
    [
        ({}, 4, (0.2, 0.3)),
        ({"chance_margin": None, "low": 0.9}, 2, (0.9, math.inf)),
        ({"chance_margin": None, "high": 0.1}, 2, (-math.inf, 0.1)),
    ],
)
def test_bounds(changes, degree, bounds):
    assert check(**changes).bounds(a_kept(graph=(degree, 5, 50))) == pytest.approx(bounds)


def test_the_ledger_reads_and_covers_what_it_must():
    ledger = read_claims(CONF / "claims.yaml")
    assert {claim.name for claim in ledger} >= {
        "in_distribution_failure",
        "training_data_fitted",
        "clever_hans_cheat",
        "indecipherable_first_hop",
        "transformer_and_mamba",
        "not_a_snowball",
        "not_rescued_by_a_verifier",
        "reversal_solves",
        "teacherless_solves_easier",
        "teacherless_fails_harder",
        "longer_training_does_not_help",
        "fails_in_isolation",
        "pretraining_does_not_help",
        "several_topologies",
    }
    assert all(claim.headline and claim.statement and claim.source for claim in ledger)
    assert len({claim.headline for claim in ledger}) == len(ledger)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{measure: exact, where: {}, low: 1, cells: 1, seeds: 1}", "measure exact: choose one of exact_match"),
        ("{measure: exact_match, where: {graph: 1}, low: 1, cells: 1, seeds: 1}", "unknown field `graph`"),
        ("{measure: exact_match, where: {}, given: {lookups: 1}, low: 1, cells: 1, seeds: 1}", "measure lookups: choose one of"),
        ("{measure: exact_match, where: {}, cells: 1, seeds: 1}", "give bounds"),
        ("{measure: exact_match, where: {}, low: 1, chance_margin: 0.1, cells: 1, seeds: 1}", "give bounds"),
        ("{measure: exact_match, where: {}, low: 0.9, high: 0.1, cells: 1, seeds: 1}", "low=0.9 is above high=0.1"),
        ("{measure: exact_match, where: {}, low: 1, cells: 0, seeds: 1}", r">= 1 - at `\$.checks\[0\].cells`"),
        ("{measure: exact_match, where: {}, low: 1, cells: 1, seeds: 0}", r">= 1 - at `\$.checks\[0\].seeds`"),
        (
            "{measure: exact_match, where: {degree: {atleast: 3}}, low: 1, cells: 1, seeds: 1}",
            r"unknown field `atleast` - at `\$.checks\[0\].where.degree`",
        ),
        (
            "{measure: exact_match, where: {degree: {}}, low: 1, cells: 1, seeds: 1}",
            "give one of them, or a range .*where.degree",
        ),
        ("{measure: exact_match, where: {regime: onlin}, low: 1, cells: 1, seeds: 1}", "Invalid enum value 'onlin'"),
        ("{measure: exact_match, where: {degree: two}, low: 1, cells: 1, seeds: 1}", "Expected `int .*where.degree`"),
        ("{measure: exact_match, where: {}, given: {first_hop: abc}, low: 1, cells: 1, seeds: 1}", "given"),
        ("{measure: exact_match, where: {}, lowest: 1, cells: 1, seeds: 1}", "unknown field `lowest`"),
        ("{measure: exact_match, where: {}, low: .nan, cells: 1, seeds: 1}", "low: nan is no number"),
        (
            "{measure: exact_match, where: {}, given: {first_hop: .nan}, low: 1, cells: 1, seeds: 1}",
            "first_hop: nan is no number",
        ),
        (
            "{measure: exact_match, where: {}, chance_margin: -0.1, cells: 1, seeds: 1}",
            "chance_margin=-0.1: it must be at least 0",
        ),
        ("{measure: exact_match, where: {degree: []}, low: 1, cells: 1, seeds: 1}", "where degree: an empty list"),
        ("{measure: exact_match, where: {}, low: 1, seeds: 1}", "missing required field `cells`"),
    ],
)
def test_mistakes_in_the_ledger_name_the_claim(tmp_path, text, words):
    path = written(tmp_path, f"other: {{{WORDS}, checks: [{RULE}]}}\nmine: {{{WORDS}, checks: [{text}]}}\n")
    with pytest.raises(ConfigError, match=f"^claims.yaml: mine: .*{words}"):
        read_claims(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("where: {objective: next_tokn}", "where objective next_tokn: there is none; choose one of .*next_token"),
        ("where: {objective: [next_token, revresed]}", "where objective revresed: there is none; choose one of "),
        ("where: {}", "set laptp: there is none; choose one of laptop"),
    ],
)
def test_a_misspelt_objective_or_set_is_refused(tmp_path, change, words):
    """Guards against a query that matches no run, which would end as "not yet run" for ever."""
    conf = tmp_path / "conf"
    shutil.copytree(CONF / "objective", conf / "objective")
    shutil.copy(CONF / "reproduce.yaml", conf)
    text = (CONF / "claims.yaml").read_text().split("\n\n")[0]
    old = "where: {objective: next_token, family: transformer}"
    if change.startswith("where: {}"):
        text = text.replace("[laptop_full, graphs]", "[laptp]")
    else:
        assert old in text
        text = text.replace(old, change)
    (conf / "claims.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"claims.yaml: in_distribution_failure: {words}"):
        read_claims(conf / "claims.yaml")


def test_a_remark_is_shown_and_decides_nothing(tmp_path):
    text = f"{{{WORDS}, checks: [{RULE}]"
    path = written(tmp_path, f"plain: {text}}}\nremarked: {text}, remark: longer runs are owed}}\n")
    plain, remarked = (judge(claim, [a_kept(seed=seed) for seed in range(3)]) for claim in read_claims(path))
    assert (plain.verdict, plain.evidence) == (remarked.verdict, remarked.evidence)
    assert (plain.claim.name, remarked.claim.remark) == ("plain", "longer runs are owed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "Expected `object`, got `array`"),
        ("", "Expected `object`, got `null`"),
        ("a: {", "while parsing"),
        ("a: 3", "a: Expected `object`, got `int`"),
        (f"a: {{{WORDS}}}", "a: .*missing required field `checks`"),
        (f"a: {{{WORDS}, checks: []}}", "a: checks: the list is empty; give at least one"),
        (f"a: {{{WORDS}, checks: [], verdict: yes}}", "a: .*unknown field `verdict`"),
        (f"a: {{statement: s, source: p, sets: [], checks: [{RULE}]}}", "a: .*missing required field `headline`"),
        (f"a: {{statement: s, source: p, sets: [], headline: {'h' * 91}, checks: [{RULE}]}}", "a: headline: 91 characters"),
    ],
)
def test_a_broken_ledger_is_one_line(tmp_path, text, words):
    with pytest.raises(ConfigError, match=f"^claims.yaml: {words}") as caught:
        read_claims(written(tmp_path, text))
    assert "\n" not in str(caught.value)
