"""The notebook on results runs from top to bottom and shows tables and plots."""

import shutil

import nbformat
import pytest
from nbclient import NotebookClient

from tests.examples.conftest import EXAMPLES

pytestmark = pytest.mark.xdist_group("two_cameras")


@pytest.fixture
def executed(two_cameras, tmp_path, monkeypatch):
    """The notebook after it ran in a folder of its own, where two_cameras.py has run."""
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    shutil.copytree(two_cameras.folder / "two-cameras", tmp_path / "two-cameras")
    notebook = nbformat.read(EXAMPLES / "results.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    return notebook


def outputs(notebook, kind):
    """The outputs of one MIME type, cell by cell; of text also what was printed."""
    found = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = [each.text for each in found if each.output_type == "stream"] if kind == "text/plain" else []
    return printed + [each.data[kind] for each in found if kind in each.get("data", {})]


def test_the_notebook_shows_tables_plots_and_the_recommendation(two_cameras, executed):
    """Results are HTML tables, plots and the sheet of images are PNG, and the numbers are those of the example."""
    tables, texts = outputs(executed, "text/html"), "".join(outputs(executed, "text/plain"))
    report = two_cameras.found["report"]
    assert "<caption" in tables[0]
    assert len(tables) >= 5
    assert len(outputs(executed, "image/png")) == 3
    assert f"{report.recommendation.point}: {report.recommendation.reason}" in texts
    assert report.choice.cross_fit.sentence in texts
    answers = report.answers[1]
    merged, finetuned = (
        answers.right[[each.alpha for each in report.candidates].index(a)] for a in (report.recommendation.alpha, 1)
    )
    assert f"{(merged & ~finetuned).sum()} images are right at alpha" in texts


def test_a_folder_s_images_are_numbered_by_their_sorted_paths(two_cameras):
    """As the notebook takes it, image i of the answers is file i, whose folder is the name of its label."""
    answers = two_cameras.found["report"].answers[1]
    files = sorted((two_cameras.folder / "two-cameras" / "camera_b").glob("*/*.png"))
    shapes = sorted(two_cameras.found["SHAPES"])
    assert [shapes[label] for label in answers.labels] == [files[index].parent.name for index in answers.images]


def test_the_notebook_is_committed_without_outputs():
    """No cell holds an output or a number of execution, which would change with every run."""
    notebook = nbformat.read(EXAMPLES / "results.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
