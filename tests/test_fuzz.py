"""Readers under random input: every case ends, either with valid data or with one line of error.

FUZZ_CASES=10000 python -m pytest tests/test_fuzz.py -m slow
"""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import hypothesis
import networkx
import pytest
from hypothesis import strategies as st

from pitfalls.experiment.cli import console, terminal_table
from pitfalls.experiment.config import load_config, resolve
from pitfalls.experiment.hydra_app import compose
from pitfalls.experiment.sweep_tables import failed_runs, sweep_table, sweeps_of
from pitfalls.report.page import places
from pitfalls.results.kept import read_kept
from pitfalls.runs import run_folder
from pitfalls.runs.files import read_json
from pitfalls.runs.records import EvaluationRow, TrainRow
from pitfalls.schemas import PitfallsError
from pitfalls.tasks.official_format import infer_shape, read_batches
from pitfalls.training.checkpoint import Progress
from tests.tiny_runs import LINES, TINY, a_record, plain

pytestmark = pytest.mark.slow
CASES = int(os.environ.get("FUZZ_CASES", "300"))
fuzz = hypothesis.settings(
    max_examples=CASES, deadline=5000, database=None, derandomize=True, suppress_health_check=list(hypothesis.HealthCheck)
)

outcomes: dict[str, set[str]] = defaultdict(set)
"""Outcomes of inputs, by file. They show a reader that refuses or accepts everything."""

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [-1, 0, 1, 2**63, 10**30, 1e308, "../x", "/etc/passwd", "<script>", "${oc.env:HOME}", "null", "1e3", ".inf"]
    )
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=6
)
CONFIG = asdict(resolve(compose([*TINY])))
RECORD = plain(a_record(compose(TINY)))


def paths(data: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the places of all values in nested data, as sequences of keys."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [prefix] * bool(prefix) + [path for key, value in items for path in paths(value, (*prefix, key))]


@st.composite
def changed(draw: st.DrawFn, data: Any) -> Any:
    """Return data in which some values are changed, removed or added."""
    data = json.loads(json.dumps(data))
    for _ in range(draw(st.integers(1, 3))):
        places = paths(data)
        if not places:
            return data
        path = draw(st.sampled_from(places))
        parent = data
        for key in path[:-1]:
            parent = parent[key]
        what = draw(st.sampled_from(["change", "change", "remove", "add"]))
        if what == "change":
            parent[path[-1]] = draw(VALUES)
        elif what == "remove":
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[draw(st.text(max_size=6))] = draw(VALUES)
    return data


@st.composite
def mangled(draw: st.DrawFn, text: str) -> bytes:
    """Return text with bytes changed, cut out or put in, or bytes that are no such text at all."""
    data = bytearray(text.encode())
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.sampled_from(["flip", "cut", "put", "end"]))
        if what == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif what == "put":
            data[at:at] = draw(st.binary(max_size=12))
        else:
            del data[at:]
    return bytes(data) if draw(st.integers(0, 9)) else draw(st.binary(max_size=200))


