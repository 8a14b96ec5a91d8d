"""Greedy soups against a replay by hand, and sweeps of soups against soups that are written and merged."""

import json
import shlex

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from mergekit_wise import evaluate, soup, sweep
from mergekit_wise.api.merge import merge
from mergekit_wise.api.verify import verify
from mergekit_wise.cli.app import app
from mergekit_wise.errors import MismatchError, SuiteError, UsageError
from mergekit_wise.models.towers import create_clip
from mergekit_wise.results import read_records

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
}
HELD_OUT, LIMIT = "digits-noisy", 60


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A small classifier, zs, and four members that are moved from it in all weights, at random."""
    home = tmp_path_factory.mktemp("soups")
    torch.manual_seed(0)
    visual = create_clip(CONFIG["model_cfg"]).visual
    start = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    weight = torch.randn(10, 32)
    with torch.no_grad():
        shared = torch.nn.functional.normalize(visual.eval()(torch.randn(64, 3, 32, 32)), dim=-1).mean(0)
    start |= {"classification_head.weight": weight, "classification_head.bias": -weight @ shared}
    for number, name in enumerate(("zs", "a", "b", "c", "d")):
        generator = torch.Generator().manual_seed(number)
        moved = {
            key: tensor
            + (0.25 if number else 0) * tensor.std().nan_to_num() * torch.randn(tensor.shape, generator=generator)
            for key, tensor in start.items()
        }
        save_file(moved, home / f"{name}.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    return home


@pytest.fixture
def members(home):
    return [home / f"{name}.safetensors" for name in "abcd"]


def accuracy(path):
    """What an independent evaluation of a file counts."""
    (record,) = evaluate(path, HELD_OUT, limit=LIMIT, workers=0).records
    return record.correct


def mean_file(paths, output):
    """The mean of files, made with NumPy."""
    states = [load_file(path) for path in paths]
    mean = {name: np.mean([state[name].double().numpy() for state in states], axis=0) for name in states[0]}
    tensors = {name: torch.from_numpy(value).float() for name, value in mean.items()}
    save_file(tensors, output, {"open_clip_config": json.dumps(CONFIG)})
    return output


def greedy(home, paths, output, **options):
    return soup(
        home / "zs.safetensors",
        paths,
        output,
        how="greedy",
        select_on=HELD_OUT,
        limit=LIMIT,
        workers=0,
        **options,
    )


def test_greedy_is_the_replay_by_hand(home, members, tmp_path):
    """Members are tried best first and added if the mean, which NumPy makes and `evaluate` measures, does not fall."""
    report = greedy(home, members, tmp_path / "soup.safetensors")
    alone = {path: accuracy(path) for path in members}
    order = sorted(members, key=lambda path: -alone[path])
    chosen, best, expected = [order[0]], alone[order[0]], [(order[0].name, alone[order[0]], alone[order[0]], True)]
    for path in order[1:]:
        found = accuracy(mean_file([*chosen, path], tmp_path / "try.safetensors"))
        expected.append((path.name, alone[path], found, found >= best))
        if found >= best:
            chosen, best = [*chosen, path], found
    tried = [(each.name, each.record.correct, each.soup.correct, each.added) for each in report.ingredients]
    assert tried == expected
    assert len({added for *_, added in tried}) == 2
    result, mean = load_file(report.output), load_file(mean_file(chosen, tmp_path / "mean.safetensors"))
    assert all(torch.equal(result[name], tensor) for name, tensor in mean.items())
    assert any("optimistic" in note for note in report.notes)
    with safe_open(report.output, "pt") as file:
        entry = json.loads(file.metadata()["mergekit_wise"])["finetuned"]
    assert [each["name"] for each in entry["members"]] == [path.name for path in chosen]
    assert [(each["name"], each["added"]) for each in entry["candidates"]] == [(n, added) for n, _, _, added in tried]
    assert entry["candidates"][0]["alone"] == tried[0][1] / LIMIT
    for given in (members, chosen):
        assert verify(report.output, zeroshot=home / "zs.safetensors", soup=given).difference is None


def test_ties_are_tried_in_the_given_order_and_equal_accuracy_is_added(home, members):
    """Copies of one member have the same accuracy, and are added one after the other."""
    found = greedy(home, [members[0], members[0], members[0]], None)
    assert all(torch.equal(found[name], tensor) for name, tensor in load_file(members[0]).items())
    assert any("copies" in note for note in found.notes)


def test_a_results_file_keeps_what_was_measured(home, members, tmp_path):
    """A second run measures nothing again, and chooses the same members."""
    results = tmp_path / "results.jsonl"
    first = greedy(home, members, tmp_path / "a.safetensors", results=results)
    lines = len(read_records(results))
    assert lines == 2 * len(members) - 1
    second = greedy(home, members, tmp_path / "b.safetensors", results=results)
    assert len(read_records(results)) == lines
    assert first.output.read_bytes() == second.output.read_bytes()


def test_greedy_refuses_before_it_evaluates(home, members, tmp_path):
    """Several data sets, an unknown one, and members of another start are errors, and nothing is written."""
    start = home / "zs.safetensors"
    for name in ("nothing", "digits-noisy,digits-inverted"):
        with pytest.raises(SuiteError, match=name.split(",")[0]):
            soup(start, members, tmp_path / "o.safetensors", how="greedy", select_on=name)
    torch.manual_seed(5)
    other = {name: torch.randn_like(tensor) for name, tensor in load_file(members[0]).items()}
    save_file(other, tmp_path / "other.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    with pytest.raises(MismatchError, match="other.safetensors"):
        greedy(home, [members[0], tmp_path / "other.safetensors"], tmp_path / "o.safetensors")
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("how", ["uniform", "stock"])
def test_a_sweep_of_a_soup_counts_what_the_written_soup_does(how, home, members, tmp_path, monkeypatch):
    """Every alpha has the counts of the soup's file, merged and evaluated; the saved mixtures have its bytes."""
    monkeypatch.chdir(tmp_path)
    start = home / "zs.safetensors"
    options = {"suite": "digits-inverted", "reference": HELD_OUT, "limit": LIMIT, "workers": 0, "alphas": [0, 0.5, 1]}
    found = sweep(
        start, soup=members[:3], how=how, save="mix-{alpha}.safetensors", output="best.safetensors", **options
    )
    soup(start, members[:3], "soup.safetensors", how=how)
    reference = sweep(start, "soup.safetensors", **options)
    counts = [[(r.alpha, r.dataset, r.correct, r.weights) for r in each.records] for each in (found, reference)]
    assert counts[0] == counts[1]
    merge(start, "soup.safetensors", "two.safetensors", alpha=0.5)
    one, two = load_file("mix-0.5.safetensors"), load_file("two.safetensors")
    assert all(torch.equal(one[name], tensor) for name, tensor in two.items())
    assert all(name in found.records[0].model for name in ("zs.safetensors", "soup of 3", "a.safetensors"))
    assert verify("best.safetensors", zeroshot=start, soup=members[:3]).difference is None
    words = shlex.split(found.merge_command)
    words[words.index("-o") + 1] = "again.safetensors"
    assert CliRunner().invoke(app, words[1:]).exit_code == 0
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "best.safetensors").read_bytes()


