"""The authors' text format: a file is read correctly, or refused with file, line and reason."""

import os
import re
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import networkx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pitfalls.runs.files import FileError
from pitfalls.tasks import official_format
from pitfalls.tasks.batch import Batch
from pitfalls.tasks.graph_files import BYTE_ORDER_MARK, GZIP
from pitfalls.tasks.official_format import (
    MAX_LINE_BYTES,
    MAX_VALUES,
    OfficialFormatError,
    infer_n_values,
    infer_shape,
    is_path_star,
    parse_chunk,
    parse_chunk_reference,
    read_batches,
    write_lines,
)
from pitfalls.tasks.official_line import parse_line
from pitfalls.tasks.path_star import Outcome, PathStar

OFFICIAL = Path(__file__).parents[3] / "shared" / "data" / "official"
OFFICIAL_FILES = {
    "deg_2_path_3_nodes_50_test_20000.txt": (2, 3),
    "deg_2_path_5_nodes_50_test_20000.txt": (2, 5),
    "deg_3_path_3_nodes_50_reverse_False_20000_test.txt": (3, 3),
}
SHAPES = [(1, 2, 2), (4, 2, 9), (2, 3, 11), (2, 5, 50), (3, 3, 100), (5, 5, 101), (1, 7, 2000), (2, 3, MAX_VALUES)]
GOOD = b"1,2|3,4|0,1|0,3/0,4=0,3,4"
G23 = PathStar(2, 3, 10)


def graphs(task: PathStar, n: int = 50) -> Batch:
    if task.n_values <= 5000:
        return task.sample(n, torch.Generator().manual_seed(0))
    small = PathStar(task.degree, task.path_length, 1000)  # sampling holds n_values numbers per graph: scale up instead
    drawn, factor = small.sample(n, torch.Generator().manual_seed(0)), (task.n_values - 1) // 999
    is_value = drawn.prompt < 1000
    prompt = torch.where(is_value, drawn.prompt * factor, drawn.prompt - 1000 + task.n_values)
    return Batch(prompt, drawn.target * factor)


def joined(batches: list[Batch]) -> Batch:
    return Batch(torch.cat([b.prompt for b in batches]), torch.cat([b.target for b in batches]))


def same(a: Batch, b: Batch) -> bool:
    return torch.equal(a.prompt, b.prompt) and torch.equal(a.target, b.target)


