"""wise card: metadata that the hub reads, numbers of these very weights alone, and lines that do what they say."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from mergekit_wise import evaluate, merge, sweep
from mergekit_wise.api.calibrate import calibrate
from mergekit_wise.api.card import card, fingerprints
from mergekit_wise.api.convert import convert
from mergekit_wise.errors import OutputError, ResultsError, UsageError, WiseError
from mergekit_wise.merging.provenance import hub_copy
from mergekit_wise.models.source import open_source
from mergekit_wise.report.folders import without_folders
from mergekit_wise.results import Reading
from mergekit_wise.results.measurement import as_measurement
from tests.small_models import clip_pair, noise, timm_pair, transformers_pair


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A reference and a shift of noisy images."""
    return noise(tmp_path_factory.mktemp("images"))


@pytest.fixture
def swept(tmp_path, images):
    """A pair with a head, its sweep in ``r.jsonl``, and its mixture at alpha 0.5."""
    pair = clip_pair(tmp_path, head=True)
    sets = {"suite": str(images / "shift"), "reference": str(images / "ref")}
    sweep(*pair, alphas=[0, 0.25, 0.5, 1], results="r.jsonl", workers=0, **sets)
    return pair, merge(*pair, tmp_path / "m.safetensors").output


def front_matter(path="README.md"):
    """The metadata of a card, by PyYAML."""
    return yaml.safe_load(Path(path).read_text().split("---\n")[1])


