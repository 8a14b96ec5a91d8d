"""Advice about two checkpoints that do not fit is taken from the message, followed, and does what it says."""

import json
import random
import re
import shlex

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.errors import MismatchError
from mergekit_wise.merging import Differences, Rules, unresolved
from mergekit_wise.models.mismatch import explain_mismatch
from mergekit_wise.models.source import open_source
from mergekit_wise.options import options_of

CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
}
COPIED = re.compile(r"^ {4}((?:wise|--).*)$", re.MULTILINE)
needs_rename = pytest.mark.skipif("rename" not in options_of("merge"), reason="there is no --rename")


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return dict(open_clip.CLIP(**CONFIG).state_dict())


@pytest.fixture
def sides(tmp_path, monkeypatch):
    """Write two states as zs.safetensors and ft.safetensors in the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(zeroshot, finetuned, **metadata):
        save_file(zeroshot, "zs.safetensors", metadata.get("zs"))
        save_file(finetuned, "ft.safetensors", metadata.get("ft"))

    return write


def image_tower(state):
    return {name: tensor + 1 if tensor.ndim else tensor for name, tensor in state.items() if name.startswith("visual.")}


def head(classes, name="classification_head"):
    generator = torch.Generator().manual_seed(classes)
    weight = torch.randn(classes, 16, generator=generator)
    return {f"{name}.weight": weight, f"{name}.bias": torch.randn(classes, generator=generator)}


def advice(wise, *words):
    """The lines to copy in the message of a command that fails."""
    result = wise(*words)
    assert result.exit_code == 1, result.output
    return COPIED.findall(result.stderr)


def follow(wise, line):
    """Run the commands of a line."""
    for command in line.split(" && "):
        program, *words = shlex.split(command)
        assert program == "wise"
        result = wise(*words)
        assert result.exit_code == 0, f"{command}\n{result.output}"


def test_a_text_tower_and_a_head_are_copied_by_the_options_and_counted(wise, clip, sides):
    """The options settle all at once; the note counts the copied tensors, and the rest is mixed."""
    finetuned = {**image_tower(clip), **head(5)}
    sides(clip, finetuned)
    *_, options = advice(wise, "merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert options.startswith("--keep ")
    result = wise("merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), "-o", "out.safetensors")
    assert result.exit_code == 0, result.output
    out = load_file("out.safetensors")
    assert out.keys() == clip.keys() | finetuned.keys()
    for name, tensor in out.items():
        if name in clip and name in finetuned:
            assert torch.equal(tensor, 0.5 * clip[name] + 0.5 * finetuned[name])
        else:
            assert torch.equal(tensor, clip.get(name, finetuned.get(name)))
    text = clip.keys() - finetuned.keys()
    numbers = sum(clip[name].numel() for name in text)
    assert f"{len(text)} tensors ({numbers:,} parameters" in result.stderr
    assert "2 tensors (85 parameters" in result.stderr


def test_the_zero_shot_head_can_be_made_as_advised(wise, clip, sides, tmp_path):
    """The head made from class names turns the pair into one in which everything is mixed."""
    config = {"open_clip_config": json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}})}
    sides(clip, {**image_tower(clip), **head(3)}, zs=config)
    (tmp_path / "FILE").write_text("cat\ndog\nnewt\n")
    line, _ = advice(wise, "merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert line.startswith("wise zeroshot ")
    follow(wise, line)
    result = wise("merge", "zs-head.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert result.exit_code == 0, result.output
    made, finetuned = load_file("zs-head.safetensors"), load_file("ft.safetensors")
    name = "classification_head.weight"
    assert torch.equal(load_file("out.safetensors")[name], 0.5 * made[name] + 0.5 * finetuned[name])


def test_heads_of_different_sizes_are_settled_by_one_pattern(wise, clip, sides):
    """The message has both numbers of classes, and the fine-tuned head is copied."""
    sides({**image_tower(clip), **head(10)}, {**image_tower(clip), **head(5)})
    result = wise("merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert "10 classes in zs.safetensors and 5 in ft.safetensors" in " ".join(result.stderr.split())
    (options,) = COPIED.findall(result.stderr)
    assert shlex.split(options) == ["--keep", "ft:classification_head.*"]
    assert (
        wise("merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), "-o", "out.safetensors").exit_code == 0
    )
    assert torch.equal(load_file("out.safetensors")["classification_head.bias"], head(5)["classification_head.bias"])


def test_swapped_files_are_given_the_other_way_round(wise, clip, sides):
    """The first line has the files in the other order, so that alpha 0 is the zero-shot model; the second as given."""
    sides({**image_tower(clip), **head(5)}, clip)
    swapped, options = advice(wise, "merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert shlex.split(swapped)[2:4] == ["ft.safetensors", "zs.safetensors"]
    follow(wise, f"{swapped} --alpha 0")
    assert torch.equal(load_file("merged.safetensors")["visual.proj"], clip["visual.proj"])
    assert (
        wise("merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), "-o", "out.safetensors").exit_code == 0
    )
    assert load_file("out.safetensors").keys() == load_file("merged.safetensors").keys()


def test_a_rule_for_the_wrong_side_is_preceded_by_the_right_one(wise, clip, sides):
    """The first match decides, so the message says where the options belong."""
    finetuned = {**image_tower(clip), **head(5)}
    sides(image_tower(clip), finetuned)
    wrong = ("--keep", "zs:classification_head.*")
    result = wise("merge", "zs.safetensors", "ft.safetensors", *wrong, "-o", "out.safetensors")
    assert "before the other --keep" in " ".join(result.stderr.split())
    (options,) = COPIED.findall(result.stderr)
    assert (
        wise(
            "merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), *wrong, "-o", "out.safetensors"
        ).exit_code
        == 0
    )
    assert load_file("out.safetensors").keys() == finetuned.keys()


def test_a_sweep_is_given_options_of_its_own(wise, clip, sides):
    """The options that settle a sweep's pair are those of `sweep`; no other command has to be run first."""
    config = {"open_clip_config": json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}})}
    state = {**image_tower(clip), **head(10)}
    lacking = {name: tensor for name, tensor in state.items() if name != "visual.ln_pre.bias"}
    sides(lacking, state, ft=config)
    (options,) = advice(wise, "sweep", "zs.safetensors", "ft.safetensors", "--suite", "digits-noisy")
    assert shlex.split(options) == ["--keep", "ft:visual.ln_pre.bias"]
    given = ("--suite", "digits-noisy", "--limit", "20", "--alphas", "0.5", *shlex.split(options))
    result = wise("sweep", "zs.safetensors", "ft.safetensors", *given)
    assert result.exit_code == 0, result.output