def read(path: Path, n_values: int, **options: int) -> Batch:
    return joined(list(read_batches(path, n_values, **options)))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A path to write to. It is module-wide, so that hypothesis may use it."""
    return tmp_path_factory.mktemp("official") / "file.txt"


# ---------------------------------------------------------------------- what is right


def test_one_line_has_the_tokens_and_text_of_the_paper(file):
    """Guards against a wrong layout that reader and writer share, so that the round trip hides it."""
    file.write_bytes(GOOD + b"\n")
    batch = read(file, 10)
    assert G23.vocabulary.text(batch.prompt[0].tolist()) == "1 2 | 3 4 | 0 1 | 0 3 / 0 4 ="
    assert batch.target.tolist() == [[0, 3, 4]]
    assert batch.prompt.dtype == batch.target.dtype == torch.int64
    assert write_lines(G23, batch) == GOOD + b"\n"


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_written_graphs_are_read_back(file, shape):
    """Guards against errors for some numbers of digits, for arms of one edge, and for a single arm."""
    task = PathStar(*shape)
    batch = graphs(task)
    file.write_bytes(write_lines(task, batch))
    assert infer_shape(file) == (task.degree, task.path_length)
    assert same(read(file, task.n_values), batch)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fast_and_reference_parser_agree(shape):
    """Guards against a fast parser that reads other numbers than the readable one."""
    task = PathStar(*shape)
    batch = graphs(task)
    lines = write_lines(task, batch).splitlines(keepends=True)
    assert same(parse_chunk(task, lines), batch)
    assert same(parse_chunk_reference(task, lines, "file", 1), batch)


def test_valid_lines_never_take_the_slow_path(file, monkeypatch):
    """Guards against a fast path that always refuses: nobody would notice, and reading is 60 times slower."""
    monkeypatch.setattr(official_format, "parse_chunk_reference", lambda *_: pytest.fail("fell back"))
    task = PathStar(2, 5, 50)
    file.write_bytes(write_lines(task, graphs(task, 300)))
    assert len(read(file, 50, chunk_lines=128).prompt) == 300


@pytest.mark.parametrize("chunk_lines", [1, 7, 50, 51])
def test_rows_do_not_depend_on_the_chunks(file, chunk_lines):
    """Guards against a row that is lost, doubled or reordered at the end of a chunk."""
    task = PathStar(2, 5, 50)
    batch = graphs(task)
    file.write_bytes(write_lines(task, batch))
    chunks = list(read_batches(file, 50, chunk_lines=chunk_lines))
    assert [len(c.prompt) for c in chunks[:-1]] == [chunk_lines] * (len(chunks) - 1)
    assert same(joined(chunks), batch)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("final", [True, False], ids=["ended", "unended"])
def test_line_endings(file, monkeypatch, end, final):
    """Guards against a file from Windows, or without a final newline, that is refused, loses its last graph or is read slowly."""
    monkeypatch.setattr(official_format, "parse_chunk_reference", lambda *_: pytest.fail("fell back"))
    task = PathStar(2, 5, 50)
    batch = graphs(task, 5)
    text = write_lines(task, batch).replace(b"\n", end)
    file.write_bytes(text if final else text.removesuffix(end))
    assert same(read(file, 50, chunk_lines=2), batch)


def test_a_mixture_of_line_endings_is_read(file):
    """Guards against the refusal of a file joined from two systems."""
    file.write_bytes(GOOD + b"\r\n" + GOOD + b"\n" + GOOD + b"\r\n")
    assert len(read(file, 10).prompt) == 3


def test_a_pipe_is_read_once(tmp_path):
    """Guards against a shape that is read in a second opening, which loses the first lines of a pipe."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=((GOOD + b"\n") * 10,))
    writer.start()
    assert len(read(tmp_path / "pipe", 10).prompt) == 10
    writer.join()


def test_smallest_n_values(file):
    """Guards against the maximum of the first chunk, or of the answers alone, in the place of that of the file."""
    file.write_bytes((GOOD + b"\n") * 9000 + GOOD.replace(b"2", b"17") + b"\n")
    assert infer_n_values(file) == 18
    assert len(read(file, 18).prompt) == 9001


# ---------------------------------------------------------------------- memory


def peak_bytes(path: Path, **options: int) -> int:
    tracemalloc.start()
    try:
        for _ in read_batches(path, 50, **options):
            pass
        return tracemalloc.get_traced_memory()[1]
    except OfficialFormatError:
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_chunk(file):
    """Guards against a reader that holds the whole file in memory."""
    task = PathStar(2, 5, 50)
    batch = graphs(task, 8000)
    file.write_bytes(write_lines(task, batch))
    assert peak_bytes(file, chunk_lines=100) < 2**20 < batch.prompt.nbytes


@pytest.mark.parametrize("start", [b"", GOOD + b"\n"], ids=["first", "later"])
def test_a_line_without_end_is_not_held_in_memory(file, start):
    """Guards against a file of one long line that fills the memory."""
    file.write_bytes(start + b"1" * 16 * 2**20)
    assert peak_bytes(file) < 8 * 2**20


# ---------------------------------------------------------------------- what is wrong

