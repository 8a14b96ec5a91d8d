"""Training both encoders on images and their captions, from tables and tars."""

import io
import json
import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import CLIP, SimpleTokenizer
from open_clip.loss import ClipLoss
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.finetune import Stopped, finetune
from mergekit_wise.api.merge import merge
from mergekit_wise.datasets.digits import train_images
from mergekit_wise.errors import ModelError, SuiteError
from mergekit_wise.models.pair_notes import FINETUNED
from tests.training.fakes import CONFIG, save_tiny, tiny_state

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
QUICK = {"epochs": 1, "lr": 1e-3, "augment": "none", "workers": 0, "objective": "contrastive"}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Use one thread: small models gain nothing from several, and parallel test processes would compete."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def towers(tmp_path_factory):
    """Both encoders of an untrained CLIP, without a head."""
    path = tmp_path_factory.mktemp("zs") / "zs.safetensors"
    state = {name: tensor for name, tensor in tiny_state().items() if "head" not in name}
    save_file(state, path, {"format": "pt", "open_clip_config": json.dumps(CONFIG)})
    return path


def caption(index, second=False):
    return f"{'number' if second else 'digit'} {NAMES[train_images().labels[index]]}"


def picture(index):
    return Image.fromarray(train_images().pixels[index]).convert("RGB")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table of 48 images; every third image has two captions, in rows far from each other."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for index in range(48):
        picture(index).save(folder / f"{index}.png")
        rows.append(f"{index}.png\t{caption(index)}")
    rows += [f"{index}.png\t{caption(index, second=True)}" for index in range(0, 48, 3)]
    (folder / "pairs.tsv").write_text("\n".join(["filepath\ttitle", *rows]) + "\n")
    return folder / "pairs.tsv"


def save_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def png(index):
    content = io.BytesIO()
    picture(index).save(content, "PNG")
    return content.getvalue()


def record(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()[FINETUNED])


def test_one_step_is_adamws_on_open_clips_loss_of_the_captions(towers, tmp_path):
    """The weights after a step over all pairs are those of open_clip's model, loss and tokenizer."""
    (tmp_path / "pairs.csv").write_text(
        "path,caption\n" + "".join(f"{index}.png,{caption(index)}\n" for index in range(24))
    )
    for index in range(24):
        picture(index).save(tmp_path / f"{index}.png")
    output = tmp_path / "ft.safetensors"
    report = finetune(towers, tmp_path / "pairs.csv", output, **QUICK, batch_size=24, warmup=0)
    assert (report.images, report.classes, report.steps) == (24, 0, 1)
    before, after = load_file(towers), load_file(output)

    model = CLIP(**CONFIG["model_cfg"])
    model.load_state_dict(before)
    pixels = np.stack([np.asarray(picture(i).resize((16, 16), Image.Resampling.BICUBIC)) for i in range(24)])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    tokens = SimpleTokenizer(context_length=8)([caption(index) for index in range(24)])
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    features = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
    loss = ClipLoss()(*features, model.logit_scale.exp())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adamw.step()
    assert report.epochs[0].loss == pytest.approx(loss.item(), rel=1e-4)
    for name, value in model.state_dict().items():
        # The first step of AdamW has the size of the learning rate, up to rounding where the gradient is nearly zero.
        assert ((after[name] - value).abs() < 2e-4).float().mean() > 0.99, name
        assert not torch.equal(before[name], after[name])


def test_captions_in_tars_are_those_of_a_table(towers, table, tmp_path):
    """The weights are the same; the output has both encoders and no head, and is merged and evaluated as it is."""
    save_tar(
        tmp_path / "pairs.tar",
        {
            f"{index:04}.{ending}": content
            for index in range(48)
            for ending, content in (
                ("png", png(index)),
                ("txt", "\n".join([caption(index), *([caption(index, True)] if index % 3 == 0 else [])]).encode()),
            )
        },
    )
    weights = []
    for train in (table, tmp_path / "pairs.tar"):
        output = tmp_path / f"{train.suffix[1:]}.safetensors"
        finetune(towers, train, output, **{**QUICK, "augment": "crop"}, batch_size=16)
        weights.append(load_file(output))
        recorded = record(output)
        assert (recorded["data"]["images"], recorded["captions"], "classnames" in recorded) == (48, 64, False)
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert weights[0].keys() == load_file(towers).keys()
    merged = merge(towers, tmp_path / "tsv.safetensors", tmp_path / "merged.safetensors", alpha=0.5)
    records = evaluate(merged.output, "digits-small", limit=20, workers=0).records
    assert records[0].total == 20


def test_a_run_on_captions_resumes_to_the_same_bytes(towers, table, tmp_path):
    """With validation on a suite of classes; other captions under the same names are another run."""
    options = {**QUICK, "epochs": 2, "batch_size": 16, "micro_batch": 6, "validate": "digits-small"}

    def interrupt(what, now, total, unit):
        if what.startswith("fine-tuning") and now == 64:
            os.kill(os.getpid(), signal.SIGINT)

    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    report = finetune(towers, table, whole, **options)
    assert report.epochs[-1].validation.finetuned.shifts
    with pytest.raises(Stopped, match="step 5/6"):
        finetune(towers, table, parts, **options, progress=interrupt)
    changed = table.with_name("changed.tsv")
    changed.write_text(table.read_text().replace("digit zero", "digit null"))
    with pytest.raises(Exception, match="data: "):
        finetune(towers, changed, parts, **options)
    assert finetune(towers, table, parts, **options).resumed == 5
    assert parts.read_bytes() == whole.read_bytes()


