"""The table of scores on files that nobody here wrote."""

from pitfalls.report.real_input import real_input
from pitfalls.runs.records import Score
from tests.kept_runs import an_evaluation


def test_a_row_has_run_file_and_intervals():
    """Guards against a share without its interval, and against the hash of a run that no reader needs."""
    score = Score("next_token-gpt_nano-g2_5-n50-online-s0-0123456789ab", "a.txt", 47.6, an_evaluation(500, first_hop=510))
    assert real_input([score]).rows == (
        ("next_token-gpt_nano-g2_5-n50-online-s0", "a.txt", "1,000", "0.5000 [0.4691, 0.5309]", "0.5100 [0.4790, 0.5409]", "48"),
    )


def test_a_method_without_whole_paths_has_a_dash():
    score = Score(
        "first_hop-gpt_nano-g2_3-n20-online-s0-0123456789ab", "a.txt", 1.0, an_evaluation(None, first_hop=510, others=None)
    )
    assert real_input([score]).rows[0][3] == "-"
