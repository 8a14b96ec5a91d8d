"""The example of a timm classifier sweeps between two stages, and writes a file that timm loads."""

import timm
import torch
from PIL import Image


def test_the_mixture_of_two_stages_is_a_classifier_of_timms(run):
    """Stage 2 gains on red and loses on blue, the chosen mixture keeps more, and timm computes what it predicts."""
    ran = run("timm_classifier.py")
    found, report = ran.found, ran.found["report"]
    general, *_, special = report.candidates
    assert special.reference_accuracy > general.reference_accuracy
    assert special.shift_accuracy < general.shift_accuracy
    chosen = next(each for each in report.candidates if each.point == report.recommendation.point)
    assert chosen.reference_accuracy > general.reference_accuracy
    assert chosen.shift_accuracy > special.shift_accuracy
    assert f"{chosen.alpha:5g}  {chosen.reference_accuracy:6.1%}  {chosen.shift_accuracy:6.1%}" in ran.printed
    transform = timm.data.create_transform((3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0)
    predictions = found["predicted"].predictions
    files = [ran.folder / found["folder"] / "blue" / each.file for each in predictions]
    with torch.no_grad():
        logits = found["classifier"].eval()(torch.stack([transform(Image.open(file)) for file in files]))
    assert logits.argmax(1).tolist() == [each.classes[0] for each in predictions]