def code(kind, path="README.md"):
    """The lines of all blocks of one language in a card."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```$", Path(path).read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def lines(path="r.jsonl"):
    """The records of a results file, as JSON."""
    return [each for each in map(json.loads, Path(path).read_text().splitlines()) if "kind" not in each]


def test_the_hub_reads_metadata_and_results(swept):
    """ModelCard reads every field, and the model-index holds the counts of the records at alpha 0.5, and no others."""
    card(swept[1], results="r.jsonl", base_model=["hf-hub:openai/clip-vit-base-patch32"], license="mit", title="Birds")
    data = ModelCard.load("README.md").data
    assert (data.license, data.base_model, data.library_name) == (
        "mit",
        "openai/clip-vit-base-patch32",
        "mergekit_wise",
    )
    assert data.get("base_model_relation") == "merge"
    assert (data.pipeline_tag, data.model_name) == ("image-classification", "Birds")
    assert {"merge", "wise-ft"} <= set(data.tags)
    expected = {each["dataset"]: each["correct"] / each["total"] for each in lines() if each["alpha"] == 0.5}
    found = {each.dataset_name: each for each in data.eval_results}
    assert found.keys() == expected.keys() == {"ref", "shift"}
    for name, result in found.items():
        assert result.metric_value == pytest.approx(expected[name], abs=1e-6)
        assert (result.metric_type, result.task_type, result.dataset_type) == ("accuracy", "image-classification", name)
    (model,) = front_matter()["model-index"]
    assert set(model) == {"name", "results"}
    for each in model["results"]:
        assert {"task", "dataset", "metrics"} <= set(each)
        assert set(each["dataset"]) >= {"name", "type"}
        assert all({"type", "value", "name"} <= set(metric) for metric in each["metrics"])


def test_the_table_has_both_models_and_the_mixture_with_intervals(swept):
    """Each cell is the share that the record counts; averages are means of the rows; the plot is beside the card."""
    report = card(swept[1], results="r.jsonl")
    assert report.datasets == 2
    assert Path("card-sweep.png").read_bytes().startswith(b"\x89PNG")
    text = Path("README.md").read_text()
    assert "](card-sweep.png)" in text
    shares = {(each["dataset"], each["alpha"]): 100 * each["correct"] / each["total"] for each in lines()}
    rows = {
        cells[1].strip(): cells for row in text.splitlines() if (cells := row.split("|"))[0] == "" and len(cells) == 7
    }
    for name in ("ref", "shift"):
        shown = [float(re.search(r"[\d.]+", cell)[0]) for cell in rows[name][3:6]]
        assert shown == pytest.approx([shares[name, alpha] for alpha in (0, 1, 0.5)], abs=0.051)
        assert all(re.search(r"\([\d.]+–[\d.]+\)", cell) for cell in rows[name][3:6])
    both = [float(re.search(r"[\d.]+", cell)[0]) for cell in rows["Average of both"][3:6]]
    assert both == pytest.approx([(shares["ref", a] + shares["shift", a]) / 2 for a in (0, 1, 0.5)], abs=0.051)
    assert "| Data set | ECE |" in text


def test_results_of_other_weights_are_never_shown(swept):
    """A file that differs in one number has no results, no plot and no model-index, and a note says how to get them."""
    state = load_file(swept[1])
    state["classification_head.bias"][0] += 1e-6
    save_file(state, "other.safetensors")
    report = card("other.safetensors", results="r.jsonl", model="ViT-B-32")
    assert (report.datasets, report.plot) == (0, None)
    assert any("wise eval other.safetensors" in note for note in report.notes)
    assert "model-index" not in front_matter()
    text = Path("README.md").read_text()
    assert "no result of these weights" in text
    assert "This model (%)" not in text


def test_numbers_with_another_head_are_named_and_are_not_the_hubs(swept, tmp_path, images):
    """A head from a file is no part of the weights: it yields to the own head, is named, and is not in the metadata."""
    (tmp_path / "other").mkdir()
    other = clip_pair(tmp_path / "other", head=True)[0]
    (borrowed,) = evaluate(swept[1], str(images / "ref"), head=other, results="h.jsonl", workers=0).records
    card(swept[1], results="h.jsonl")
    assert "model-index" not in front_matter()
    assert f"a head from another file, which is not in these weights: {borrowed.head}" in Path("README.md").read_text()
    evaluate(swept[1], str(images / "ref"), results="h.jsonl", workers=0, limit=6)
    card(swept[1], results="h.jsonl")
    assert front_matter()["model-index"][0]["results"][0]["dataset"]["args"] == {"limit": 6, "seed": 0}
    assert "another file" not in Path("README.md").read_text()


def test_the_precision_and_the_prompts_of_numbers_are_said(tmp_path, images):
    """Two evaluations of the same weights differ in the digest of their prompts and in precision, and so do cards."""
    _, path = clip_pair(tmp_path)
    for number, options in enumerate(({}, {"templates": ["a sketch of a {}."], "precision": "bf16"})):
        results = {"results": f"{number}.jsonl", "workers": 0}
        (record,) = evaluate(path, str(images / "ref"), **results, **options).records
        card(path, results=f"{number}.jsonl")
        text = Path("README.md").read_text()
        assert f"made from class names (digest of names and templates: {record.prompts})" in text
        assert ("Computed in bf16." in text) == (number == 1)
        assert front_matter()["model-index"][0]["results"][0]["task"]["type"] == "zero-shot-image-classification"


def test_tasks_of_evaluators_are_not_called_classification(tmp_path):
    """Recall is retrieval for the hub, other scores another task; a score of a whole set counts no images."""
    pair = clip_pair(tmp_path)
    found = {"found": {"items": [0, 1, 1], "metric": "recall@1"}, "close": {"score": 0.5, "metric": "closeness"}}
    sweep(*pair, evaluator=lambda model: found, alphas=[0, 0.5, 1], results="own.jsonl")
    card(merge(*pair, "m.safetensors").output, results="own.jsonl")
    results = {each["dataset"]["name"]: each for each in front_matter()["model-index"][0]["results"]}
    assert {name: each["task"]["type"] for name, each in results.items()} == {
        "found": "image-text-retrieval",
        "close": "other",
    }
    assert results["found"]["metrics"] == [
        {"type": "recall_at_1", "name": "recall@1", "value": pytest.approx(2 / 3, abs=1e-6)}
    ]
    text = Path("README.md").read_text()
    assert "| Data set | Items |" in text
    assert re.search(r"^\| close \(closeness\) \| +\| 50\.0", text, re.MULTILINE)


def test_cards_of_one_folder_have_pictures_of_their_own(swept):
    """The picture of a second card does not replace that of the first, and its link works with any name."""
    card(swept[1], results="r.jsonl")
    first = Path("card-sweep.png").read_bytes()
    quarter = merge(*swept[0], "quarter.safetensors", alpha=0.25).output
    report = card(quarter, results="r.jsonl", output="a (quarter).md")
    assert report.plot.name == "card-sweep-a (quarter).png"
    assert Path("card-sweep.png").read_bytes() == first != report.plot.read_bytes()
    assert "](card-sweep-a%20%28quarter%29.png)" in Path("a (quarter).md").read_text()


@pytest.mark.parametrize("kind", ["own head", "zero-shot", "zero-shot head in place of its own", "head file", "timm"])
def test_every_way_to_evaluate_gives_a_fingerprint_that_the_card_knows(kind, tmp_path, images):
    """Whatever tensors an evaluation needs, the weights in its record are among the checkpoint's fingerprints."""
    options = {}
    if kind == "timm":
        _, path = timm_pair(tmp_path)
    else:
        _, path = clip_pair(tmp_path, head=kind == "own head")
    if kind == "zero-shot head in place of its own":
        state = load_file(path) | {"classification_head.weight": load_file(path)["visual.proj"].T[:3].contiguous()}
        save_file(state, path, {"open_clip_config": open_source(path).metadata["open_clip_config"]})
        options = {"head": "zero-shot"}
    if kind == "head file":
        (tmp_path / "other").mkdir()
        options = {"head": clip_pair(tmp_path / "other", head=True)[1]}
    (record,) = evaluate(path, str(images / "ref"), workers=0, limit=6, results="r.jsonl", **options).records
    assert record.weights in fingerprints(open_source(path))
    assert card(path, results="r.jsonl").datasets == 1
    assert "random subset of at most 6 images" in Path("README.md").read_text()