def test_a_sweep_refuses_members_of_another_start(home, members, tmp_path, wise, monkeypatch):
    """The refusal of a sweep names an option that a sweep has."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    other = {name: torch.randn_like(tensor) for name, tensor in load_file(members[0]).items()}
    save_file(other, "other.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    words = ("sweep", home / "zs.safetensors", "--soup", f"{members[0]},other.safetensors", "--suite", HELD_OUT)
    refused = wise(*words)
    assert (refused.exit_code, "--allow-other-starts" in refused.stderr) == (1, True)
    allowed = wise(*words, "--allow-other-starts", "--limit", 10, "--alphas", "0,1", "--workers", 0)
    assert allowed.exit_code == 0


def test_the_command_shows_what_greedy_tried(home, members, tmp_path, wise):
    """The table has each member's accuracy alone, that of the soup with it, and whether it was added."""
    output = tmp_path / "soup.safetensors"
    words = ("soup", home / "zs.safetensors", *members, "--how", "greedy", "--select-on", HELD_OUT)
    result = wise(*words, "--limit", LIMIT, "--workers", 0, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert all(text in result.stdout for text in ("Alone", "Soup", "Added", "Wrote"))
    found = json.loads(wise(*words, "--limit", LIMIT, "--workers", 0, "-o", output, "--json").stdout)
    assert [each["added"] for each in found["members"]].count(True) < len(members)


def test_greedy_runs_in_one_process(home, members, monkeypatch):
    """Under torchrun, whose processes can meet only once, greedy is refused."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(UsageError, match="one process"):
        greedy(home, members, None)
