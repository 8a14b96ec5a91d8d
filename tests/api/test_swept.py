"""Sweeps of other parameters than alpha, against merging and evaluating one by one."""

import csv
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.analysis import Point, choose
from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.errors import UsageError
from mergekit_wise.models.towers import create_clip

TEXT = {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VISION = {"image_size": 16, "layers": 3, "width": 64, "patch_size": 8}
CONFIG = {
    "model_cfg": {"embed_dim": 16, "vision_cfg": VISION, "text_cfg": TEXT},
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
RUN = {"suite": "digits-inverted", "limit": 20, "workers": 0}


@pytest.fixture(scope="module")
def sides(tmp_path_factory):
    """Two models that differ in all weights."""
    folder = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate(("zs", "ft")):
        torch.manual_seed(seed)
        tensors = {
            f"visual.{key}": value for key, value in create_clip(CONFIG["model_cfg"]).visual.state_dict().items()
        }
        tensors["visual.ln_post.weight"] += seed / 100  # within a tolerance of 0.9, unlike all others
        tensors["classification_head.weight"] = torch.randn(10, 16)
        save_file(tensors, folder / f"{name}.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    return folder / "zs.safetensors", folder / "ft.safetensors"


HEAD = "classification_head.*"


@pytest.mark.parametrize(
    ("options", "save", "merges"),
    [
        (
            {"sweep": "depth-first=0,0.4", "alpha": 0.7},
            "{depth-first}",
            {"0": {"alpha": 0.7, "depth_alpha": "0:0.7"}, "0.4": {"alpha": 0.7, "depth_alpha": "0.4:0.7"}},
        ),
        (
            {"sweep": ["depth-first=0.2", "depth-last=0.3,0.9"]},
            "{depth-first}-{depth-last}",
            {"0.2-0.3": {"depth_alpha": "0.2:0.3"}, "0.2-0.9": {"depth_alpha": "0.2:0.9"}},
        ),
        (
            {"sweep": f"alpha[{HEAD}]=0,1", "alpha": 0.25},
            "{1}",
            {
                "0": {"alpha": 0.25, "alpha_for": f"{HEAD}=0"},
                "1": {"alpha": 0.25, "alpha_for": f"{HEAD}=1"},
            },
        ),
        (
            {"alphas": "0.1", "sweep": f"alpha[{HEAD}]=0.3,1"},
            "{alpha}-{2}",
            {
                "0.1-0.3": {"alpha": 0.1, "alpha_for": f"{HEAD}=0.3"},
                "0.1-1": {"alpha": 0.1, "alpha_for": f"{HEAD}=1"},
            },
        ),
        (
            {"sweep": "frozen-tolerance=0,0.9"},
            "{frozen-tolerance}",
            {"0": {"frozen_tolerance": 0.0}, "0.9": {"frozen_tolerance": 0.9}},
        ),
    ],
)
def test_swept_mixtures_are_those_of_merge(sides, options, save, merges, tmp_path):
    """Each point has the counts and digest of the file that merge writes with its options, and the saved bytes."""
    report = sweep(*sides, **options, **RUN, save=str(tmp_path / f"{save}.safetensors"))
    assert len(report.records) == len(report.saved) == len(merges)
    for record, (name, rules) in zip(report.records, merges.items(), strict=True):
        merge(*sides, tmp_path / "one.safetensors", **rules)
        assert (tmp_path / f"{name}.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
        (alone,) = evaluate(tmp_path / "one.safetensors", **RUN).records
        assert (record.weights, record.key, record.correct) == (alone.weights, alone.key, alone.correct)
        assert record.alpha is None
        assert "-".join(f"{value:g}" for _, value in record.point) == name
    assert len({record.weights for record in report.records}) > 1


def test_a_second_run_with_more_points_measures_only_these(sides, tmp_path):
    """Records of the first run are found again; those of a sweep with another rest are no obstacle."""
    results = tmp_path / "results.jsonl"
    assert sweep(*sides, sweep="depth-first=0,1", results=results, **RUN).added == 2
    report = sweep(*sides, sweep="depth-first=0,0.5,1", results=results, **RUN)
    assert (report.added, len(report.records)) == (1, 3)
    assert {record.rule for record in report.records} == {"--alpha 0.5"}
    assert sweep(*sides, sweep="depth-first=0,1", alpha=0.9, results=results, **RUN).added == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphas": "0,1", "sweep": "alpha=0,1"}, "Leave one out"),
        ({"alpha": 0.3}, "alpha is swept"),
        ({"alpha": 2, "sweep": "depth-first=0,1"}, "found 2"),
        ({"sweep": "depth-first=0,1", "analyze": True}, "compares mixtures along alpha alone, and depth-first"),
        ({"sweep": "depth-first=0,1", "output_ensemble": True}, "compares mixtures along alpha alone, and depth-first"),
        ({"sweep": ["alpha=0,1", "depth-first=0,1"], "analyze": True}, "alpha and depth-first"),
        ({"sweep": ["alpha=0,1", "depth-first=0,1"], "refine": True}, "adds values of one parameter"),
        ({"sweep": "depth-first=0,1", "prefer": "no-regret"}, "compares with the fine-tuned model"),
        ({"sweep": "depth-first=0,1", "save": "x-{alpha}.safetensors"}, "depth-first"),
        ({"sweep": "alpha[head*]=0,1", "save": "x.safetensors"}, "{1}"),
        ({"sweep": "alpha[no.*]=0,1"}, "no tensor name matches"),
    ],
)
def test_options_that_do_not_go_together_are_refused(sides, options, message):
    """Before an image is read, and with the option at fault."""
    with pytest.raises(UsageError) as error:
        sweep(*sides, **options, **RUN)
    assert message in str(error.value)


def test_refining_halves_the_intervals_of_any_parameter(sides, monkeypatch):
    """New values belong to the parameter that was swept."""
    finer = iter([(Point((("depth-last", 0.5),)),), ()])
    monkeypatch.setattr(
        "mergekit_wise.api.sweep.choose", lambda *args, **options: replace(choose(*args, **options), finer=next(finer))
    )
    report = sweep(*sides, sweep="depth-last=0,1", refine=True, **RUN)
    assert [candidate.point.values for candidate in report.candidates] == [
        (("depth-last", value),) for value in (0.0, 0.5, 1.0)
    ]


def test_details_say_what_varied(sides, tmp_path):
    """Rows by class and lines by image name the parameters with their values, and what was fixed."""
    classes, samples = tmp_path / "classes.csv", tmp_path / "samples.jsonl"
    sweep(*sides, sweep="depth-first=0,1", per_class=classes, per_sample=samples, **RUN)
    rows = list(csv.DictReader(classes.open()))
    assert {(row["alpha"], row["point"], row["rule"].strip("'")) for row in rows} == {
        ("", f"depth-first {value}", "--alpha 0.5") for value in (0, 1)
    }
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert {json.dumps(line["point"]) for line in lines} == {'[["depth-first", 0.0]]', '[["depth-first", 1.0]]'}


def test_a_grid_is_drawn_as_a_map(sides, tmp_path):
    """The plot of a grid needs no shift, because no curve is drawn."""
    options = {"sweep": ["depth-first=0,1", "depth-last=0,1"], "plot": tmp_path / "map.png"}
    sweep(*sides, **options, **RUN)
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