RULES = {
    "one alpha": {"alpha": 0.3},
    "beyond the fine-tuned model": {"alpha": 1.2, "extrapolate": True},
    "patterns": {"alpha_for": ["visual.proj=0.1", "*.bias=0.75"], "keep": "zs:logit_scale", "dtype": "bf16"},
    "depth": {"depth_alpha": "0.1:0.9", "frozen_tolerance": 1e-9},
    "renamed": {"rename": "ft:visual=visual", "only": "visual.*"},
}


@pytest.mark.parametrize("name", RULES)
def test_the_recipe_makes_the_file_again_and_the_verify_line_holds(name, tmp_path, wise):
    """The command lines of the card give the same bytes in a folder with the sources alone, and verify them."""
    rules = RULES[name]
    if name == "renamed":
        first, second = clip_pair(tmp_path)
        save_file({f"model.{each}": tensor for each, tensor in load_file(second).items()}, second)
        rules = {"rename": "ft:model=", "only": "visual.*"}
    else:
        first, second = clip_pair(tmp_path)
    merged = merge(first, second, "a b.safetensors", **rules).output
    card(merged)
    made, verify = code("sh")
    again = merged.rename("first.safetensors")
    for line in (made, verify):
        words = shlex.split(line)
        assert words[0] == "wise"
        assert wise(*words[1:]).exit_code == 0, line
    assert Path("a b.safetensors").read_bytes() == again.read_bytes()


def test_a_calibrated_file_names_its_temperature_and_both_commands(swept, images):
    """The card of a calibrated mixture says T and its images, and lists the merge and the calibration in order."""
    report = calibrate(swept[1], "c.safetensors", on=str(images / "ref"), workers=0)
    card("c.safetensors", results="r.jsonl")
    text = Path("README.md").read_text()
    assert f"T = {report.fit.temperature:.4f}" in text
    first, second, verify = map(shlex.split, code("sh"))
    assert first[:2] == ["wise", "merge"]
    assert second[:3] == ["wise", "calibrate", first[first.index("-o") + 1]]
    assert second[-1] == "c.safetensors"
    assert verify[:3] == ["wise", "verify", "c.safetensors"]
    assert "model-index" not in front_matter()  # the sweep measured other weights


def test_a_fine_tuned_file_has_a_card_that_claims_no_merge(tmp_path):
    """Without provenance there are no tags of a merge, no recipe and no verify line."""
    card(clip_pair(tmp_path)[1], base_model="someone/start")
    data = front_matter()
    assert (data["library_name"], data["pipeline_tag"]) == ("open_clip", "zero-shot-image-classification")
    assert (data["base_model"], data["base_model_relation"]) == ("someone/start", "finetune")
    assert not {"merge", "wise-ft"} & set(data["tags"])
    assert code("sh") == []


def test_sources_in_the_hubs_cache_are_the_base_models(tmp_path):
    """The provenance names a repository and its commit, so that the card knows the base model and the recipe."""
    sha = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--org--start--v1" / "snapshots" / sha
    cached.mkdir(parents=True)
    first, second = transformers_pair(tmp_path)
    for file in first.iterdir():
        file.rename(cached / file.name)
    assert hub_copy(cached / "model.safetensors") == ("org/start--v1", sha)
    assert hub_copy(second) is None
    card(merge(cached, second, "m").output, output="CARD.md")
    assert front_matter("CARD.md")["base_model"] == "org/start--v1"
    made, verify = code("sh", "CARD.md")
    assert made.startswith("wise merge hf-hub:org/start--v1 ft ")
    assert "--zeroshot hf-hub:org/start--v1" in verify
    assert sha[:12] in Path("CARD.md").read_text()


