"""The training log is JSON, whatever is measured."""

import json
from pathlib import Path

from mergekit_wise.training.log import TrainingLog


def strict(text):
    def refuse(word):
        raise AssertionError(word)

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_a_number_that_is_not_finite_is_null(tmp_path):
    """JSON has no NaN and no infinity, at any depth."""
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path, 0)
    log.add("step", step=1, gradient_norm=float("inf"), loss=0.5)
    log.add("validation", step=1, epoch=1, **{"fine-tuned": {"A": float("nan"), "B": 0.25}})
    first, second = strict(path.read_text())
    assert (first["gradient_norm"], first["loss"]) == (None, 0.5)
    assert second["fine-tuned"] == {"A": None, "B": 0.25}


def test_no_line_is_lost_where_a_run_is_killed_as_it_resumes(tmp_path, monkeypatch):
    """Lines after the state are cut off; those before it are never out of the file, not for a moment."""
    path = tmp_path / "log.jsonl"
    log = TrainingLog(path, 0)
    for step in (1, 2, 3):
        log.add("step", step=step, loss=0.5)
    kept = path.read_text().splitlines(keepends=True)[:2]
    path.write_text(path.read_text() + '{"event": "st')
    modes, opened = [], Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", **rest: modes.append(mode) or opened(self, mode, **rest))
    TrainingLog(path, 2)
    assert path.read_text() == "".join(kept)
    assert "w" not in modes
    TrainingLog(path, 0)
    assert path.read_text() == ""


def test_what_an_earlier_version_wrote_is_made_json(tmp_path):
    """Lines with NaN that are kept on resuming are written anew."""
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "validation", "step": 2, "epoch": 1, "fine-tuned": {"reference": NaN}}\n')
    log = TrainingLog(path, 2)
    assert strict(path.read_text())[0]["fine-tuned"] == {"reference": None}
    assert log.validated(1)
