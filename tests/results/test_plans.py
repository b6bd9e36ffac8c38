"""The sets of ``conf/reproduce.yaml``: a mistake is one line that names set, cell and key, before anything is trained."""

from pathlib import Path

import pytest
import yaml

from pitfalls.results.kept import read_results
from pitfalls.results.plans import METRICS, Cell, read_plan, read_plans
from pitfalls.schemas import ConfigError, PitfallsError
from tests.kept_runs import a_result

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "conf" / "reproduce.yaml"
SETS = tuple(yaml.safe_load(FILE.read_text()))
COMPLETE = ("laptop", "laptop_full")
"""Names of sets whose runs are all kept."""


def written(tmp_path, text):
    path = tmp_path / "reproduce.yaml"
    path.write_text(text)
    return path


def with_cell(tmp_path, cell, key="laptop/x"):
    return written(tmp_path, f"mine: {{title: t, seeds: [0], cells: {{{key}: {{{cell}}}}}}}")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (
            "label: l, expect: {exact_mach: [0.4, 0.6]}",
            "expect exact_mach: no such metric; choose one of exact_match, first_hop,",
        ),
        ("label: l, expect: {exact_match: [0.6, 0.4]}", r"expect exact_match: \[0.6, 0.4\] is empty; give the lower bound first"),
        ("label: l, expect: {exact_match: [.nan, 1]}", r"expect exact_match: \[nan, 1\] is empty"),
        ("label: l, expect: {exact_match: [0.4]}", "length 2"),
        ("label: l, expect: {exact_match: 0.4}", r"Expected `array`, got `float`"),
        ("expect: {}", "missing required field `label`"),
        ("label: l", "missing required field `expect`"),
        ("label: l, expect: {}, sead: 1", "unknown field `sead`"),
        ("label: l, expect: {}, seeds: [1, 2, 1]", "seeds: 1 stands twice"),
        ("label: l, expect: {}, seeds: [-1]", r">= 0 - at `\$.seeds"),
        ("label: l, expect: {}, parameters: 0", r">= 1 - at `\$.parameters`"),
        ("label: l, expect: {exact_match: [46, 54]}", r"expect exact_match: \[46, 54\] has a bound outside of 0..1"),
        ("label: l, expect: {exact_match: [-1, 0.5]}", r"\[-1, 0.5\] has a bound outside of 0..1"),
    ],
)
def test_a_mistake_in_a_cell_is_one_line_that_names_it(tmp_path, cell, words):
    """Guards against a KeyError after hours of training, and a bound that no run can keep."""
    with pytest.raises(ConfigError, match=f"^reproduce.yaml: mine: laptop/x: .*{words}") as caught:
        read_plans(with_cell(tmp_path, cell))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, PitfallsError)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: {", "while parsing"),
        ("", "Expected `object`, got `null`"),
        ("mine: 3", "mine: Expected `object`"),
        ("mine: {seeds: [0]}", "mine: .*`title`"),
        ("mine: {title: t}", "mine: .*`seeds`"),
        ("mine: {title: t, seeds: [0], cells: []}", "mine: Expected `object`, got `array`"),
        ("mine: {title: t, seeds: []}", "mine: seeds: at least one"),
        ("mine: {title: t, seeds: [0]}", "mine: it has neither cells nor a grid, so it would train nothing"),
        ("mine: {title: t, seeds: [0, 0]}", "mine: seeds: 0 stands twice"),
        ("mine: {title: t, seeds: [0], grids: []}", "mine: .*unknown field `grids`"),
        (
            "mine: {title: t, seeds: [0], grid: [{label: l, expect: {}, over: {}}]}",
            "mine: over: empty, so that the grid has no cells",
        ),
        ("mine: {title: t, seeds: [0], grid: [{label: l, expect: {}, over: {model: []}}]}", "mine: model: empty"),
        (
            "mine: {title: t, seeds: [0], grid: [{label: '{modl}', expect: {}, over: {model: [a]}}]}",
            "label: {modl} is not in over",
        ),
        (
            "mine: {title: t, seeds: [0], grid: [{label: '{model:d}', expect: {}, over: {model: [a]}}]}",
            "label: {model} has a format",
        ),
        ("mine: {title: t, seeds: [0], gpu_tflops: 0, cells: {a: {label: l, expect: {}}}}", "> 0.0 - at `.*gpu_tflops`"),
        ("mine: {title: t, seeds: [0], gpu_tflops: .nan, cells: {a: {label: l, expect: {}}}}", "> 0.0 - at `.*gpu_tflops`"),
        ("mine: {title: t, seeds: [0], grid: [{label: l, expect: {x: [0, 1]}, over: {model: [a]}}]}", "expect x: no such metric"),
    ],
)
def test_a_mistake_in_a_set_is_one_line_that_names_it(tmp_path, text, words):
    with pytest.raises(ConfigError, match=f"^reproduce.yaml: .*{words}") as caught:
        read_plans(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_two_cells_never_share_a_record_file(tmp_path):
    """Guards against a second run that trains and is never kept, while the numbers of the first occur twice in the table."""
    cell = "{label: l, expect: {}}"
    text = f"mine: {{title: t, seeds: [0], cells: {{a/reversed: {cell}, b/reversed: {cell}}}}}"
    with pytest.raises(ConfigError, match=r"mine: b/reversed and a/reversed would share the record files reversed-s\*\.json"):
        read_plans(written(tmp_path, text))
    remedy = text.replace("b/reversed: {", "other: {experiment: b/reversed, ")
    assert [(c.name, c.experiment) for c in read_plan(written(tmp_path, remedy), "mine").cells] == [
        ("reversed", "a/reversed"),
        ("other", "b/reversed"),
    ]


def test_a_cell_of_a_grid_never_shares_a_record_file_with_another(tmp_path):
    cell = "{label: l, expect: {}}"
    grid = "{label: l, experiment: e, expect: {}, over: {objective: [reversed]}}"
    with pytest.raises(ConfigError, match="reversed and a/reversed would share"):
        read_plans(written(tmp_path, f"mine: {{title: t, seeds: [0], cells: {{a/reversed: {cell}}}, grid: [{grid}]}}"))


def test_the_same_cell_in_two_sets_is_no_conflict(tmp_path):
    one = "{title: t, seeds: [0], cells: {a/reversed: {label: l, expect: {}}}}"
    plans = read_plans(written(tmp_path, f"first: {one}\nsecond: {one}"))
    assert [plan.cells[0].name for plan in plans.values()] == ["reversed", "reversed"]


def test_a_grid_is_every_combination(tmp_path):
    text = """
mine:
  title: t
  seeds: [0, 1]
  gpu_tflops: 100
  grid:
    - {name: g, over: {objective: [next_token, mutor], model: [a]}, label: "{objective} of {model}", experiment: e,
       overrides: [training.n_steps=3], expect: {exact_match: [0, 1]}}
    - {name: g, over: {objective: [mutor], model: [a]}, label: again, experiment: e, expect: {}, seeds: [7], parameters: 5}
"""
    plan = read_plan(written(tmp_path, text), "mine")
    assert plan.gpu_tflops == 100
    assert plan.cells == (
        Cell(
            name="g_next_token_a",
            experiment="e",
            overrides=("objective=next_token", "model=a", "training.n_steps=3"),
            label="next token of a",
            expect={"exact_match": (0.0, 1.0)},
            seeds=(0, 1),
        ),
        Cell("g_mutor_a", "e", ("objective=mutor", "model=a"), "again", {}, (7,), 5),
    )


def test_plan_of_an_unknown_set_lists_the_sets():
    with pytest.raises(
        ConfigError, match="has laptop, laptop_full, graphs, objectives, sooner, race, precision, grokking, pretrained, paper"
    ):
        read_plan(FILE, "nope")


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_that_may_be_expected_can_be_measured(metric):
    """Guards against a name that passes the check and ends in an AttributeError when the runs are there."""
    assert a_result(500, train=900).metric(metric) is not None


@pytest.mark.parametrize("name", SETS)
def test_every_cell_of_a_set_is_a_preset(name):
    for cell in read_plan(FILE, name).cells:
        assert (ROOT / "conf" / "experiment" / f"{cell.experiment}.yaml").exists()


@pytest.mark.parametrize("name", COMPLETE)
def test_no_run_of_a_finished_set_is_missing(name):
    plan = read_plan(FILE, name)
    kept = {(result.cell.name, result.record.seed) for result in read_results(ROOT / "results" / name, plan)}
    assert {(cell.name, seed) for cell in plan.cells for seed in cell.seeds} - kept == set()