COMPARE = """
import torch; torch.set_num_threads(1)
from pathlib import Path
from safetensors.torch import load_file

def compare(model, place):
    path = next(Path(place).glob("*.safetensors")) if Path(place).is_dir() else place
    state = model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in load_file(path).items())
"""


@pytest.mark.parametrize(("how", "alpha"), [("uniform", 1.0), ("greedy", 0.5), ("stock", 0.5)])
def test_a_soup_names_its_members(how, alpha, tmp_path):
    """The card of a soup, or of its mixture with the zero-shot model, lists every member with its digest."""
    _, path = clip_pair(tmp_path)
    members = [
        {"name": f"seed{n}.safetensors", "size": 9, "kind": "safetensors", "header_sha256": str(n) * 64}
        for n in range(3)
    ]
    origin = {
        "version": "0.1.0",
        "method": "soup" if alpha == 1 else "wise-ft",
        "alpha": alpha,
        "rules": {},
        "zeroshot": {**members[0], "name": "zs.safetensors"},
        "finetuned": {"how": how, "members": members, "header_sha256": "f" * 64},
    }
    if how == "greedy":
        selection = {"selection": "greedy", "chosen_on": {"dataset": "held_out", "images": 9}}
        origin["finetuned"] |= {"how": "uniform", **selection}
    save_file(load_file(path), "soup.safetensors", {"mergekit_wise": json.dumps(origin)})
    card("soup.safetensors")
    text = Path("README.md").read_text()
    assert all(each["header_sha256"] in text for each in members)
    assert ("model-soup" in front_matter()["tags"]) == (alpha == 1)
    made, verify = map(shlex.split, code("sh"))
    names = ",".join(each["name"] for each in members)
    for words in (made, verify):
        assert words[words.index("--soup") + 1] == names
    assert ("stock" in made) == (how == "stock")
    assert ("chosen greedily on held\\_out" in text) == (how == "greedy")


def test_local_models_load_by_the_lines_of_their_cards(tmp_path, images):
    """For files of open_clip and timm and a folder of open_clip, the lines run and give the same tensors."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "0.png").write_bytes((images / "ref" / "ant" / "0.png").read_bytes())
    script = [COMPARE]
    for kind, maker in {"clip": clip_pair, "timm": timm_pair}.items():
        (tmp_path / kind).mkdir()
        merge(*maker(tmp_path / kind), f"{kind}.safetensors")
    convert("clip.safetensors", "folder", to="open_clip")
    for name in ("clip.safetensors", "timm.safetensors", "folder"):
        card(name, output="card.md")
        script += code("python", "card.md")
        script += ["assert report.predictions" if name == "clip.safetensors" else f"compare(model, {name!r})"]
        Path("card.md").unlink()
    exec("\n".join(script), {})


def test_a_suite_of_folders_keeps_its_names_alone():
    """Of folders the last part is shown, also of the reference; an evaluator's command shows no folder either."""
    entry = {
        "suite": "/home/me/my set, /home/me/night (reference /home/me/ref)",
        "evaluator": "/home/me/python /home/me/eval.py --data '/home/me/two words' --out=/home/me/out {file}",
        **{"model": "m", "weights": "w", "alpha": 0.5, "dataset": "d", "title": "D", "role": "shift"},
        **{"correct": 1, "total": 2},
    }
    (shown,) = without_folders(Reading((as_measurement("r.jsonl", entry),), (), ())).measurements
    assert shown.suite == "my set, night (reference ref)"
    assert shown.details["evaluator"] == "python eval.py --data 'two words' --out=out '{file}'"


def test_the_same_inputs_give_the_same_card_without_folders(swept, tmp_path, images, monkeypatch):
    """Two runs give the same bytes, also from another folder, and neither names a folder of this machine."""
    card(swept[1], results="r.jsonl")
    first = Path("README.md").read_bytes(), Path("card-sweep.png").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    card(swept[1], results=tmp_path / "r.jsonl", output=tmp_path / "elsewhere" / "README.md")
    assert (Path("README.md").read_bytes(), Path("card-sweep.png").read_bytes()) == first
    for folder in (tmp_path, images, Path.home()):
        assert str(folder) not in first[0].decode()


