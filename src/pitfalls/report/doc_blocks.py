"""Copies of generated tables in README and docs: blocks between ``<!-- results/FILE.md -->`` and ``<!-- end -->``."""

import re
from pathlib import Path

BLOCK = re.compile(r"(<!-- (results/\S+\.md) -->\n).*?(<!-- end -->)", re.S)


def refresh(root: Path) -> list[Path]:
    """Write the rows of the generated tables into the pages that show them, and return the changed pages.

    Args:
        root: the project's folder, with ``README.md``, ``docs/`` and ``results/``.

    Raises:
        FileNotFoundError: a page names a table that does not exist.
    """

    def block(found: re.Match[str]) -> str:
        rows = [line for line in (root / found[2]).read_text().splitlines() if line.startswith("|")]
        return found[1] + "\n".join(rows) + "\n" + found[3]

    changed = []
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        old = page.read_text()
        if (new := BLOCK.sub(block, old)) != old:
            page.write_text(new)
            changed.append(page)
    return changed
