"""Execute tour.py from top to bottom and write it, with its outputs, to tour.ipynb: `make notebook`."""

from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

SOURCE = Path(__file__).with_name("tour.py")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

if __name__ == "__main__":
    notebook = jupytext.read(SOURCE, fmt="py:percent")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # and not a random one, so that a second run changes nothing
    NotebookClient(notebook, timeout=600, record_timing=False, coalesce_streams=True).execute()
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nbformat.write(notebook, SOURCE.with_suffix(".ipynb"))