def test_a_card_that_somebody_wrote_or_edited_is_not_lost(tmp_path):
    """Another README.md and an edited card are refused and stay; an unedited card and --force are replaced."""
    merged = merge(*clip_pair(tmp_path), "m.safetensors").output
    Path("README.md").write_text("# My project\n")
    with pytest.raises(OutputError, match="force"):
        card(merged)
    assert Path("README.md").read_text() == "# My project\n"
    card(merged, force=True)
    card(merged, license="mit")
    assert front_matter()["license"] == "mit"
    edited = Path("README.md").read_text().replace("WiSE-FT", "magic", 1)
    Path("README.md").write_text(edited)
    with pytest.raises(OutputError, match="edited"):
        card(merged)
    assert Path("README.md").read_text() == edited


def test_hostile_names_stay_texts(tmp_path):
    """Names that are Markdown, HTML, YAML or code change neither metadata nor structure, and the lines still parse."""
    bad = "x'\"; rm -rf ~ `id` <script>alert(1)<|script> [a](b) --- # {{ 7*7 }}\n---\nlicense: mit.safetensors"
    first, second = clip_pair(tmp_path)
    second.rename(bad)
    merged = merge(first, bad, "m.safetensors").output
    card(merged, title="a: [b\n---\n# <img src=x>")
    text = Path("README.md").read_text()
    assert "license" not in front_matter()
    assert ModelCard(text).data.to_dict() == front_matter()
    prose = re.sub(r"^```.*?^```$", "", text.partition("\n---\n")[2], flags=re.MULTILINE | re.DOTALL)
    assert not re.search(r"(?<!\\)<(?!!--)", prose)
    assert "[a](b)" not in prose
    assert "49" not in [word.strip("*") for word in prose.split()]
    words = shlex.split(code("sh")[0])
    assert len(words) == 8
    assert "rm -rf ~" in words[3]
    assert [line for line in prose.splitlines() if line.startswith("# ")] == [
        line for line in prose.splitlines() if line.startswith("# a: ")
    ]


def test_hostile_titles_of_data_sets_stay_texts(swept):
    """A title from a results file adds no cell, no row, no image and no key of the metadata."""
    entries = [{**each, "title": "a | b ![x](http://evil)\n---\nlicense: mit <b>"} for each in lines()]
    Path("r.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in entries))
    assert card(swept[1], results="r.jsonl").datasets == 2
    data = front_matter()
    assert "license" not in data
    assert ModelCard.load("README.md").data.to_dict() == data
    rows = [line for line in Path("README.md").read_text().splitlines() if "evil" in line and line.startswith("|")]
    assert rows
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) in (6, 7)
        assert "![" not in row.replace("!\\[", "")
        assert not re.search(r"(?<!\\)<", row)


def test_bad_input_is_one_sentence(swept, tmp_path, wise):
    """Wrong names, missing files, models in memory and empty results files are refused, and nothing is written."""
    merged = swept[1]
    for options in ({"base_model": "x"}, {"license": "MIT License"}, {"repo": "a/b/c"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            card(merged, **options)
    Path("empty.jsonl").write_text("")
    with pytest.raises(ResultsError):
        card(merged, results="empty.jsonl")
    for source in ("missing.safetensors", "hf-hub:org/name", load_file(merged)):
        with pytest.raises(WiseError):
            card(source)
    with pytest.raises(OutputError):
        card(merged, output=tmp_path / "no" / "README.md")
    assert not Path("README.md").exists()
    state = load_file(merged)
    save_file(state, "broken.safetensors", {"mergekit_wise": '{"alpha": "x"}'})
    result = wise("card", "broken.safetensors")
    assert result.exit_code == 1
    assert "provenance" in result.stderr


def test_the_command_prints_what_it_wrote(swept, wise):
    """The line names card and plot, --json holds the same, and advice names options that exist."""
    shown = wise("card", swept[1], "--results", "r.jsonl")
    assert (shown.exit_code, "card-sweep.png" in shown.stdout) == (0, True)
    found = json.loads(wise("card", swept[1], "--results", "r.jsonl", "--repo", "me/birds", "--json").stdout)
    assert found == {"output": str(swept[1].parent / "README.md"), "plot": found["plot"], "datasets": 2}
    assert 'predict("hf-hub:me/birds"' in "\n".join(code("python"))
