"""scripts/evaluate.py and scripts/inspect_run.py on a finished run."""

import gzip
import importlib.util
import json
import sys
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch

from pitfalls.evaluation import score as evaluation_score
from pitfalls.evaluation.score import evaluate
from pitfalls.experiment.build import Run, build, load_run, make_run_splits
from pitfalls.experiment.cli import exit_on_error
from pitfalls.experiment.evaluate_run import _first, answers, file_graphs, new_graphs, score
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.run import train_run
from pitfalls.probes import REGISTRY
from pitfalls.runs import run_folder
from pitfalls.seeding import generator
from pitfalls.tasks import official_format
from pitfalls.tasks.official_format import write_lines
from pitfalls.tasks.path_star import PathStar

ROOT = Path(__file__).resolve().parents[2]
TASK = PathStar(2, 3, 20)
TINY = [
    "task=g2_3",
    "task.test_graphs=64",
    "model=gpt_nano",
    "model.width=16",
    "training.n_steps=3",
    "training.batch_size=8",
    "training.warmup_steps=2",
    "training.eval_graphs=32",
    "training.n_threads=1",
    "training.precision=fp32",
    "training.device=cpu",
    "task.train_graphs=40",
]


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["next_token", "reversed", "teacherless", "first_hop"])
def run_dir(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    config = compose([*TINY, f"objective={request.param}", f"runs_dir={folder}"])
    return folder / train_run(config, make_display=lambda config: []).run


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(write_lines(TASK, TASK.sample(50, generator(5, "probe"))))
    return path


def call(monkeypatch, capsys, name, *arguments):
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    script(name).main()
    return capsys.readouterr().out


def test_file_gives_the_counts_of_its_graphs(run_dir, lines, monkeypatch, capsys):
    printed = json.loads(call(monkeypatch, capsys, "evaluate", run_dir, "--data", lines, "--json", "--threads", 1))
    run = load_run(run_dir)
    expected = evaluate(run.trunk, run.objective, TASK, TASK.sample(50, generator(5, "probe")))
    assert printed["evaluation"] == msgspec.to_builtins(expected)
    assert printed["evaluation"]["first_hop"]["n"] == 50


@pytest.mark.parametrize(("n", "sizes"), [(None, [3, 3, 3]), (2, [2]), (3, [3]), (5, [3, 2]), (9, [3, 3, 3])])
def test_the_first_graphs_of_a_file_are_taken_over_its_batches(n, sizes):
    """Guards against --graphs 5000 that scores a whole file, of which some thousand graphs are read at a time."""
    rows = TASK.sample(9, generator(0, "probe"))
    taken = list(_first((rows.rows(i, i + 3) for i in (0, 3, 6)), n))
    assert [len(batch.prompt) for batch in taken] == sizes
    assert torch.equal(torch.cat([batch.prompt for batch in taken]), rows.prompt[: sum(sizes)])


def test_fresh_graphs_exclude_the_training_set(tmp_path):
    """Guards against a score that is too high because of memorised graphs among the fresh ones.

    Of 360 graphs there are, 200 are in the training set: without the exclusion, most fresh ones would be of it.
    """
    few = ["task.path_length=2", "task.n_values=10", "task.train_graphs=200", f"runs_dir={tmp_path}"]
    run = build(compose([*TINY, *few, "objective=next_token"]))
    seen = set(run.task.graph_keys(make_run_splits(run).train.all_rows().prompt).tolist())
    fresh = set(run.task.graph_keys(new_graphs(3000, 1, run).prompt).tolist())
    assert len(seen) > 100
    assert len(fresh) > 100
    assert not seen & fresh


@pytest.mark.parametrize("train_graphs", ["null", "40"])
@pytest.mark.parametrize("targets", [1, 2])
def test_fresh_graphs_are_drawn_from_no_other_stream(tmp_path, train_graphs, targets):
    """Guards against "fresh" graphs that are those of the first training batches or of the test set, under the run's own seed.

    Chance makes no two graphs of G(2,5) on 50 values equal.
    """
    changes = ["task=g2_5", f"task.train_graphs={train_graphs}", f"task.targets_per_graph={targets}", f"runs_dir={tmp_path}"]
    run = build(compose([*TINY, *changes, "objective=next_token"]))
    splits, keys = make_run_splits(run), run.task.graph_keys
    known = set(keys(splits.test.prompt).tolist())
    for step in range(5):
        known |= set(keys(splits.train.batch(step).prompt).tolist())
    for n in (8 // targets, 40, 64):  # as many as a batch, the training set and the test set have: only then would they be equal
        fresh = keys(new_graphs(n, run.config.seed, run).prompt).tolist()
        assert len(set(fresh)) == n
        assert not known & set(fresh)
        assert not set(fresh) & set(keys(new_graphs(n, run.config.seed + 1, run).prompt).tolist()), "another seed, other graphs"


def test_a_packed_file_is_the_file(run_dir, lines, tmp_path, monkeypatch, capsys):
    packed = tmp_path / "lines.txt.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    for n in ([], ["--graphs", 50], ["--graphs", 7]):
        a, b = (call(monkeypatch, capsys, "evaluate", run_dir, "--data", data, "--json", *n) for data in (lines, packed))
        assert json.loads(a)["evaluation"] == json.loads(b)["evaluation"]
        assert json.loads(a)["evaluation"]["first_hop"]["n"] == (n[1] if n else 50)


def test_parts_of_a_file_change_no_count(run_dir, tmp_path, monkeypatch):
    """Guards against rows that are lost or doubled where batches of a file meet forward passes."""
    monkeypatch.setattr(evaluation_score, "BATCH_ROWS", 7)
    monkeypatch.setattr(official_format, "read_batches", partial(official_format.read_batches, chunk_lines=20))
    graphs = TASK.sample(50, generator(5, "probe"))
    path = tmp_path / "lines.txt"
    path.write_bytes(write_lines(TASK, graphs))
    run = load_run(run_dir)
    assert [len(part.prompt) for part in file_graphs(run, path, 41).parts()] == [7, 7, 6, 7, 7, 6, 1]
    assert score(run, file_graphs(run, path)) == run.evaluate(graphs)
    assert answers(run, file_graphs(run, path, 41)) == run.examples(graphs.rows(0, 41))


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("evaluate", ["--data", "LINES"], ["checks lines.txt: 50 lines", "answers: 50 of 50 graphs, 0 s left"]),
        ("inspect_run", ["--data", "LINES", "--graphs", 9], ["checks lines.txt: 9 of 9 lines", "answers: 9 of 9 graphs"]),
        ("evaluate", ["--graphs", 9], ["answers: 9 of 9 graphs"]),
        ("probe", ["--graphs", 9], ["answers: 9 of 9 graphs", f"probes: 1 of {len(REGISTRY)} probes"]),
        ("decode", ["--graphs", 9], ["all strategies: 9 of "]),
    ],
)
def test_a_long_command_gives_signs_of_life(run_dir, lines, monkeypatch, capsys, name, arguments, said):
    """Guards against minutes without a word, and against words in the JSON."""
    if name == "decode" and run_dir.name.startswith("first_hop"):
        pytest.skip("it does not answer whole paths")
    monkeypatch.setattr("pitfalls.experiment.progress.PLAIN_EVERY_S", 0.0)
    monkeypatch.setattr(sys, "argv", [name, str(run_dir), *(str(lines) if a == "LINES" else str(a) for a in arguments), "--json"])
    script(name).main()
    out, errors = capsys.readouterr()
    json.loads(out)
    for line in said:
        assert line in errors


