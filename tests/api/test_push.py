"""wise push: what it uploads to a stand-in of the hub, what libraries load from there, and what it refuses."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import load_file

from mergekit_wise import merge, sweep
from mergekit_wise.api.push import push
from mergekit_wise.errors import CheckpointError, OutputError, UsageError, WiseError
from mergekit_wise.models.source import open_source
from tests.hub_server import TOKEN, ModelHandler, ModelHub, serving
from tests.small_models import clip_pair, noise, timm_pair, transformers_pair

REPOSITORY = "someone/a-model"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A running hub; the library is logged in, sends plain HTTP, and has a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(ModelHub(), ModelHandler) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        files = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", files, raising=False)  # before 1.0
        yield running


def merged_of(pair, name="merged.safetensors", **rules):
    """A mixture of a pair, written beside it."""
    return merge(*pair, pair[0].parent / name, **rules).output


def reader_of(hub):
    """The environment of a process that has the stand-in for its hub."""
    own = {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": "home", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**os.environ, **own, "OMP_NUM_THREADS": "1"}


def loading(card):
    """The lines of Python in a card."""
    return re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]


def test_a_file_comes_back_from_the_hub_with_the_same_tensors(hub, tmp_path):
    """One commit holds weights, configuration and card; `open_source` of the repository gives the same bytes."""
    merged = merged_of(clip_pair(tmp_path))
    report = push(merged, REPOSITORY, license="mit")
    files = hub.files(REPOSITORY)
    assert set(files) == {"open_clip_model.safetensors", "open_clip_config.json", "README.md"}
    assert files["open_clip_model.safetensors"] == merged.read_bytes()
    assert {file.name: file.size for file in report.files} == {name: len(data) for name, data in files.items()}
    assert report.commit == hub.repositories[REPOSITORY].commits["main"][-1]
    assert len(hub.repositories[REPOSITORY].commits["main"]) == 2
    opened = open_source(f"hf-hub:{REPOSITORY}")
    expected = load_file(merged)
    assert opened.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert opened.read(name).tobytes() == tensor.numpy().tobytes()


def test_every_library_loads_what_was_pushed_by_the_lines_of_the_card(hub, tmp_path):
    """open_clip, timm, transformers and wise run the lines that the cards show, and get the merged tensors."""
    (tmp_path / "photos").mkdir()
    (noise(tmp_path / "images", 1) / "ref" / "ant" / "0.png").rename(tmp_path / "photos" / "0.png")
    makers = {"clip": clip_pair, "timm": timm_pair, "hf": transformers_pair, "head": lambda f: clip_pair(f, head=True)}
    script, outputs = [], {}
    for kind, maker in makers.items():
        (tmp_path / kind).mkdir()
        pair = maker(tmp_path / kind)
        outputs[kind] = merged_of(pair, "merged" if kind == "hf" else "merged.safetensors")
        card = tmp_path / kind / "merged" / "README.md" if kind == "hf" else None
        if card is not None:
            card.unlink()
        push(outputs[kind], f"someone/{kind}")
        script.append(loading(hub.files(f"someone/{kind}")["README.md"].decode()))
        if kind == "head":
            script.append("assert len(report.predictions) == 1")
        else:
            script.append(f"save_file(model.state_dict(), '{kind}.loaded')")
    lines = "import torch; torch.set_num_threads(1)\nfrom safetensors.torch import save_file\n" + "\n".join(script)
    done = subprocess.run([sys.executable, "-c", lines], env=reader_of(hub), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind in ("clip", "timm", "hf"):
        path = outputs[kind] / "model.safetensors" if kind == "hf" else outputs[kind]
        loaded, expected = load_file(f"{kind}.loaded"), load_file(path)
        for name, tensor in expected.items():
            assert torch.equal(loaded[name], tensor), (kind, name)


def test_shards_get_their_librarys_names_and_an_index_of_these(hub, tmp_path):
    """The index in the repository names the shards in it, and the weights come back."""
    merged_of(timm_pair(tmp_path), shard_size="500KB")
    report = push(tmp_path / "merged.safetensors.index.json", REPOSITORY)
    files = hub.files(REPOSITORY)
    index = json.loads(files["model.safetensors.index.json"])
    shards = {name for name in files if re.fullmatch(r"model-\d{5}-of-\d{5}\.safetensors", name)}
    assert len(shards) > 1
    assert set(index["weight_map"].values()) == shards
    assert {file.name for file in report.files} == {*shards, "model.safetensors.index.json", "config.json", "README.md"}
    opened, local = (
        open_source(name) for name in (f"hf-hub:{REPOSITORY}", str(tmp_path / "merged.safetensors.index.json"))
    )
    assert {n: opened.read(n).tobytes() for n in opened.tensors} == {n: local.read(n).tobytes() for n in local.tensors}


def test_results_bring_a_table_a_plot_and_the_report(hub, tmp_path):
    """With a sweep's results, plot and page are uploaded, and no folder of this machine is in any text."""
    pair = clip_pair(tmp_path, head=True)
    images = noise(tmp_path / "images")
    sweep(
        *pair,
        alphas=[0, 0.5, 1],
        suite=str(images / "shift"),
        reference=str(images / "ref"),
        results="r.jsonl",
        workers=0,
    )
    report = push(merged_of(pair), REPOSITORY, results="r.jsonl", title="A *bold* title")
    files = hub.files(REPOSITORY)
    assert set(files) == {"model.safetensors", "README.md", "report.html", "card-sweep.png"}
    assert files["card-sweep.png"].startswith(b"\x89PNG")
    card = files["README.md"].decode()
    assert "](card-sweep.png)" in card
    assert "Zero-shot (%) | Fine-tuned (%) | This model (%)" in card
    for name in ("README.md", "report.html"):
        assert str(tmp_path) not in files[name].decode()
    assert not any("no result of these weights" in note for note in report.notes)