BAD = {
    "letter": (GOOD.replace(b"2", b"x"), r"byte b'x' at column 3"),
    "wrong separator": (GOOD.replace(b"|", b";"), r"byte b';' at column 4"),
    "space": (b" " + GOOD, r"byte b' ' at column 1"),
    "plus": (GOOD.replace(b"2", b"+2"), r"byte b'\+' at column 3"),
    "minus": (GOOD.replace(b"2", b"-2"), r"byte b'-' at column 3"),
    "underscore": (GOOD.replace(b"2", b"1_0"), r"byte b'_' at column 4"),
    "NUL": (GOOD + b"\0", r"byte b'\\x00' at column 26"),
    "not UTF-8": (GOOD.replace(b"2", b"\xff"), r"byte b'\\xff' at column 3"),
    "Arabic digit": (GOOD.replace(b"2", "٢".encode()), r"byte b'\\xd9' at column 3"),
    "stray CR": (GOOD + b"\r\r", r"byte b'\\r' at column 26"),
    "empty": (b"", "the line is empty"),
    "no query": (GOOD.replace(b"/", b"|"), "one '/' and then one '='"),
    "swapped / and =": (b"1,2|3,4|0,1|0,3=0,4/0,3,4", "one '/' and then one '='"),
    "two answers": (GOOD + b"=0,3,4", "one '/' and then one '='"),
    "swapped , and |": (GOOD.replace(b"1,2|3", b"1|2,3"), "edge 1 is '1': it must be two numbers"),
    "edge of three": (GOOD.replace(b"1,2", b"1,2,5"), "edge 1 is '1,2,5': it must be two numbers"),
    "no edges": (b"/0,4=0,3,4", "edge 1 is '': it must be two numbers"),
    "edge list ends in |": (GOOD.replace(b"/", b"|/"), "edge 5 is '': it must be two numbers"),
    "query of one": (GOOD.replace(b"0,4", b"0"), "the query is '0': it must be two numbers"),
    "answer with |": (GOOD.replace(b"0,3,4", b"0|3|4"), r"the answer has '0\|3\|4' for a number"),
    "no answer": (b"1,2|3,4|0,1|0,3/0,4=", "the answer has '' for a number"),
    "missing number": (GOOD.replace(b"2", b""), "edge 1 has '' for a number"),
    "leading zero": (GOOD.replace(b"2", b"02"), "edge 1 has '02' for a number"),
    "giant number": (GOOD.replace(b"2", b"9" * 60), "edge 1 has '9{40}...' for a number"),
    "2^64 + 2": (GOOD.replace(b"2", b"18446744073709551618"), "edge 1 has '18446744073709551618' for a number"),
    "no such value": (GOOD.replace(b"2", b"10"), r"node value 10 is not within 0..9 \(n_values=10\)"),
    "a pair like another's": (GOOD.replace(b"1,2", b"0,12"), "node 0, 0 steps from the start, has 3 outgoing edges"),
    "too long": (GOOD.replace(b"2", b"9" * 200), "longer than a line of G"),
    "one node": (GOOD.replace(b"=0,3,4", b"=4"), "the answer has 1 node"),
    "an edge too few": (b"3,4|0,1|0,3/0,4=0,3,4", "3 edges are no whole number of arms of 2 edges"),
    "an edge too many": (b"5,6|" + GOOD, "5 edges are no whole number of arms of 2 edges"),
    "another degree": (b"0,5|5,6|" + GOOD, r"the graph is a G\(3,3\); line 1 has a G\(2,3\)"),
    "another length": (b"0,1|0,2|0,3|0,4/0,4=0,4", r"the graph is a G\(4,2\); line 1 has a G\(2,3\)"),
    "repeated child": (GOOD.replace(b"1,2", b"1,4"), "node 4 is the child of two edges"),
    "repeated edge": (GOOD.replace(b"1,2", b"0,1"), "node 1 is the child of two edges"),
    "edge into the start": (GOOD.replace(b"1,2", b"1,0"), "an edge leads into the start, 0"),
    "three arms": (GOOD.replace(b"1,2", b"0,2"), "node 0, 0 steps from the start, has 3 outgoing edges, not 2"),
    "unequal arms": (GOOD.replace(b"1,2", b"4,2"), "node 1, 1 steps from the start, has 0 outgoing edges, not 1"),
    "a branch": (GOOD.replace(b"1,2", b"3,2"), "node 1, 1 steps from the start, has 0 outgoing edges, not 1"),
    "an arm too long": (b"0,1|1,2|2,3|0,4/0,2=0,1,2", "node 4, 1 steps from the start, has 0 outgoing edges, not 1"),
    "a cycle apart": (b"5,6|6,5|0,1|0,3/0,3=0,1,3", "node 1, 1 steps from the start, has 0 outgoing edges, not 1"),
    "a self-loop": (GOOD.replace(b"1,2", b"2,2"), "node 1, 1 steps from the start, has 0 outgoing edges, not 1"),
    "another start": (GOOD.replace(b"/0,4=0", b"/9,4=9"), "node 9, 0 steps from the start, has 0 outgoing edges"),
    "answer from elsewhere": (GOOD.replace(b"=0", b"=1"), "the answer begins at 1, the query at 0"),
    "answer to elsewhere": (GOOD.replace(b"0,3,4", b"0,1,2"), "the answer ends at 2, the query asks for 4"),
    "answer along no edge": (GOOD.replace(b"=0,3", b"=0,1"), "the answer steps from 1 to 4, which is no edge"),
    "goal in mid-arm": (GOOD.replace(b"0,4=0,3,4", b"0,3=0,1,3"), "the answer steps from 1 to 3, which is no edge"),
}