def test_a_classifier_next_to_a_clip_needs_only_the_usual_name_of_its_head(wise, clip, sides):
    """A sweep that lacks nothing but the name of the head proposes that name alone, and runs with it."""
    config = {"open_clip_config": json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}})}
    sides(clip, {**image_tower(clip), **head(10, "fc")}, zs=config)
    given = ("zs.safetensors", "ft.safetensors", "--suite", "digits-noisy", "--limit", "20", "--alphas", "0.5")
    (options,) = advice(wise, "sweep", *given)
    assert shlex.split(options) == ["--rename", "ft:fc=classification_head"]
    result = wise("sweep", *given, *shlex.split(options))
    assert result.exit_code == 0, result.output
    assert "one was made for the 10 classes" in " ".join(result.stderr.split())


def test_a_head_of_other_features_is_not_renamed_for_a_sweep(wise, clip, sides):
    """A head that takes the features before the projection has no zero-shot counterpart, and is copied."""
    wider = {f"fc.{part}": torch.ones(shape) for part, shape in (("weight", (10, 64)), ("bias", (10,)))}
    sides(clip, {**image_tower(clip), **wider})
    *_, options = advice(wise, "sweep", "zs.safetensors", "ft.safetensors", "--suite", "digits-noisy")
    assert "--rename" not in options
    assert "'ft:fc.*'" in options