def test_a_dry_run_lists_the_files_and_asks_no_hub(hub, tmp_path, wise, monkeypatch):
    """Names and sizes are those of the upload; nobody needs to be logged in."""
    merged = merged_of(clip_pair(tmp_path))
    listed = push(merged, REPOSITORY, dry_run=True)
    assert (hub.asked, listed.commit) == ([], None)
    done = push(merged, REPOSITORY)
    assert [(file.name, file.size) for file in listed.files] == [(file.name, file.size) for file in done.files]
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    shown = wise("push", merged, REPOSITORY, "--dry-run", "--json")
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["files"] == {file.name: file.size for file in done.files}


def test_progress_counts_the_bytes_that_are_sent(hub, tmp_path):
    """Counts ascend to the total of all files."""
    reported = []
    report = push(merged_of(clip_pair(tmp_path)), REPOSITORY, progress=lambda *each: reported.append(each))
    sent = [(done, total) for task, done, total, unit in reported if task == "Uploading" and unit == "bytes"]
    total = sum(file.size for file in report.files)
    assert {of for _, of in sent} == {total}
    assert [done for done, _ in sent] == sorted(done for done, _ in sent)
    assert (sent[0][0], sent[-1][0]) == (0, total)
    assert any(0 < done < total for done, _ in sent)


def test_a_private_repository_and_a_branch(hub, tmp_path):
    """--private makes it private; --revision commits to a branch and leaves main as it is."""
    report = push(merged_of(clip_pair(tmp_path)), REPOSITORY, private=True, revision="v2")
    assert hub.repositories[REPOSITORY].private
    assert hub.files(REPOSITORY) == {}
    assert "open_clip_model.safetensors" in hub.files(REPOSITORY, "v2")
    assert report.url.endswith("/tree/v2")


def test_what_shall_be_private_does_not_go_to_a_public_repository(hub, tmp_path):
    """--private with a repository that is public already is refused before anything is sent; a private one is fine."""
    merged = merged_of(clip_pair(tmp_path))
    push(merged, REPOSITORY)
    hub.asked.clear()
    with pytest.raises(OutputError, match="is public"):
        push(merged, REPOSITORY, private=True)
    assert not any("preupload" in path or method == "PUT" for method, path in hub.asked)
    hub.repositories[REPOSITORY].private = True
    push(merged, REPOSITORY, private=True)