def test_a_head_is_left_out_with_a_note(table, tmp_path):
    """Captions name no classes to make it again, and the old one belongs to the text encoder before training."""
    source, notes = save_tiny(tmp_path / "zs.safetensors", text=True), []
    finetune(source, table, tmp_path / "ft.safetensors", **QUICK, batch_size=24, note=notes.append)
    assert any("head is left out" in note for note in notes)
    after = load_file(tmp_path / "ft.safetensors")
    assert after.keys() == {name for name in load_file(source) if "head" not in name}


def test_a_checkpoint_without_a_text_encoder_is_refused(table, tmp_path):
    """As for captions made from class names."""
    source = save_tiny(tmp_path / "zs.safetensors")
    with pytest.raises(ModelError, match="text tower"):
        finetune(source, table, tmp_path / "ft.safetensors", **QUICK)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"templates": ["a {}"]}, r"captions and no classes, which `templates` is for"),
        ({"classnames": ["a", "b"]}, r"captions and no classes, which `classnames` is for"),
        ({"shots": 2}, r"captions and no classes, which `shots` is for"),
        ({"objective": "cross-entropy"}, r"no labels of classes.*`objective` contrastive"),
    ],
)
def test_options_for_classes_are_refused(options, says, towers, table, tmp_path):
    """Each by its name."""
    with pytest.raises(SuiteError, match=says):
        finetune(towers, table, tmp_path / "ft.safetensors", **QUICK | options)


def both_kinds(folder):
    """A table and a tar that hold labels as well as captions, and a table that does not say which."""
    for index in range(4):
        picture(index).save(folder / f"{index}.png")
    rows = [(f"{index}.png", "cat" if index % 2 else "dog", f"text {index}") for index in range(4)]
    (folder / "both.csv").write_text("path,label,caption\n" + "".join(f"{','.join(row)}\n" for row in rows))
    (folder / "neither.csv").write_text("".join(f"{path},{label}\n" for path, label, _ in rows))
    members = {}
    for index in range(4):
        members |= {f"{index}.png": png(index), f"{index}.cls": b"%d" % (index % 2), f"{index}.txt": b"a text"}
    (folder / "tars").mkdir()
    save_tar(folder / "tars" / "0.tar", members)
    return [folder / "both.csv", folder / "neither.csv", folder / "tars"]


def test_labels_and_captions_at_once_are_refused_unless_an_option_decides(towers, tmp_path):
    """--templates chooses the labels; without it, the message says how to choose either."""
    for train in both_kinds(tmp_path):
        with pytest.raises(SuiteError, match=r"labels of classes or captions.*`templates`.*leave the labels out"):
            finetune(towers, train, tmp_path / "ft.safetensors", **QUICK, batch_size=4)
        report = finetune(towers, train, tmp_path / "ft.safetensors", **QUICK, batch_size=4, templates=["a {}"])
        assert report.classes == 2


def test_refusals_name_options_of_the_command(towers, table, tmp_path, wise):
    """Each option that a message names is one of `wise finetune`."""
    ambiguous, *_ = both_kinds(tmp_path)
    contrastive = ("--objective", "contrastive")
    for words in (
        ("--train", table),
        ("--train", ambiguous, *contrastive),
        ("--train", table, *contrastive, "--shots", 3),
        ("--train", table, *contrastive, "--lp-ft"),
        ("--train", "digits", "--lp-epochs", 3),
        ("--train", "digits", "--lp-ft", "--linear"),
        ("--train", "digits", "--anchor", 1e6),
        ("--train", "digits", "--track", "mlflow"),
    ):
        result = wise("finetune", towers, *words, "-o", tmp_path / "ft.safetensors")
        assert result.exit_code in (1, 2)
        assert "--" in result.stderr


def test_the_command_says_what_it_trained_on(towers, table, tmp_path, wise, monkeypatch):
    """It prints a command that merges the pair."""
    monkeypatch.chdir(tmp_path)
    words = ("finetune", towers, "--train", table, "-o", "ft.safetensors", "--objective", "contrastive")
    result = wise(*words, "--epochs", 1, "--batch-size", 24, "--workers", 0)
    assert result.exit_code == 0, result.stderr
    assert "48 images with captions" in result.stdout
    assert result.stdout.splitlines()[-1].split()[:2] == ["wise", "merge"]


def test_the_printed_command_runs_where_a_head_is_left_out(table, tmp_path, wise, monkeypatch):
    """A pair of which one has a head is measured with heads of class names; without a suite, no pair is named."""
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "zs.safetensors", text=True)
    words = ("finetune", "zs.safetensors", "--train", table, "-o", "ft.safetensors", "--objective", "contrastive")
    quick = ("--epochs", 1, "--batch-size", 24, "--workers", 0)
    assert wise(*words, *quick).stdout.splitlines()[-1].split() == ["wise", "inspect", "ft.safetensors"]
    result = wise(*words, *quick, "--validate", "digits-small")
    assert result.exit_code == 0, result.stderr
    program, *command = result.stdout.splitlines()[-1].split()
    assert (program, command[0], command[-2:]) == ("wise", "sweep", ["--head", "zero-shot"])
    done = wise(*command, "--limit", 10, "--alphas", "0,1", "--workers", 0)
    assert done.exit_code == 0, done.stderr