def test_a_head_that_names_its_classes_is_made_for_them(wise, clip, sides):
    """The line that makes the zero-shot head needs no list of names where the fine-tuned file holds it."""
    config = {"open_clip_config": json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}})}
    names = {"classnames": json.dumps(["cat", "dog", "newt"])}
    sides(clip, {**image_tower(clip), **head(3)}, zs=config, ft=names)
    line, _ = advice(wise, "merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    follow(wise, line)
    assert wise("merge", "zs-head.safetensors", "ft.safetensors", "-o", "out.safetensors").exit_code == 0


def test_diff_proposes_a_whole_merge(wise, clip, sides):
    """`wise diff` of two files that do not fit succeeds, and proposes a command that merges them."""
    finetuned = {**image_tower(clip), **head(5)}
    sides(clip, finetuned)
    result = wise("diff", "zs.safetensors", "ft.safetensors")
    assert result.exit_code == 0
    follow(wise, COPIED.findall(result.stderr)[-1])
    assert load_file("merged.safetensors").keys() == clip.keys() | finetuned.keys()


def test_dtypes_that_cannot_be_mixed_are_kept_as_advised(wise, sides):
    """The options copy the tensors whose dtypes cannot be mixed from the fine-tuned file."""
    other = {"w": torch.ones(2), "x.w": torch.ones(2), **{f"ids.{i}": torch.tensor([i]) for i in range(30)}}
    sides({**other, **{f"ids.{i}": torch.tensor([float(i)]) for i in range(30)}}, other)
    result = wise("merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert "ids.{0..29}: float32 and int64" in result.stderr
    (options,) = COPIED.findall(result.stderr)
    assert options == "--keep 'ft:ids.*'"
    assert (
        wise("merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), "-o", "out.safetensors").exit_code == 0
    )
    assert load_file("out.safetensors")["ids.7"].dtype == torch.int64


@pytest.mark.parametrize("classes", [5, 7])
@needs_rename
def test_a_head_under_another_name_is_renamed(classes, wise, clip, sides):
    """The head gets the zero-shot file's name; with another number of classes it is copied."""
    sides({**image_tower(clip), **head(5)}, {**image_tower(clip), **head(classes, "fc")})
    (options,) = advice(wise, "merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors")
    assert (
        wise("merge", "zs.safetensors", "ft.safetensors", *shlex.split(options), "-o", "out.safetensors").exit_code == 0
    )
    out, tuned = load_file("out.safetensors"), head(classes)["classification_head.bias"]
    zeroshot = head(5)["classification_head.bias"]
    wanted = 0.5 * zeroshot + 0.5 * tuned if classes == 5 else tuned
    assert torch.equal(out["classification_head.bias"], wanted)
    assert not [name for name in out if name.startswith("fc")]


def test_verify_asks_for_the_sources(wise, clip, sides):
    """Other files than those that were merged are no reason to change rules: nothing to copy is printed."""
    sides(clip, clip)
    assert wise("merge", "zs.safetensors", "ft.safetensors", "-o", "out.safetensors").exit_code == 0
    save_file(image_tower(clip), "ft.safetensors")
    result = wise("verify", "out.safetensors", "--zeroshot", "zs.safetensors", "--finetuned", "ft.safetensors")
    assert result.exit_code == 1
    assert "not the two checkpoints that were merged" in result.stderr
    assert COPIED.findall(result.stderr) == []


def test_in_python_the_options_are_arguments(clip, sides):
    """The line to copy is a keyword argument there."""
    from mergekit_wise.api.merge import merge

    sides(image_tower(clip), {**image_tower(clip), **head(5)})
    with pytest.raises(MismatchError) as caught:
        merge("zs.safetensors", "ft.safetensors", "out.safetensors")
    (line,) = re.findall(r"^ {4}(keep=.*)$", str(caught.value), re.MULTILINE)
    merge("zs.safetensors", "ft.safetensors", "out.safetensors", **eval(f"dict({line})"))
    assert load_file("out.safetensors").keys() == load_file("ft.safetensors").keys()


@pytest.mark.parametrize("seed", range(4))
def test_the_options_settle_every_difference_of_random_names(seed, tmp_path):
    """Nothing is left, and no option takes a tensor that both files hold in one shape."""
    rng = random.Random(seed)
    parts = ("visual", "text", "blocks", "0", "1", "11", "attn", "weight", "bias", "num_batches_tracked", "a*", "b[1]")
    settled = 0
    for _ in range(30):
        names = list({".".join(rng.choices(parts, k=rng.randint(1, 5))) for _ in range(60)})
        shared, rest = names[: len(names) // 2], names[len(names) // 2 :]
        cut, end = sorted(rng.choices(range(len(rest)), k=2))
        first = {name: torch.zeros(2) for name in (*shared, *rest[:cut], *rest[end:])}
        second = {name: torch.zeros(2) for name in (*shared, *rest[cut:end])}
        second |= {name: torch.zeros(3) for name in rest[end:]}
        for name, state in (("zs", first), ("ft", second)):
            save_file(state, tmp_path / name)
        zeroshot, finetuned = open_source(tmp_path / "zs"), open_source(tmp_path / "ft")
        found = unresolved(zeroshot, finetuned, names, Rules())
        text = explain_mismatch(zeroshot, finetuned, found)
        words = [word for line in COPIED.findall(text) for word in shlex.split(line)]
        if "--rename" in words or not words:
            continue
        keep = tuple(
            ({"zs": "zeroshot", "ft": "finetuned"}[side], pattern)
            for side, _, pattern in (word.partition(":") for word in words[1::2])
        )
        rules = Rules(keep=keep)
        assert unresolved(zeroshot, finetuned, names, rules) == Differences((), (), ())
        assert [name for name in shared if rules.kept(name)] == []
        settled += 1
    assert settled > 10