def test_a_card_there_that_somebody_wrote_is_not_lost(hub, tmp_path):
    """A foreign card there is refused before anything is sent; --force replaces it, and --card uploads another."""
    merged = merged_of(clip_pair(tmp_path))
    push(merged, REPOSITORY)
    push(merged, REPOSITORY, license="mit")  # a card of ours is replaced
    repository = hub.repositories[REPOSITORY]
    repository.branches["main"]["README.md"] = b"# Edited on the hub\n"
    repository.commits["main"].append("b" * 40)
    hub.asked.clear()
    with pytest.raises(OutputError, match="force"):
        push(merged, REPOSITORY)
    assert hub.files(REPOSITORY)["README.md"] == b"# Edited on the hub\n"
    assert not any("preupload" in path or method == "PUT" for method, path in hub.asked)
    push(merged, REPOSITORY, force=True)
    assert b"wise verify" in hub.files(REPOSITORY)["README.md"]
    (tmp_path / "own.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    push(merged, REPOSITORY, card="own.md")
    assert hub.files(REPOSITORY)["README.md"] == (tmp_path / "own.md").read_bytes()


def test_weights_that_would_be_loaded_instead_are_not_left(hub, tmp_path):
    """Old shards beside a new file are refused; with --force the same commit removes them and a note names them."""
    pair = timm_pair(tmp_path)
    push(merged_of(pair), REPOSITORY)
    merged_of(pair, "many.safetensors", shard_size="500KB")
    with pytest.raises(OutputError, match=r"model\.safetensors"):
        push(tmp_path / "many.safetensors.index.json", REPOSITORY)
    report = push(tmp_path / "many.safetensors.index.json", REPOSITORY, force=True)
    assert "model.safetensors" not in hub.files(REPOSITORY)
    assert any("model.safetensors" in note for note in report.notes)
    assert len(hub.repositories[REPOSITORY].commits["main"]) == 3


def test_the_card_of_a_merged_folders_source_does_not_go_up_as_its_own(hub, tmp_path):
    """A merge copies the fine-tuned model's card into its folder; push refuses it and names the two ways on."""
    merged = merged_of(transformers_pair(tmp_path), "merged")
    assert (merged / "README.md").exists()
    with pytest.raises(UsageError, match=r"(?s)card.*wise card"):
        push(merged, REPOSITORY)
    assert hub.asked == []
    report = push(merged, REPOSITORY, card=merged / "README.md")
    assert any("missing yaml metadata" in note for note in report.notes)
    assert set(hub.files(REPOSITORY)) >= {"config.json", "model.safetensors", "preprocessor_config.json"}


REFUSALS = {
    "a wrong token": ("/api/repos/create", 401, {}, "Invalid username or password.", "hf auth login"),
    "no right to write": ("/api/repos/create", 403, {}, "You don't have the rights.", "may not write"),
    "no such organization": ("/api/repos/create", 404, {}, "Organization not found", "no such user, organization"),
    "another commit": ("/commit/", 412, {}, "A commit has happened since.", "Run the same command again"),
    "a conflict": ("/commit/", 409, {}, "Conflict", "Run the same command again"),
    "a broken store": ("/lfs/", 403, {}, "expired", "may not write"),
    "bad metadata": ("/api/validate-yaml", 400, {}, "license is wrong", "Invalid metadata"),
    "a gated repository": ("/revision/", 403, {"X-Error-Code": "GatedRepo"}, "Access is restricted.", "hf auth login"),
    "too many requests": ("/api/repos/create", 429, {}, "slow down", "Wait"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_the_hub_is_a_sentence_and_nothing_is_committed(hub, tmp_path, monkeypatch, name):
    """Each refusal raises an OutputError that says what to do, without the token, and the repository stays empty."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    part, status, headers, said, expected = REFUSALS[name]
    answer = {"error": said, "errors": [{"message": said}], "warnings": []}
    hub.refuse = {part: (status, {**headers, "X-Error-Message": said}, answer)}
    with pytest.raises(OutputError, match=re.escape(expected)) as error:
        push(merged_of(clip_pair(tmp_path)), REPOSITORY)
    assert TOKEN not in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert REPOSITORY not in hub.repositories or hub.files(REPOSITORY) == {}


def test_without_a_login_the_command_says_how_to_log_in(hub, tmp_path, monkeypatch, wise):
    """The exit code is 2, the message names 'hf auth login', and the hub was not asked."""
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    result = wise("push", merged_of(clip_pair(tmp_path)), REPOSITORY)
    assert (result.exit_code, hub.asked) == (2, [])
    assert "hf auth login" in result.stderr


def test_without_a_network_the_reason_is_one_line(hub, tmp_path):
    """A hub that nobody can reach is one sentence."""
    with pytest.raises(OutputError, match="Check the network") as error:
        push(merged_of(clip_pair(tmp_path)), REPOSITORY, endpoint="http://127.0.0.1:9")
    assert len(str(error.value).splitlines()) == 1


def test_bad_input_is_refused_before_the_hub_is_asked(hub, tmp_path, pair):
    """Impossible names, pickles, repositories as sources and missing files raise errors."""
    zeroshot, merged = pair[0], merged_of(clip_pair(tmp_path))
    for name in ("model", "a/b/c", "a b/c", "../x", "a/b--c", "a/x.git", ""):
        with pytest.raises(UsageError, match="hub"):
            push(merged, name)
    with pytest.raises(CheckpointError, match="safetensors"):
        push(zeroshot, REPOSITORY)
    for source in ("hf-hub:someone/other", tmp_path / "missing.safetensors", torch.nn.Linear(2, 2)):
        with pytest.raises(WiseError):
            push(source, REPOSITORY)
    with pytest.raises(UsageError, match="card"):
        push(merged, REPOSITORY, card="missing.md")
    assert hub.asked == []


def test_the_command_prints_the_address_and_no_token(hub, tmp_path, wise):
    """The address of the repository is printed, and the token is in no output and in no file of the repository."""
    result = wise("push", merged_of(clip_pair(tmp_path)), REPOSITORY)
    assert result.exit_code == 0, result.output
    assert f"{hub.url}/{REPOSITORY}" in result.stdout
    assert TOKEN not in result.output
    files = hub.files(REPOSITORY)
    assert "open_clip_model.safetensors" in files
    assert not any(TOKEN.encode() in content for content in files.values())
