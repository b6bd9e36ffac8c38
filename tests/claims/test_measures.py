"""Measures of a kept run, and the facts that queries name."""

import pytest

from pitfalls.claims.measures import FACTS, MEASURES, Value
from pitfalls.runs.probe_records import Probes
from tests.kept_runs import a_kept, entropy, follows, hop_nodes, order, verifier

SHORT = (2, 4, 20)


def test_measures_of_probes():
    probes = Probes(
        arm_following=follows(970),
        first_hop=hop_nodes(500, 480),
        uncertainty=entropy(0.01, 0.793147, 0.04, 0.005),
        verifier=verifier(k1=500, k2=760, k4=900),
    )
    run = a_kept(first_hop=510, graph=SHORT, probes=probes)
    values = {name: measure(run) for name, measure in MEASURES.items()}
    assert values["exact_match"] == Value(0.5, 500, 1000)
    assert values["first_hop"] == Value(0.51, 510, 1000)
    assert values["arm_following"] == Value(0.97, 970, 1000)
    assert values["first_hop_child"] == Value(0.98, 980, 1000)
    assert values["wrong_at_first_hop"] == Value(0.98, 490, 500)
    assert values["first_hop_entropy_gap"].value == pytest.approx(0.1, abs=1e-6)
    assert values["other_entropy"].value == pytest.approx(0.04)
    assert values["verifier_gain"].value == pytest.approx(0.76 - 0.75)
    assert values["train_exact_match"] is None
    assert MEASURES["train_exact_match"](a_kept(train=990)) == Value(0.99, 990, 1000)


def test_a_verifier_gains_over_the_blind_guesses_of_its_graph():
    """Guards against 1 - 2^-k on a graph of five arms, where eight guesses find the arm in 83 % of the cases."""
    run = a_kept(200, graph=(5, 4, 50), probes=Probes(verifier=verifier(k8=832)))
    assert MEASURES["verifier_gain"](run).value == pytest.approx(0.832 - (1 - 0.8**8))


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
    """Start and goal are copied and do not count. All at once is no order. A position that is never learned comes last."""
    value = MEASURES["learned_backwards"](a_kept(graph=(2, len(samples), 50), probes=Probes(learning_order=order(*samples))))
    assert value.value == backwards


def test_no_order_between_two_copied_tokens():
    assert MEASURES["learned_backwards"](a_kept(graph=(2, 3, 50), probes=Probes(learning_order=order(0, 300, 0)))) is None


def test_methods_without_a_probe_say_nothing():
    found = {name for name, measure in MEASURES.items() if measure(a_kept()) is not None}
    assert found == {"exact_match", "first_hop", "other_positions", "wrong_at_first_hop"}


def test_a_method_that_answers_the_first_hop_alone_says_nothing_of_paths():
    """Guards against 0 of 0 measured as 0, which would agree with every claim of a failure."""
    found = {name for name, measure in MEASURES.items() if measure(a_kept(None, first_hop=510, others=None)) is not None}
    assert found == {"first_hop"}


def test_no_wrong_answers_are_wrong_nowhere():
    assert MEASURES["wrong_at_first_hop"](a_kept(1000)) is None


def test_facts():
    run = a_kept(architecture="mamba2", graph=(3, 4, 20), train_graphs=64, samples=500)
    assert {name: fact(run) for name, fact in FACTS.items()} == {
        "objective": "next_token",
        "family": "mamba",
        "model": "mamba2_tiny",
        "regime": "fixed",
        "degree": 3,
        "path_length": 4,
        "samples": 500,
    }
    assert FACTS["regime"](a_kept()) == "online"
    assert FACTS["family"](a_kept()) == "transformer"