def test_probes_of_a_run_again(run_dir, monkeypatch, capsys):
    """The table names every probe. On all test graphs, the numbers are those of the record."""
    shown = call(monkeypatch, capsys, "probe", run_dir, "--graphs", 30, "--threads", 1)
    assert all(name.replace("_", " ") in shown for name in REGISTRY)
    printed = json.loads(call(monkeypatch, capsys, "probe", run_dir, "--graphs", 64, "--json", "--threads", 1))
    assert printed["graphs"] == 64
    assert printed["probes"] == msgspec.to_builtins(run_folder.read_record(run_dir).probes)


def test_probes_take_all_test_graphs_if_there_are_fewer_than_the_default(run_dir, monkeypatch, capsys):
    """Guards against a default of 1000 graphs that fails on every small run."""
    assert json.loads(call(monkeypatch, capsys, "probe", run_dir, "--json", "--threads", 1))["graphs"] == 64
    if run_dir.name.startswith("next_token"):
        assert json.loads(call(monkeypatch, capsys, "decode", run_dir, "--json", "--threads", 1))["graphs"] == 64


def test_probes_of_any_model(save_lm, monkeypatch, capsys):
    """A folder in the hub's layout, with the task from the command line."""
    vocabulary = [*map(str, range(20)), "|", "/", "=", "$", "_", "#", "[", "]", ".", ";", "<s>", "</s>"]
    folder = save_lm("gpt2", vocabulary, len(vocabulary), 64)
    printed = json.loads(call(monkeypatch, capsys, "probe", folder, "task=g2_4", "--graphs", 10, "--json", "--threads", 1))
    assert set(printed["probes"]) == set(REGISTRY)
    assert sum(kind["k"] for kind in printed["probes"]["first_hop"].values()) == 10


