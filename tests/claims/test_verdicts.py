"""Verdicts follow from the records and the rules, and from nothing else."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pitfalls.claims.ledger import Check, Claim, read_claims
from pitfalls.claims.verdicts import CONTRADICTED, NOT_YET_RUN, REPRODUCED, Verdict, judge
from pitfalls.experiment.hydra_app import compose
from pitfalls.results.groups import seeds_of_configs
from pitfalls.results.kept import Kept
from pitfalls.results.plans import read_plan
from pitfalls.runs.probe_records import Probes
from pitfalls.runs.records import ConfigRecord
from tests.kept_runs import a_kept, entropy

CONF = Path(__file__).resolve().parents[2] / "conf"


def check(**changes: Any) -> Check:
    plain: dict[str, Any] = {"where": {"objective": "next_token"}, "measure": "exact_match", "chance_margin": 0.05}
    return msgspec.convert(plain | {"cells": 1, "seeds": 3} | changes, Check)


def verdict(runs: list[Kept], *checks: Check) -> Verdict:
    claim = Claim(headline="h", statement="s", source="p", checks=checks or (check(),), sets=("graphs",), name="c")
    return judge(claim, runs)


def test_three_seeds_at_chance_reproduce():
    found = verdict([a_kept(exact, seed) for seed, exact in enumerate((480, 500, 549))])
    assert found.verdict == REPRODUCED
    ((evidence,),) = found.evidence
    assert evidence.seeds == (0, 1, 2)
    assert [(v.k, v.n) for v in evidence.values] == [(480, 1000), (500, 1000), (549, 1000)]
    assert evidence.bounds == (0.45, 0.55)
    assert evidence.config == "next token, gpt_tiny, G(2,5) N=50, new graphs, 10 k samples, fp32"
    assert evidence.not_counted == ""
    assert found.missing == ("",)


def test_two_seeds_are_not_enough():
    found = verdict([a_kept(), a_kept(seed=1)])
    assert found.verdict == NOT_YET_RUN
    assert found.missing == ("exact_match: 0 of 1 configs with at least 3 seeds",)
    assert [(cell.not_counted, [v.value for v in cell.values]) for cell in found.evidence[0]] == [("2 of 3 seeds", [0.5, 0.5])]
    assert found.claim.commands == ["python scripts/reproduce.py graphs"]
    assert verdict([]).verdict == NOT_YET_RUN


def test_the_same_seed_twice_counts_once():
    found = verdict([a_kept(), a_kept(), a_kept(seed=1)])
    assert found.verdict == NOT_YET_RUN
    assert found.evidence[0][0].not_counted == "2 of 3 seeds"


@pytest.mark.parametrize(("values", "wanted"), [((500, 500, 900), REPRODUCED), ((500, 900, 900), CONTRADICTED)])
def test_two_thirds_of_the_seeds_decide_a_config(values, wanted):
    """Guards against a mean of bimodal outcomes: 0.63 would hide that one seed of three solved it."""
    assert verdict([a_kept(exact, seed) for seed, exact in enumerate(values)]).verdict == wanted


def test_one_config_that_disagrees_contradicts():
    """Guards against a verdict that picks the configs which suit it."""
    runs = [a_kept(seed=seed) for seed in range(3)] + [a_kept(900, seed, graph=(3, 5, 50)) for seed in range(3)]
    assert verdict(runs).verdict == CONTRADICTED
    assert verdict(runs, check(where={"objective": "next_token", "degree": 2})).verdict == REPRODUCED


def test_a_contradiction_needs_no_further_configs():
    assert verdict([a_kept(900, seed) for seed in range(3)], check(cells=5)).verdict == CONTRADICTED


def test_configs_differ_in_more_than_the_seed():
    """Guards against seeds of different runs pooled into one config, and runs of one config separated by their folders."""
    assert verdict([a_kept(), a_kept(seed=1), a_kept(seed=2, n_steps=200)]).verdict == NOT_YET_RUN
    runs = [a_kept(seed=seed, runs_dir=f"somewhere/{seed}") for seed in range(3)]
    assert verdict(runs).verdict == REPRODUCED, "runs_dir differs and does not matter"


def test_undertrained_runs_do_not_count():
    """Guards against runs without the lookups, which are under 1/d for another reason (two published baselines)."""
    runs = [a_kept(10, seed, others=300) for seed in range(3)]
    rule = check(given={"other_positions": 0.95})
    assert verdict(runs, rule).verdict == NOT_YET_RUN
    (cell,) = verdict(runs, rule).evidence[0]
    assert cell.not_counted == "3 of 3 seeds miss the condition on other positions"
    wanted = "exact_match: 0 of 1 configs with at least 3 seeds; with the seeds but not the condition on other positions: 1"
    assert verdict([*runs, a_kept(graph=(3, 5, 50))], rule).missing == (wanted,), "the same runs once more would not help"
    found = verdict([*runs, *(a_kept(seed=seed, n_steps=200) for seed in range(3))], rule)
    assert found.verdict == REPRODUCED
    assert [bool(cell.not_counted) for cell in found.evidence[0]] == [False, True], "what counts stands first"
    assert verdict([*runs, *(a_kept(seed=seed) for seed in range(3, 6))], rule).evidence[0][0].seeds == (3, 4, 5)


def test_a_config_that_does_not_count_cannot_contradict():
    assert verdict([a_kept(900), *(a_kept(250, seed, graph=(4, 5, 50)) for seed in range(3))]).verdict == REPRODUCED


def test_a_precondition_can_be_an_upper_bound():
    def run(seed: int, other: float) -> Kept:
        return a_kept(seed=seed, graph=(2, 4, 20), probes=Probes(uncertainty=entropy(0.0, 0.69, other, 0.0)))

    rule = check(given={"other_entropy": {"at_most": 0.05}}, measure="first_hop_entropy_gap", chance_margin=None, high=0.1)
    assert verdict([run(seed, 0.06) for seed in range(3)], rule).verdict == NOT_YET_RUN
    assert verdict([run(seed, 0.05) for seed in range(3)], rule).verdict == REPRODUCED


def test_a_run_without_the_measure_of_a_condition_does_not_count():
    """Guards against a run that was never probed and passes for one that met the condition."""
    rule = check(given={"other_entropy": {"at_most": 0.05}})
    assert verdict([a_kept(seed=seed) for seed in range(3)], rule).verdict == NOT_YET_RUN


def test_every_check_must_hold():
    fitted = check(where={"regime": "fixed"}, measure="train_exact_match", chance_margin=None, low=0.99)

    def runs(train: int | None, **changes: Any) -> list[Kept]:
        return [a_kept(seed=seed, train=train, **changes) for seed in range(3)]

    assert verdict(runs(1000, train_graphs=3000), check(), fitted).verdict == REPRODUCED
    assert verdict(runs(900, train_graphs=3000), check(), fitted).verdict == CONTRADICTED
    assert verdict(runs(None), check(), fitted).verdict == NOT_YET_RUN


def planned() -> dict[str, list[Kept]]:
    """Return a run of every seed and cell of every set, with the facts that queries name and no measured number."""
    path, runs = CONF / "reproduce.yaml", {}
    asked = {"objective=reversed", "objective=joint_multi_token"}  # of the bench, whose other cells take seconds to compose
    for name in ("laptop_full", "graphs", "grokking", "pretrained", "sooner", "objectives"):
        runs[name] = []
        for cell in read_plan(path, name).cells:
            if name == "objectives" and not asked & set(cell.overrides):
                continue
            config = asdict(compose([f"experiment={cell.experiment}", *cell.overrides]))
            samples = config["training"]["n_steps"] * config["training"]["batch_size"]
            for seed in cell.seeds:
                task = config["task"]
                run = a_kept(seed=seed, samples=samples, graph=(task["degree"], task["path_length"], task["n_values"]))
                resolved = msgspec.convert(config | {"seed": seed}, ConfigRecord)
                runs[name].append(msgspec.structs.replace(run, record=msgspec.structs.replace(run.record, config=resolved)))
    return runs


def test_the_sets_of_a_claim_can_decide_it():
    """Guards against a claim that stays 'not yet run' whatever is run: too few configs or seeds answer its query."""
    runs = planned()
    for claim in read_claims(CONF / "claims.yaml"):
        for rule in claim.checks:
            configs = seeds_of_configs([run for name in claim.sets for run in runs[name] if rule.where.holds_for(run)])
            enough = [seeds for seeds in configs if len(seeds) >= rule.seeds]
            assert len(enough) >= rule.cells, f"{claim.name}: {rule.measure}: {len(enough)} of {rule.cells} configs"
