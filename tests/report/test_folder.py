"""The files made from a folder of records are those in ``results/``, and people can read them."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import msgspec
import pytest

from pitfalls.claims.ledger import read_claims
from pitfalls.report.drawing import DIGESTS
from pitfalls.report.folder import drawings, kept_sets, write_report, write_set, write_texts
from pitfalls.results import formats
from pitfalls.results.kept import Kept, read_results, record_file
from pitfalls.results.plans import Plan
from pitfalls.runs.files import read_json, write_json
from pitfalls.schemas import ConfigError
from tests.kept_runs import a_result

ROOT = Path(__file__).resolve().parents[2]
RESULTS, CONF = ROOT / "results", ROOT / "conf"
CLAIMS = CONF / "claims.yaml"
TEXTS = (".md", ".csv", ".tex")  # report.html is made on the spot and is not kept


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of texts, made again from the committed records."""
    output = tmp_path_factory.mktemp("report")
    return output, write_texts(kept_sets(RESULTS, CONF), RESULTS, output, CONF, CLAIMS)


def texts(folder):
    return {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in TEXTS}


def markdown_rows(path):
    """Return the cells of every row of every table of a file."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_committed_tables_come_from_committed_records(made):
    """Guards against a number typed by hand, a verdict by other rules, and a table that is out of date."""
    output, _ = made
    assert texts(output) == texts(RESULTS), "run: python scripts/report.py --keep"
    for name in sorted(texts(output)):
        assert (RESULTS / name).read_bytes() == (output / name).read_bytes(), f"{name}: run python scripts/report.py --keep"


def test_committed_figures_come_from_committed_records():
    """Guards against a figure of other records, labels or code than those that are there."""
    pinned = re.search(r"^matplotlib==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if matplotlib.__version__ != pinned:
        pytest.skip(f"the committed figures are drawn by matplotlib {pinned}")
    digests = {drawing.name: drawing.digest() for drawing in drawings(kept_sets(RESULTS, CONF), RESULTS, CONF)}
    assert read_json(RESULTS / DIGESTS, dict[str, str]) == digests, "run: python scripts/report.py --keep"
    assert all((RESULTS / f"{name}.{suffix}").exists() for name in digests for suffix in ("png", "svg"))


def test_no_figure_is_left_behind():
    """Guards against a figure of a set that is gone, which nothing makes again."""
    drawn = {
        f"{drawing.name}.{suffix}" for drawing in drawings(kept_sets(RESULTS, CONF), RESULTS, CONF) for suffix in ("png", "svg")
    }
    assert {str(path.relative_to(RESULTS)) for kind in ("png", "svg") for path in RESULTS.rglob(f"*.{kind}")} == drawn


def test_every_table_can_be_read(made):
    """Guards against tables as wide as a poster, cells of several thousand characters, and cells that are cut."""
    output, _ = made
    rows = {path.relative_to(output): markdown_rows(path) for path in output.rglob("*.md")}
    assert len(rows) > 60
    assert {str(name): row for name, table in rows.items() for row in table if len(row) > formats.MOST_COLUMNS} == {}
    long = [
        (str(name), cell) for name, table in rows.items() for row in table for cell in row if len(cell) > formats.LONGEST_CELL
    ]
    assert long == []
    cut = [(str(name), cell) for name, table in rows.items() for row in table for cell in row if cell.endswith("…")]
    assert cut == []


def test_every_claim_has_a_page_and_every_link_works(made):
    output, report = made
    names = {claim.name for claim in read_claims(CLAIMS)}
    assert {path.stem for path in (output / "claims").iterdir()} == names
    pages = [output / "claims.md", output / "README.md", *(output / "claims").iterdir()]
    for page in pages:
        links = re.findall(r"\]\(([^)]+)\)", page.read_text())
        assert links, page
        for link in links:
            assert (page.parent / link).is_file(), f"{page.relative_to(output)}: {link}"
    rows = [row for row in markdown_rows(output / "claims.md") if "[page]" in row[-1]]
    assert [row[-1] for row in rows] == [f"[page](claims/{verdict.claim.name}.md)" for verdict in report.verdicts]


def test_every_page_of_a_claim_has_each_config_that_counts(made):
    """Guards against evidence that is in the verdict and not on the page."""
    output, report = made
    for verdict in report.verdicts:
        rows = markdown_rows(output / "claims" / f"{verdict.claim.name}.md")[2:]
        evidence = [cell for of_check in verdict.evidence for cell in of_check if not cell.not_counted]
        assert [row[1] for row in rows] == [cell.config for cell in evidence]


def test_what_people_do_not_see_is_in_the_csv(made):
    output, report = made
    for name, table in report.tables.items():
        rows = list(csv.reader(io.StringIO((output / f"{name}.csv").read_text())))
        assert rows == [list(table.header), *map(list, table.rows)]
        assert (output / f"{name}.tex").exists()


def test_everything_is_written_into_an_empty_folder(tmp_path):
    """Guards against a report on runs of one's own that needs the committed results."""
    (tmp_path / "runs").mkdir()
    report = write_report(tmp_path / "runs", tmp_path / "out", CONF, CLAIMS)
    assert report.kept == []
    assert {verdict.verdict for verdict in report.verdicts} == {"not yet run"}
    assert {"claims.md", "accuracy.md", "cheat.md", "published.md", "README.md", "report.html"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_a_set_of_ones_own_has_its_table_and_figures(tmp_path):
    """Guards against a set whose figures are drawn again by the report of the whole folder, and a list of digests in each set."""
    runs = [a_result(500, seed, cell="x", label="mine", curve=(0, 500), expect={"exact_match": (0.9, 1)}) for seed in (0, 1)]
    folder = tmp_path / "mine"
    for run in runs:
        path = record_file(folder, run.cell, run.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(Kept(run.record, run.curve)))
    plan = Plan("mine", "My own runs", (runs[0].cell,))
    write_json(tmp_path / DIGESTS, {"other/figure": "0", "gone/figure": "1"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "figure.png").touch()
    write_set(plan, read_results(folder, plan), folder)
    assert "| mine | G(2,5), 50 | 10 k | 0.500 / 0.500 | 1.000 / 1.000 | 0 of 2 |" in (folder / "table.md").read_text()
    assert {row["as_expected"] for row in csv.DictReader(io.StringIO((folder / "table.csv").read_text()))} == {"no"}
    digests = read_json(tmp_path / DIGESTS, dict[str, str])
    assert set(digests) == {"mine/figure", "mine/positions", "mine/entropy", "other/figure"}
    assert digests["other/figure"] == "0", "nobody asked for it"
    drawn = {path.name for path in folder.iterdir() if path.suffix not in (".md", ".csv", ".tex")}
    assert drawn == {"records", "figure.png", "figure.svg", "positions.png", "positions.svg"}, "nobody measured an entropy"


def test_records_and_reports_start_without_torch():
    """Guards against a report that takes seconds because it imports torch."""
    code = "import sys, pitfalls.runs.run_folder, pitfalls.schemas, pitfalls.report.folder; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def git(*arguments, given=""):
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, input=given.encode(), capture_output=True, check=False).stdout


def test_committed_records_come_from_a_clean_tree():
    """Guards against a number made by code that nobody else has."""
    paths = git("ls-files", "results/*/records/*.json").decode().split()
    if not paths:
        pytest.skip("no committed records: not a git checkout")
    left, records = git("cat-file", "--batch", given="".join(f"HEAD:{path}\n" for path in paths)), {}
    for path in paths:
        header, _, left = left.partition(b"\n")
        size = int(header.split()[2])
        records[path], left = json.loads(left[:size])["record"], left[size + 1 :]
    assert [path for path, record in records.items() if record["dirty"] is not False or not record["commit"]] == []


def test_no_committed_file_is_large():
    """Guards against a clone that grows with every figure."""
    files = [ROOT / name for name in git("ls-files").decode().splitlines()]
    assert {str(path): size for path in files if path.exists() and (size := path.stat().st_size) > 500_000} == {}


def test_somebody_elses_readme_is_not_replaced(tmp_path: Path):
    """Guards against `report.py --output .`, which would replace the README of the project."""
    (tmp_path / "README.md").write_text("# mine\n")
    with pytest.raises(ConfigError, match="a README.md of its own"):
        write_report(RESULTS, tmp_path, CONF, CLAIMS)
    assert (tmp_path / "README.md").read_text() == "# mine\n"
