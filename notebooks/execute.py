"""Execute the_argument.ipynb and store its outputs in it: python notebooks/execute.py, or make notebook."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

PATH = Path(__file__).with_name("the_argument.ipynb")


def main() -> None:
    """Execute all cells. Times of day and versions are not stored, so that only changed outputs change the file."""
    notebook = nbformat.read(PATH, as_version=4)
    language = notebook.metadata.language_info
    client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": str(PATH.parent)}})
    client.execute()
    notebook.metadata.language_info = language
    nbformat.write(notebook, PATH)


if __name__ == "__main__":
    main()