@pytest.mark.parametrize(("line", "reason"), BAD.values(), ids=BAD.keys())
def test_a_malformed_line_is_named_with_its_reason(file, line, reason):
    """Guards against a malformed line that is skipped, repaired, read as another graph, or ends in a traceback of numpy."""
    file.write_bytes(GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    assert parse_chunk(G23, [GOOD + b"\n", line + b"\n"]) is None
    with pytest.raises(OfficialFormatError, match=f"^{re.escape(str(file))}:2: .*{reason}"):
        read(file, 10)


@pytest.mark.parametrize("name", sorted(BAD.keys() - {"another degree", "another length", "too long"}))
def test_a_malformed_first_line_is_named(file, name):
    """Guards against a shape that is inferred from an unchecked line."""
    file.write_bytes(BAD[name][0] + b"\n" + GOOD + b"\n")
    with pytest.raises(OfficialFormatError, match=f"^{re.escape(str(file))}:1: .*{BAD[name][1]}"):
        read(file, 10)


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        (b"", 1, "the file is empty"),
        (b"\n", 1, "the line is empty"),
        (b"\r\n", 1, "the line is empty"),
        (GOOD + b"\n\n", 2, "the line is empty"),
        (b"\xef\xbb\xbf" + b"\n", 1, "the line is empty"),
        (GOOD.decode().encode("utf-16"), 1, "the file is a UTF-16 text"),
        (b"1" * (MAX_LINE_BYTES + 1), 1, "the first line is longer than 1048576 bytes"),
    ],
    ids=["nothing", "LF", "CRLF", "final empty line", "BOM", "UTF-16", "too long"],
)
def test_a_malformed_file_is_named(file, text, number, reason):
    """Guards against a file of another kind that ends in a traceback, or in zero graphs."""
    file.write_bytes(text)
    for function in (infer_shape, infer_n_values) if number == 1 else (infer_n_values,):
        with pytest.raises(OfficialFormatError, match=f"^{re.escape(str(file))}:{number}: {reason}"):
            function(file)
    with pytest.raises(OfficialFormatError, match=f"^{re.escape(str(file))}:{number}: {reason}"):
        read(file, 10)


