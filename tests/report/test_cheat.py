"""The table of the cheat shows what probes found, next-token runs only."""

from pitfalls.report.cheat import HEADER, cheat
from pitfalls.runs.probe_records import Probes
from tests.kept_runs import a_kept, entropy, follows, verifier

PROBES = Probes(
    arm_following=follows(970, to_its_leaf=600),
    uncertainty=entropy(0.01, 0.7, 0.03, 0.03, 0.03),
    verifier=verifier(k1=500, k8=991),
)


def test_each_seed_beside_what_a_blind_guess_gets():
    runs = [a_kept(500, 0, first_hop=510, others=990, probes=PROBES), a_kept(510, 1, first_hop=520, others=990, probes=PROBES)]
    table = cheat([*runs, a_kept(1000, objective="reversed")])
    assert table.rows == (
        (
            "G(2,5), 50",
            "gpt_tiny",
            "new graphs",
            "10 k, fp32",
            "0.500 / 0.510",
            "0.990 / 0.990",
            "0.600 / 0.600",
            "0.370 / 0.370",
            "0.70 / 0.70 (0.69)",
            "0.03 / 0.03",
            "0.980 / 0.980",
            "0.991 / 0.991 (0.996)",
        ),
    )
    assert len(table.for_people().header) == 8


def test_a_blind_guess_is_one_of_the_arms_of_the_graph():
    """Guards against the 0.996 of two arms beside a graph of five."""
    (row,) = cheat([a_kept(200, graph=(5, 5, 50), probes=PROBES)]).rows
    assert dict(zip(HEADER, row, strict=True))["best of 8 (blind guess)"] == "0.991 (0.832)"


def test_what_was_not_probed_is_a_dash():
    (row,) = cheat([a_kept(500)]).rows
    assert row[6:] == ("-", "-", "- (0.69)", "-", "1.000", "- (0.996)")
