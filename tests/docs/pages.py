"""The pages that people read, taken apart: commands, links, tables, sentences, trees, generated blocks."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LAB_NOTES = ROOT / "docs" / "lab_notes"
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    + [path for path in (ROOT / "docs").rglob("*.md") if LAB_NOTES not in path.parents]
)
EXECUTED = ROOT / "docs" / "add_an_objective.md"
"""The page whose commands are run (test_add_an_objective.py): its objective does not exist in the tree."""

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
GENERATED = re.compile(r"<!-- (results/\S+) -->\n(.*?)<!-- end -->", re.S)
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')*\]]*\s+(?=[\"'(*`\[]*[A-Z0-9`])")


class Table(NamedTuple):
    """A Markdown table of a page."""

    n_columns: int
    is_generated: bool
    header: str


def name_of(path: Path) -> str:
    """Return the page's path in the project's folder."""
    return path.relative_to(ROOT).as_posix()


def commands(path: Path) -> list[str]:
    """Return the lines of the page's ``sh`` blocks, without their comments."""
    lines = [line for kind, block in BLOCK.findall(path.read_text()) if kind == "sh" for line in block.splitlines()]
    return [command for line in lines if (command := line.split("  #")[0].strip()) and not command.startswith("#")]


def links(path: Path) -> list[str]:
    """Return the relative links of the page, as they are written."""
    text = BLOCK.sub("", path.read_text())
    return [target for _, target in LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def places(path: Path) -> set[str]:
    """Return the names that links give the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(path: Path) -> list[Table]:
    """Return the tables of the page."""
    text = BLOCK.sub("", path.read_text())
    generated = "\n".join(shown for _, shown in GENERATED.findall(text))
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines[1:]) if lines[i].startswith("|") and re.fullmatch(r"\|[\s:|-]+\|", line)]
    return [Table(len(re.findall(r"(?<!\\)\|", lines[i])) - 1, lines[i] in generated, lines[i]) for i in starts]


def sentences(text: str) -> list[str]:
    """Return the sentences of a page, without code, tables, headings and comments. A code span is one word, a link its text."""
    text = re.sub(r"<!--.*?-->", "", BLOCK.sub("\n\n", text), flags=re.S)
    text = re.sub(
        r"^(#+ .*|\|.*|\s*[-*] |\s*\d+\. )", lambda m: "\n\n" if m[0].lstrip()[0] in "#|" else "\n\n" + " ", text, flags=re.M
    )
    text = re.sub(r"`[^`]+`", "`code`", text)
    text = re.sub(r"!?" + LINK.pattern, r"\1", text)
    text = re.sub(r"\b(al|eq|e\.g|i\.e|vs)\.\s", r"\1 ", text)
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [sentence for part in paragraphs if part for sentence in SENTENCE_END.split(part)]


def tree_paths(path: Path) -> list[str]:
    """Return every path in the page's tree. An indented name lies in the last folder with less indentation."""
    tree = next(block for kind, block in BLOCK.findall(path.read_text()) if kind == "text" and "src/pitfalls/" in block)
    paths: list[str] = []
    folders: list[str] = []
    for line in tree.splitlines():
        if not line.strip() or "not committed" in line:
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        name = re.split(r"\s{2,}", line.strip())[0]
        del folders[depth:]
        paths.append("".join(folders) + name)
        folders.append(name)
    return paths