def test_line_numbers_count_over_chunks(file):
    """Guards against a line number within the chunk, and against the loss of good chunks before the bad line."""
    file.write_bytes((GOOD + b"\n") * 6 + b"oops\n" + GOOD + b"\n")
    batches = read_batches(file, 10, chunk_lines=3)
    assert len(next(batches).prompt) == len(next(batches).prompt) == 3
    with pytest.raises(FileError, match=":7: byte b'o' at column 1"):  # an error that the user can mend
        next(batches)


def test_fewer_node_values_than_nodes_is_a_malformed_line(file):
    """Guards against the task's own error, which has no file and line."""
    file.write_bytes(GOOD + b"\n")
    with pytest.raises(OfficialFormatError, match=r":1: node value 4 is not within 0..2 \(n_values=3\)"):
        read(file, 3)


@pytest.mark.parametrize("options", [{"n_values": 0}, {"n_values": MAX_VALUES + 1}, {"n_values": 9, "chunk_lines": 0}])
def test_arguments_out_of_range_are_refused(file, options):
    """Guards against chunk_lines=0, which silently reads no graph, and pairs of huge values, which overflow 64 bits."""
    file.write_bytes(GOOD + b"\n")
    with pytest.raises(ValueError, match=r"n_values=(0|1000000001): the text|chunk_lines=0: it must"):
        read(file, **options)


def test_rows_of_another_task_are_not_written():
    """Guards against lines that look right, from a batch of another shape or with special tokens as node values."""
    batch = graphs(PathStar(2, 5, 50), 2)
    with pytest.raises(ValueError, match=r"are no rows of G\(2,3\)"):
        write_lines(PathStar(2, 3, 50), batch)
    with pytest.raises(ValueError, match=r"are not all within 0..9"):
        write_lines(PathStar(2, 5, 10), batch)


# ---------------------------------------------------------------------- anything at all


def is_path_star_networkx(task: PathStar, edges: list[list[int]], start: int) -> bool:
    """Return whether the graph is a tree from the start, with d nodes on each of l-1 levels and no branch but at the root."""
    graph = networkx.DiGraph(map(tuple, edges))
    if graph.number_of_edges() != len(edges) or start not in graph or not networkx.is_arborescence(graph):
        return False
    level = Counter(networkx.single_source_shortest_path_length(graph, start).values())
    return level == {0: 1} | dict.fromkeys(range(1, task.path_length), task.degree) and all(
        graph.out_degree(node) <= 1 for node in graph if node != start
    )


@pytest.mark.parametrize("shape", [(1, 2, 3), (1, 4, 5), (2, 3, 6), (3, 2, 5), (2, 4, 8)], ids=str)
def test_graph_check_agrees_with_networkx(shape):
    """Guards against a graph of another shape that passes (cycle, branch, uneven arms, shared node), and a refused star."""
    task = PathStar(*shape)
    prompt, generator = graphs(task, 1000).prompt, torch.Generator().manual_seed(1)
    is_node = (prompt[0] < task.n_values).nonzero()[:-1, 0]  # all but the goal
    place = is_node[torch.randint(len(is_node), (1000, 2), generator=generator)]
    prompt = prompt.scatter(1, place, torch.randint(task.n_values, (1000, 2), generator=generator))
    graph = zip(task.edges(prompt).tolist(), task.start(prompt).tolist(), strict=True)
    expected = [is_path_star_networkx(task, edges, start) for edges, start in graph]
    assert is_path_star(task, prompt).tolist() == expected
    assert 20 < sum(expected) < 980


def reference(path: Path, n_values: int) -> Batch | str:
    """Return the file as `parse_line` reads it, or the place of its first error."""
    task, rows = None, []
    text = path.read_bytes().removeprefix(BYTE_ORDER_MARK)
    for number, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+$", text), 1):
        try:
            row = parse_line(line)
            task = task or PathStar(row.degree, len(row.path), n_values)
            rows.append(parse_chunk_reference(task, [line], path, number))
        except ValueError:
            return f"{path}:{number}: "
    return joined(rows) if rows else f"{path}:1: "