def in_folder(name: str, data: bytes, read: Callable[[Path], Any]) -> Any:
    """Return the result of a reader for a file, or None if it refuses the file in one line."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).parent.mkdir(exist_ok=True)
        (Path(folder) / name).write_bytes(data)
        try:
            found = read(Path(folder))
            outcomes[name].add("accepted")
            return found
        except PitfallsError as error:  # any other error would be shown with its traceback
            said = str(error)
    outcomes[name].add("refused")
    assert said.isprintable(), said
    assert Path(name).name in said
    assert len(said) <= 1000
    return None


def as_bytes(data: Any) -> bytes:
    return json.dumps(data).encode()


def within(read: Any, written: Any) -> bool:
    """Return whether all that was read is in the file. A field that is not there has an empty default."""
    if isinstance(read, dict):
        return all(within(value, written[key]) if key in written else value in (None, 0.0, {}) for key, value in read.items())
    if isinstance(read, list):
        return len(read) == len(written) and all(map(within, read, written))
    return read == written


def counts(data: Any) -> Iterator[tuple[int, int]]:
    """Yield (k, n) of all counts in nested data."""
    if isinstance(data, dict) and data.keys() == {"k", "n"}:
        yield data["k"], data["n"]
    elif isinstance(data, dict | list):
        for inner in data.values() if isinstance(data, dict) else data:
            yield from counts(inner)


@fuzz
@hypothesis.given(changed(RECORD).map(as_bytes) | mangled(json.dumps(RECORD)))
def test_records(data: bytes):
    record = in_folder("record.json", data, run_folder.read_record)
    if record is not None:
        read = plain(record)  # raises for a NaN
        assert any(counts(read)) or not record.evaluation, "the counts are found"
        assert all(0 <= k <= n for k, n in counts(read))
        assert record.config.task.degree >= 1
        assert "/" not in record.run
        assert record.wall_s >= 0
        assert within(read, json.loads(data)), "nothing is read that was not written"


@fuzz
@hypothesis.given(
    st.lists(changed(json.loads(LINES.splitlines()[0])), max_size=4).map(lambda rows: b"".join(as_bytes(r) + b"\n" for r in rows))
    | mangled(LINES)
)
def test_metrics(data: bytes):
    rows = in_folder("metrics.jsonl", data, run_folder.read_metrics)
    if rows is not None:
        whole = data[: data.rfind(b"\n") + 1].splitlines()
        written = [json.loads(line) for line in whole]
        assert within(plain(rows), written), "a row is as it was written, and none is left out"
        for row, line in zip(rows, written, strict=True):
            assert type(row) is {"train": TrainRow, "eval": EvaluationRow}[line["kind"]]
            assert row.step >= 0


def equal(a: Any, b: Any) -> bool:
    """Return whether a value of a config is the one in its file, where a float may be written as a whole number."""
    return a == b or (isinstance(a, float) and type(b) is int and a == float(b))


@fuzz
@hypothesis.given(changed(CONFIG).map(lambda data: json.dumps(data).encode()) | mangled(json.dumps(CONFIG)))
def test_configs(data: bytes):
    config = in_folder("resolved_config.json", data, load_config)
    if config is not None:
        given, found = (dict(run_folder.flatten(d)) for d in (json.loads(data), asdict(config)))
        assert given.keys() == found.keys()
        for key, value in given.items():
            assert equal(found[key], value), key
        type(config)(**vars(config))  # every range holds


SHORT = {
    "edges": [(1, 2), (3, 4), (0, 1), (0, 3)],
    "start": 0,
    "goal": 4,
    "target": ["0", "3", "4"],
    "answer": ["0", "1", "4"],
    "outcome": None,
    "answered": [0, 1, 2],
    "reading": None,
}
KEPT = {"record": RECORD | {"examples": [SHORT]}, "curve": []}


@fuzz
@hypothesis.given(changed(KEPT).map(as_bytes) | mangled(json.dumps(KEPT)))
def test_kept_records(data: bytes):
    kept = in_folder("kept.json", data, lambda folder: read_kept(folder / "kept.json"))
    if kept is not None:
        for example in kept.record.examples:
            assert places(example).keys() == {str(node) for edge in example.edges for node in edge}


@fuzz
@hypothesis.given(
    changed({"step": 3, "stop_hits": 0, "wall_s": 1.5, "cpu_s": 1.5, "finished": False}).map(as_bytes) | mangled("{}")
)
def test_states(data: bytes):
    progress = in_folder("state.json", data, lambda folder: read_json(folder / "state.json", Progress))
    if progress is not None:
        assert 0 <= progress.step <= 2**53
        assert timedelta(seconds=progress.wall_s) >= timedelta(0)


SWEEP = {"jobs": [{"overrides": ["seed=1", "training.lr=0.1"], "run": "next_token-a-g2_3-n20-online-s0-0123456789ab"}]}


@fuzz
@hypothesis.given(changed(SWEEP).map(as_bytes) | mangled(json.dumps(SWEEP)))
def test_sweeps(data: bytes):
    found = in_folder("sweeps/0123abcd.json", data, lambda folder: [sweep_table(sweep) for sweep in sweeps_of(folder)])
    if found is not None:
        assert not isinstance(found[0], str)
        console().print(terminal_table(found[0]))


FAILURE = {"error": "ValueError: x", "overrides": ["seed=1"], "traceback": "Traceback"}


@fuzz
@hypothesis.given(changed(FAILURE).map(as_bytes) | mangled(json.dumps(FAILURE)))
def test_failures(data: bytes):
    """A failure that cannot be read is a failed run all the same."""
    lines = in_folder("run/failure.json", data, lambda folder: list(failed_runs(sweeps_of(folder))))
    assert len(lines) == 1
    assert all(line.isprintable() for line in lines[0].split("\n"))
    outcomes.pop("run/failure.json")


PATH_STAR = "7,2|2,9|7,4|4,1/7,1=7,4,1\n3,8|8,6|3,5|5,0/3,6=3,8,6\n"


def read_graphs(folder: Path) -> list[Any]:
    path = folder / "graphs.txt"
    infer_shape(path)
    return list(read_batches(path, 30))


@fuzz
@hypothesis.given(mangled(PATH_STAR) | st.text("0123456789,|/=\n ", max_size=60).map(str.encode))
def test_official_files(data: bytes):
    batches = in_folder("graphs.txt", data, read_graphs)
    if batches is not None:
        lines = [line for line in data.decode().split("\n") if line]
        assert sum(len(batch.prompt) for batch in batches) == len(lines)
        for line in lines:  # what was accepted is a path-star graph with the path to its goal
            edges, rest = line.strip().split("/")
            query, path = rest.split("=")
            graph = networkx.DiGraph([tuple(map(int, edge.split(","))) for edge in edges.split("|")])
            start, goal = map(int, query.split(","))
            assert networkx.shortest_path(graph, start, goal) == list(map(int, path.split(",")))
            assert all(degree <= 1 for node, degree in graph.out_degree() if node != start)
            assert all(degree <= 1 for _, degree in graph.in_degree())


def test_every_reader_accepted_some_and_refused_some():
    """This test has to run after the others, in the same process."""
    assert set(map(frozenset, outcomes.values())) <= {frozenset({"accepted", "refused"})}
