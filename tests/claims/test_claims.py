"""Verdicts follow from the records and the rules, and from nothing else."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pitfalls.claims.ledger import Check, Claim, read_claims
from pitfalls.claims.measures import MEASURES, Value
from pitfalls.claims.verdicts import CONTRADICTED, NOT_YET_RUN, REPRODUCED, Verdict, judge
from pitfalls.experiment.hydra_app import compose
from pitfalls.report.overview import evidence_lines
from pitfalls.results.kept import Kept, group
from pitfalls.results.plans import read_plan

CONF = Path(__file__).resolve().parents[2] / "conf"


def count(k: int, n: int = 1000) -> dict[str, int]:
    return {"k": k, "n": n}


def kept(
    seed: int = 0,
    exact: int = 500,
    *,
    objective: str = "next_token",
    degree: int = 2,
    others: int = 1000,
    train: int | None = None,
    architecture: str = "gpt2",
    n_steps: int = 100,
    probes: dict[str, Any] | None = None,
) -> Kept:
    """A run that got ``exact`` of 1,000 test graphs."""
    n_values, train_graphs = 20, None if train is None else 3000
    config = {
        "seed": seed,
        "runs_dir": f"somewhere/{seed}",
        "objective": {"name": objective},
        "model": {"name": f"{architecture}_tiny", "architecture": architecture, "init_from": None},
        "task": {"degree": degree, "path_length": 4, "n_values": n_values, "train_graphs": train_graphs},
        "training": {"n_steps": n_steps, "batch_size": 10, "precision": "fp32"},
    }
    test = {
        "exact_match": count(exact),
        "first_hop": count(exact + 10),
        "forced_position_accuracy": [count(1000), count(exact), count(others), count(1000)],
    }
    evaluation = {"test": test} | ({} if train is None else {"train": {"exact_match": count(train), "first_hop": count(train)}})
    nothing = dict.fromkeys(("arm_following", "uncertainty", "verifier", "learning_order"))
    nothing |= {"first_hop": {"right": count(500), "other_child": count(480), "other_node": count(20), "elsewhere": count(0)}}
    record = {
        "run": f"run-{seed}",
        "seed": seed,
        "samples_seen": n_steps * 10,
        "config": config,
        "evaluation": evaluation,
        "probes": nothing | (probes or {}),
    }
    return Kept(record, ())


def check(**changes: Any) -> Check:
    plain = Check(
        where={"objective": "next_token"},
        given={},
        measure="exact_match",
        low=None,
        high=None,
        chance_margin=0.05,
        cells=1,
        seeds=3,
    )
    return replace(plain, **changes)


def verdict(runs: list[Kept], *checks: Check) -> Verdict:
    return judge(Claim("c", "s", "p", checks or (check(),), ("graphs",)), runs)


# ------------------------------------------------------------------ verdicts


def test_three_seeds_at_chance_reproduce():
    found = verdict([kept(seed, exact) for seed, exact in enumerate((480, 500, 549))])
    assert found.verdict == REPRODUCED
    ((evidence,),) = found.evidence
    assert evidence.seeds == (0, 1, 2)
    assert [(v.k, v.n) for v in evidence.values] == [(480, 1000), (500, 1000), (549, 1000)]
    assert evidence.bounds == (0.45, 0.55)
    assert evidence.not_counted == ""
    assert found.missing == ("",)


def test_two_seeds_are_not_enough():
    found = verdict([kept(0), kept(1)])
    assert found.verdict == NOT_YET_RUN
    assert found.missing == ("exact_match: 0 of 1 cells with at least 3 seeds",)
    assert [(cell.not_counted, [v.value for v in cell.values]) for cell in found.evidence[0]] == [("2 of 3 seeds", [0.5, 0.5])]
    assert found.claim.commands == ["python scripts/reproduce.py graphs"]
    assert verdict([]).verdict == NOT_YET_RUN


def test_the_same_seed_twice_counts_once():
    assert verdict([kept(0), kept(0), kept(1)]).verdict == NOT_YET_RUN


@pytest.mark.parametrize(("values", "wanted"), [((500, 500, 900), REPRODUCED), ((500, 900, 900), CONTRADICTED)])
def test_two_thirds_of_the_seeds_decide_a_cell(values, wanted):
    """Outcomes are bimodal: a mean of 0.63 would hide that one seed of three solved it."""
    assert verdict([kept(seed, exact) for seed, exact in enumerate(values)]).verdict == wanted


def test_one_cell_that_disagrees_contradicts():
    """Guards a verdict that picks the cells which suit it."""
    runs = [kept(seed) for seed in range(3)] + [kept(seed, 900, degree=3) for seed in range(3)]
    assert verdict(runs).verdict == CONTRADICTED
    assert verdict(runs, check(where={"objective": "next_token", "degree": 2})).verdict == REPRODUCED


def test_a_contradiction_needs_no_further_cells():
    assert verdict([kept(seed, 900) for seed in range(3)], check(cells=5)).verdict == CONTRADICTED


def test_cells_differ_in_more_than_the_seed():
    """Guards seeds of different runs pooled into one cell, and runs of one cell told apart by their folders."""
    assert verdict([kept(0), kept(1), kept(2, n_steps=200)]).verdict == NOT_YET_RUN
    assert verdict([kept(seed) for seed in range(3)]).verdict == REPRODUCED, "runs_dir differs and does not matter"


def test_undertrained_runs_do_not_count():
    """A run that has not learned the lookups is below 1/d for another reason (two published baselines)."""
    runs = [kept(seed, 10, others=300) for seed in range(3)]
    rule = check(given={"other_positions": 0.95})
    assert verdict(runs, rule).verdict == NOT_YET_RUN
    (cell,) = verdict(runs, rule).evidence[0]
    assert cell.not_counted == "3 of 3 seeds miss the condition on other positions"
    wanted = "exact_match: 0 of 1 cells with at least 3 seeds; with the seeds but not the condition on other positions: 1"
    assert verdict([*runs, kept(0, degree=3)], rule).missing == (wanted,), "the same runs once more would not help"
    found = verdict([*runs, *(kept(seed, n_steps=200) for seed in range(3))], rule)
    assert found.verdict == REPRODUCED
    assert [bool(cell.not_counted) for cell in found.evidence[0]] == [False, True], "what counts stands first"
    assert verdict([*runs, *(kept(seed) for seed in range(3, 6))], rule).evidence[0][0].seeds == (3, 4, 5)


def test_a_cell_that_does_not_count_cannot_contradict():
    assert verdict([kept(0, 900), *(kept(seed, degree=4, exact=250) for seed in range(3))]).verdict == REPRODUCED


def test_a_precondition_can_be_an_upper_bound():
    def run(seed: int, entropy: float) -> Kept:
        entropies = [{"sum": s, "sum_sq": 1.0, "n": 1} for s in (0.0, 0.69, entropy, 0.0)]
        return kept(seed, probes={"uncertainty": {"entropy": entropies}})

    rule = check(given={"other_entropy": {"at_most": 0.05}}, measure="first_hop_entropy_gap", chance_margin=None, high=0.1)
    assert verdict([run(seed, 0.06) for seed in range(3)], rule).verdict == NOT_YET_RUN
    assert verdict([run(seed, 0.05) for seed in range(3)], rule).verdict == REPRODUCED


def test_every_check_must_hold():
    fitted = check(where={"regime": "fixed"}, measure="train_exact_match", chance_margin=None, low=0.99)
    runs = [kept(seed, train=1000) for seed in range(3)]
    assert verdict(runs, check(), fitted).verdict == REPRODUCED
    assert verdict([kept(seed, train=900) for seed in range(3)], check(), fitted).verdict == CONTRADICTED
    assert verdict([kept(seed) for seed in range(3)], check(), fitted).verdict == NOT_YET_RUN


@pytest.mark.parametrize(
    ("where", "n"),
    [
        ({"family": "transformer"}, 1),
        ({"family": "mamba"}, 1),
        ({"degree": {"at_least": 3}}, 1),
        ({"regime": "online"}, 2),
        ({"objective": ["next_token", "reversed"]}, 2),
        ({"samples": {"at_least": 1000, "at_most": 1000}}, 2),
        ({"samples": {"at_least": 1001}}, 0),
    ],
)
def test_queries(where, n):
    runs = [kept(0), kept(0, architecture="mamba2", degree=3)]
    assert sum(check(where=where).speaks_of(run) for run in runs) == n


@pytest.mark.parametrize(
    ("changes", "degree", "bounds"),
    [
        ({}, 4, (0.2, 0.3)),
        ({"chance_margin": None, "low": 0.9}, 2, (0.9, math.inf)),
        ({"chance_margin": None, "high": 0.1}, 2, (-math.inf, 0.1)),
    ],
)
def test_bounds(changes, degree, bounds):
    assert check(**changes).bounds(kept(degree=degree)) == pytest.approx(bounds)


# ------------------------------------------------------------------ measures


def test_measures_of_probes():
    probes = {
        "arm_following": {"follows": count(970)},
        "uncertainty": {"entropy": [{"sum": s, "sum_sq": 1.0, "n": 100} for s in (1.0, 79.3147, 4.0, 0.5)]},
        "verifier": {"solved": {"1": count(500), "2": count(760), "4": count(900)}},
    }
    run = kept(probes=probes)
    values = {name: measure(run) for name, measure in MEASURES.items()}
    assert values["arm_following"] == Value(0.97, 970, 1000)
    assert values["first_hop_child"] == Value(0.98, 980, 1000)
    assert values["wrong_at_first_hop"] == Value(0.98, 490, 500)
    assert values["first_hop_entropy_gap"].value == pytest.approx(0.1, abs=1e-6)
    assert values["other_entropy"].value == pytest.approx(0.04)
    assert values["verifier_gain"].value == pytest.approx(0.76 - 0.75)
    assert values["train_exact_match"] is None


@pytest.mark.parametrize(
    ("samples", "backwards"),
    [
        ([0, 300, 200, 9], 1),
        ([0, 200, 200, 100], 0),
        ([0, 100, 200, 300], 0),
        ([0, None, 200, 100], 1),
        ([None] * 4, 0),
        ([500, 300, 200, 900], 1),
        ([0, 300, 200, 200, 0], 1),
        ([0, 200, 300, 100, 0], 0),
    ],
)
def test_learned_backwards(samples, backwards):
    """Start and goal are copied and say nothing; all at once is no order; a position that is never learned comes last."""
    value = MEASURES["learned_backwards"](kept(probes={"learning_order": {"learned": 0.9, "samples": samples}}))
    assert value.value == backwards


def test_no_order_between_two_copied_tokens():
    assert MEASURES["learned_backwards"](kept(probes={"learning_order": {"learned": 0.9, "samples": [0, 300, 0]}})) is None


def test_methods_without_a_probe_say_nothing():
    nothing = {"exact_match", "first_hop", "other_positions", "first_hop_child", "wrong_at_first_hop"}
    assert {name for name, measure in MEASURES.items() if measure(kept()) is not None} == nothing


# ------------------------------------------------------------------ the file


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
    assert all(claim.statement and claim.source for claim in ledger)


def planned() -> dict[str, list[Kept]]:
    """A run of every seed and cell of every set, with the facts that queries ask for and no measured number."""
    path, runs = CONF / "reproduce.yaml", {}
    for name in ("laptop_full", "graphs", "grokking", "pretrained"):
        runs[name] = []
        for cell in read_plan(path, name).cells:
            config = asdict(compose([f"experiment={cell.experiment}", *cell.overrides]))
            samples = config["training"]["n_steps"] * config["training"]["batch_size"]
            runs[name] += [Kept({"config": config | {"seed": s}, "seed": s, "samples_seen": samples}, ()) for s in cell.seeds]
    return runs


def test_the_sets_of_a_claim_can_decide_it():
    """Guards a claim that stays 'not yet run' whatever is run: too few cells or seeds answer its query."""
    runs = planned()
    for claim in read_claims(CONF / "claims.yaml"):
        for rule in claim.checks:
            cells = group([run for name in claim.sets for run in runs[name] if rule.speaks_of(run)])
            enough = [cell for cell in cells if len(cell) >= rule.seeds]
            assert len(enough) >= rule.cells, f"{claim.name}: {rule.measure}: {len(enough)} of {rule.cells} cells"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{measure: exact, where: {}, low: 1, cells: 1, seeds: 1}", "measure exact: choose one of exact_match"),
        ("{measure: exact_match, where: {graph: 1}, low: 1, cells: 1, seeds: 1}", "where graph: choose one of"),
        ("{measure: exact_match, where: {}, cells: 1, seeds: 1}", "give bounds"),
        ("{measure: exact_match, where: {}, low: 1, chance_margin: 0.1, cells: 1, seeds: 1}", "give bounds"),
        ("{measure: exact_match, where: {}, low: 1, cells: 0, seeds: 1}", "cells=0: at least 1"),
        ("{measure: exact_match, where: {}, low: 1, cells: 1, seeds: 0}", "seeds=0: at least 1"),
        (
            "{measure: exact_match, where: {degree: {atleast: 3}}, low: 1, cells: 1, seeds: 1}",
            "degree: .* give at_least or at_most",
        ),
        ("{measure: exact_match, where: {}, lowest: 1, cells: 1, seeds: 1}", "lowest: no such key"),
        ("{measure: exact_match, where: {}, low: 1, seeds: 1}", "cells"),
    ],
)
def test_mistakes_in_the_ledger_name_the_claim(tmp_path, text, words):
    path = tmp_path / "claims.yaml"
    path.write_text(f"mine:\n  statement: s\n  source: p\n  sets: []\n  checks: [{text}]\n")
    with pytest.raises(ValueError, match=f"claims.yaml: mine: .*{words}"):
        read_claims(path)


def test_a_remark_is_shown_and_decides_nothing(tmp_path):
    path = tmp_path / "claims.yaml"
    rule = "{where: {}, measure: exact_match, high: 0.6, cells: 1, seeds: 3}"
    text = f"{{statement: s, source: p, sets: [], checks: [{rule}]"
    path.write_text(f"plain: {text}}}\nremarked: {text}, remark: longer runs are owed}}\n")
    plain, remarked = (judge(claim, [kept(seed) for seed in range(3)]) for claim in read_claims(path))
    assert (plain.verdict, plain.evidence) == (remarked.verdict, remarked.evidence)
    assert evidence_lines(remarked) == [*evidence_lines(plain), "Since the runs: longer runs are owed"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "a mapping of names to claims"),
        ("", "a mapping of names to claims"),
        ("a: {", "not YAML"),
        ("a: {statement: s, source: p, sets: []}", "a: checks: missing"),
        ("a: {statement: s, source: p, sets: [], checks: []}", "a: checks: at least one"),
        ("a: {statement: s, source: p, sets: [], checks: [], verdict: yes}", "a: verdict: no such key"),
    ],
)
def test_a_broken_ledger_is_one_line(tmp_path, text, words):
    path = tmp_path / "claims.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"claims.yaml: {words}"):
        read_claims(path)