def outcome(path: Path, n_values: int) -> Batch | str:
    """Return the file as `read_batches` reads it, or its error. Any other exception fails the test."""
    try:
        return read(path, n_values, chunk_lines=2)
    except OfficialFormatError as error:
        return str(error)


def check_against_reference(path: Path, n_values: int) -> None:
    assume(not path.read_bytes().startswith(GZIP))  # the reference does not unpack
    expected, found = reference(path, n_values), outcome(path, n_values)
    if isinstance(expected, str):
        assert isinstance(found, str), f"accepted what the reference refuses at {expected}"
        assert found.startswith(expected)
        assert "\n" not in found
    else:
        assert not isinstance(found, str), f"refused what the reference accepts: {found}"
        assert same(found, expected)


@st.composite
def mutated_files(draw):
    """Draw valid lines of one shape with up to three bytes replaced, inserted, deleted or doubled."""
    task = PathStar(*draw(st.sampled_from([(1, 2, 10), (2, 2, 10), (2, 3, 10), (2, 3, 100)])))
    n_lines = draw(st.integers(1, 4))
    text = write_lines(task, task.sample(n_lines, torch.Generator().manual_seed(draw(st.integers(0, 99)))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 2))
        new = draw(st.lists(st.sampled_from(list(b"0123456789,|/=\n\r +-x\0\xff")), max_size=2).map(bytes))
        text = text[:place] + new + text[place + length :]
    return task.n_values, text


@st.composite
def wrong_numbers(draw):
    """Draw lines with the right separators and small numbers: mostly wrong graphs, sometimes right ones."""
    degree, length = draw(st.sampled_from([(1, 2), (1, 3), (2, 2)]))
    task = PathStar(degree, length, 6)
    rows = []
    for seed in draw(st.lists(st.integers(0, 99), min_size=1, max_size=4)):
        parts = re.split(rb"(\d+)", write_lines(task, task.sample(1, torch.Generator().manual_seed(seed))))
        for place in draw(st.lists(st.integers(0, len(parts) // 2 - 1), max_size=2)):
            parts[2 * place + 1] = b"%d" % draw(st.integers(0, 6))
        rows.append(b"".join(parts))
    return 6, b"".join(rows)


@settings(max_examples=100, deadline=None)
@given(case=st.one_of(mutated_files(), wrong_numbers()))
def test_mutated_lines_are_refused_or_read_as_the_reference_does(file, case):
    """Guards against damage with which the fast parser accepts another graph, refuses a right one, or crashes."""
    n_values, text = case
    file.write_bytes(text)
    check_against_reference(file, n_values)


@settings(max_examples=100, deadline=None)
@given(text=st.binary(max_size=100), after_a_good_line=st.booleans())
def test_arbitrary_bytes_are_refused_or_read_as_the_reference_does(file, text, after_a_good_line):
    """Guards against a file of another kind that ends in a traceback."""
    file.write_bytes((GOOD + b"\n" if after_a_good_line else b"") + text)
    check_against_reference(file, 10)


# ---------------------------------------------------------------------- the authors' own files


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the authors' files are not here")
@pytest.mark.parametrize(("name", "shape"), OFFICIAL_FILES.items(), ids=OFFICIAL_FILES.keys())
def test_the_authors_files_are_read_whole(name, shape):
    """Guards against a format that differs from the authors': a graph of theirs would be refused or changed."""
    path = OFFICIAL / name
    task = PathStar(*infer_shape(path), infer_n_values(path))
    assert (task.degree, task.path_length, task.n_values) == (*shape, 50)
    batch = read(path, 50)
    assert len(batch.prompt) == 20000
    assert is_path_star(task, batch.prompt).all()
    assert (task.verify(batch.prompt, batch.target) == Outcome.RIGHT_ARM).all()
    assert write_lines(task, batch) == path.read_bytes()