def test_table_and_inspection_are_printed(run_dir, lines, monkeypatch, capsys):
    table = call(monkeypatch, capsys, "evaluate", run_dir, "--graphs", 20, "--threads", 1)
    assert "first hop" in table
    assert "k of n" in table
    shown = call(monkeypatch, capsys, "inspect_run", run_dir, "--graphs", 2, "--data", lines)
    assert shown.count("entropy") == 2
    first = lines.read_text().splitlines()[0]
    start, goal = first.split("/")[1].split("=")[0].split(",")
    assert f"from {start} to {goal}" in shown


READERS = ("evaluate", "inspect_run")
ONE_RUN = ("evaluate", "inspect_run", "decode", "probe")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "nowhere"], "neither a run"),
        (["probe", "RUN", "--graphs", 0], "--graphs: '0' is not an integer >= 1"),
        (["probe", "RUN", "--graphs", 65], "--graphs 65: from 1 to 64"),
        (["probe", "RUN", "task=g2_5"], "leave the overrides out"),
        (["probe", "HUB"], "say which graphs"),
        (["evaluate", "nowhere", "--graphs", 5], "is not the folder of a run"),
        (["evaluate", "RUN", "--graphs", 0], "--graphs: '0' is not an integer >= 1"),
        (["evaluate", "RUN", "--data", "missing.txt"], "--data missing.txt: no such file"),
        (["evaluate", "RUN", "--data", "OTHER"], "take a run of that graph"),
        (["inspect_run", "RUN", "--data", "OTHER"], "take a run of that graph"),
        (["inspect_run", "RUN", "--data", "LINES", "--graphs", 51], "lines.txt has 50 graphs"),
        (["evaluate", "RUN", "--data", "LINES", "--graphs", 51], "lines.txt has 50 graphs"),
        (["evaluate", "RUN"], "--graphs or --data"),
        (["evaluate", "RUN", "--graphs", 5, "--threads", 0], "--threads: '0' is not an integer in 1..1024"),
        (["evaluate", "RUN", "--data", "BROKEN"], "broken.txt:1:"),
        (["evaluate", "RUN", "--graphs", 5, "--decoder", "beam"], "--decoder beam: choose one of "),
        (["evaluate", "README.md", "--graphs", 5], "README.md is not the folder of a run; give one, such as runs/NAME"),
        *(([name, "RUN", "--data", "DEGREE"], "holds G(3,3), and the run was trained on G(2,3)") for name in READERS),
        *(([name, "RUN", "--data", "SHORT"], "holds G(2,2), and the run was trained on G(2,3)") for name in READERS),
        *(([name, "RUN", "--data", "LATER"], "later.txt:51: the graph is a G(2,4); line 1 has a G(2,3)") for name in READERS),
        *(([name, "RUN", "--data", "VALUES", "--graphs", 51], "values.txt:51: node value 20 is not within") for name in READERS),
        *(([name, "RUN", "--data", "ZIP"], "zip.txt:1: the file is a zip archive; unpack it first") for name in READERS),
        *(([name, "RUN", "--data", "CUT"], "cut.txt: its gzip data are damaged or end too early") for name in READERS),
        *(([name, "RUN", "--graphs", 10**15], f"--graphs {10**15}: at most 13421772 new graphs") for name in READERS),
        (["evaluate", "RUN", "--data", "PACKED", "--graphs", 51], "packed.txt has 50 graphs"),
        (["evaluate", "RUN", "--data", "/dev/null"], "--data /dev/null: a pipe or a device, not a file"),
        *(([name, "RUN", "RUN", "--graphs", 5], "this script takes one RUN at a time, and ") for name in ONE_RUN),
        (["probe", "HUB", "RUN", "task=g2_3"], "this script takes one RUN at a time, and "),
        (["check_model", "RUN", "RUN"], "this script takes one model at a time, and "),
        (["status", "RUN", "RUN"], "this script takes one RUNS_DIR at a time, and "),
        (["collect", "RUN", "RUN"], "this script takes one RUNS_DIR at a time, and "),
        (["evaluate", "RUN", "--graph", 5], "--graph: there is no such option or argument; did you mean --graphs?"),
        (["report", "a"], "a: there is no such option or argument; --help lists all"),
        (["evaluate", "RUN", "--data", "results"], "--data results: a folder, not a file"),
        (["inspect_run", "RUN", "--data", "missing.txt"], "--data missing.txt: no such file"),
    ],
)
@pytest.mark.parametrize("run_dir", ["next_token"], indirect=True)
def test_mistakes_are_one_line(run_dir, lines, tmp_path, monkeypatch, capsys, arguments, words):
    other, task = tmp_path / "other.txt", PathStar(2, 4, 20)
    other.write_bytes(write_lines(task, task.sample(3, generator(0, "probe"))))
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text("{}")
    (tmp_path / "broken.txt").write_text("1,2|\n")
    text = lines.read_bytes()
    contents = {
        "DEGREE": b"1,2|3,4|5,6|0,1|0,3|0,5/0,2=0,1,2\n",
        "SHORT": b"0,1|0,3/0,1=0,1\n",
        "LATER": text + other.read_bytes(),
        "VALUES": text + b"1,2|3,20|0,1|0,3/0,2=0,1,2\n",
        "ZIP": b"PK\x03\x04\x14",
        "PACKED": gzip.compress(text),
        "CUT": gzip.compress(text)[:-50],
    }
    for name, content in contents.items():
        (tmp_path / f"{name.lower()}.txt").write_bytes(content)
    monkeypatch.setattr(Run, "evaluate", lambda *given: pytest.fail("it computes before it checks"))
    monkeypatch.setattr(Run, "examples", lambda *given: pytest.fail("it computes before it checks"))
    files = {name: tmp_path / f"{name.lower()}.txt" for name in contents} | {
        "RUN": run_dir,
        "OTHER": other,
        "LINES": lines,
        "BROKEN": tmp_path / "broken.txt",
        "HUB": tmp_path / "hub",
    }
    arguments = [files.get(a, a) for a in arguments]
    monkeypatch.setattr(sys, "argv", list(map(str, arguments)))
    with pytest.raises(SystemExit) as caught:
        exit_on_error(script(arguments[0]).main)
    assert caught.value.code in (1, 2)
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1
