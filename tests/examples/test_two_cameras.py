"""The example of one's own images shows what it says: each model's place, the mixture's gain, and the files."""

import pytest

from mergekit_wise import evaluate, merge

pytestmark = pytest.mark.xdist_group("two_cameras")


def test_finetuning_helps_camera_a_and_harms_camera_b_and_the_mixture_keeps_most_of_both(two_cameras):
    """Fine-tuned, the model is better on A and worse on B; the mixture is better than both in the mean."""
    found = two_cameras.found
    zeroshot, merged = ({each.column: each for each in each.columns} for each in found["compared"].comparisons)
    assert (zeroshot["camera_a"].better, zeroshot["camera_b"].better) == ("first", "second")
    assert merged["camera_b"].better == merged["average of both"].better == "second"
    by_alpha = {each.alpha: each for each in found["report"].candidates}
    chosen = by_alpha[found["chosen"]]
    assert 0 < found["chosen"] < 1
    assert chosen.reference_accuracy > by_alpha[0].reference_accuracy
    assert chosen.average > max(by_alpha[0].average, by_alpha[1].average)


def test_the_numbers_and_the_file_are_those_of_separate_commands(two_cameras, tmp_path):
    """The merged file is what `merge` writes, and `evaluate` counts on it what the example prints."""
    folder, found = two_cameras.folder / "two-cameras", two_cameras.found
    merge(
        folder / "zeroshot.safetensors",
        folder / "finetuned.safetensors",
        tmp_path / "m.safetensors",
        alpha=found["chosen"],
    )
    assert (tmp_path / "m.safetensors").read_bytes() == (folder / "merged.safetensors").read_bytes()
    where = {"reference": folder / "camera_a" / "test", "suite": folder / "camera_b", "workers": 0}
    camera_a, camera_b = evaluate(folder / "merged.safetensors", **where).records
    assert f"{found['chosen']:5g}  {camera_a.accuracy:8.1%}  {camera_b.accuracy:8.1%}\n" in two_cameras.printed
    assert (camera_a.total, camera_b.total) == (400, 400)


def test_all_that_is_written_is_in_its_folder(two_cameras):
    """Images, models, results and a page without addresses are below two-cameras, and nothing is beside it."""
    assert [path.name for path in two_cameras.folder.iterdir()] == ["two-cameras"]
    page = (two_cameras.folder / "two-cameras" / "report.html").read_text()
    assert "camera_b" in page
    assert 'src="http' not in page
