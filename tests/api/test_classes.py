"""Classes are matched by name wherever a head meets data or another head."""

import json
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mergekit_wise.api.evaluate import evaluate
from mergekit_wise.api.finetune import finetune
from mergekit_wise.api.merge import merge
from mergekit_wise.api.sweep import sweep
from mergekit_wise.api.verify import verify
from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.datasets.digits import open_digits
from mergekit_wise.errors import MismatchError, ModelError
from mergekit_wise.models.opening import open_model
from mergekit_wise.models.transform import Preprocess
from tests.training.fakes import CONFIG, save_tiny, tiny_state

DIGITS = open_digits().reference
NAMES = DIGITS.classnames
QUICK = {"epochs": 1, "batch_size": 64, "lr": 3e-3, "augment": "none", "workers": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Digits as folders that are called by their names, which computers sort: eight, five, four ..."""
    root = tmp_path_factory.mktemp("data") / "numerals"
    for index in range(0, len(DIGITS), 4):
        path = root / NAMES[DIGITS.labels[index]] / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        DIGITS.image(index).save(path)
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that learned the built-in digits in their own order, which its file records."""
    home = tmp_path_factory.mktemp("model")
    finetune(save_tiny(home / "zs.safetensors"), "digits", home / "ft.safetensors", **{**QUICK, "epochs": 4})
    return home / "ft.safetensors"


def named(path: Path, names, *, seed=0, order=None) -> Path:
    """An untrained image tower and a head whose rows are in `order`, with the names of its classes in the metadata."""
    state = {n: t for n, t in tiny_state(seed).items() if n.startswith(("visual.", "classification"))}
    state["classification_head.bias"] = torch.linspace(-0.5, 0.5, 10)
    for name in ("weight", "bias"):
        head = state[f"classification_head.{name}"]
        state[f"classification_head.{name}"] = head if order is None else head[order].contiguous()
    metadata = {"open_clip_config": json.dumps(CONFIG), **({"classnames": json.dumps(list(names))} if names else {})}
    save_file(state, path, metadata)
    return path


def logits(path: Path) -> torch.Tensor:
    """The logits of every fourth digit, computed image by image without the evaluation."""
    checkpoint = open_checkpoint(path)
    model = open_model(checkpoint)
    model.set_weights({name: (checkpoint.info(name), checkpoint.read(name)) for name in model.names})
    preprocess = Preprocess.of(model.preprocess)
    pixels = [preprocess.pixels(DIGITS.image(index)) for index in range(0, len(DIGITS), 4)]
    with torch.no_grad():
        return torch.cat([model.module(preprocess.normalise(p[None])) for p in pixels])


LABELS = torch.from_numpy(DIGITS.labels[::4].copy())


def correct(path, suite, **options):
    (record,) = evaluate(path, str(suite), workers=0, **options).records
    return record.correct


def test_folders_in_another_order_than_the_heads_classes_are_read_by_name(trained, folders, tmp_path):
    """The model that knows zero ... nine is as good on folders of these names, which are sorted as eight, five ..."""
    found = evaluate(trained, str(folders), workers=0)
    right = int((logits(trained).argmax(dim=1) == LABELS).sum())
    assert found.records[0].correct == right > 0.5 * len(LABELS)
    assert any("another order" in note for note in found.notes)
    with safe_open(trained, "np") as file:
        metadata = {key: value for key, value in file.metadata().items() if key != "classnames"}
    save_file(load_file(trained), tmp_path / "unnamed.safetensors", metadata)
    assert correct(tmp_path / "unnamed.safetensors", folders) < 0.2 * len(LABELS)


def test_a_fine_tuned_file_names_the_classes_that_it_learned(trained):
    """The names of the training data stand in the output, where the zero-shot checkpoint had none."""
    with safe_open(trained, "np") as file:
        assert json.loads(file.metadata()["classnames"]) == list(NAMES)


def test_only_the_columns_of_fewer_classes_compete(folders, tmp_path):
    """With folders of three digits, the head's other seven classes are never predicted."""
    some = ("two", "nine", "zero")
    for name in some:
        (tmp_path / "some" / name).mkdir(parents=True)
        for path in (folders / name).iterdir():
            (tmp_path / "some" / name / path.name).symlink_to(path)
    model = named(tmp_path / "m.safetensors", NAMES)
    columns = [NAMES.index(name) for name in some]
    rows = torch.isin(LABELS, torch.tensor(columns))
    best = torch.tensor(columns)[logits(model)[rows][:, columns].argmax(dim=1)]
    assert correct(model, tmp_path / "some") == int((best == LABELS[rows]).sum())


def test_the_order_is_part_of_a_records_identity(folders, tmp_path):
    """A measurement by number, without names, is not reused where names decide."""
    by_number, by_name = named(tmp_path / "a.safetensors", None), named(tmp_path / "b.safetensors", NAMES)
    first, second = (evaluate(path, str(folders), workers=0).records[0] for path in (by_number, by_name))
    assert first.weights == second.weights
    assert first.key != second.key
    assert first.correct != second.correct


def test_the_advice_of_a_refusal_works_when_it_is_followed(folders, tmp_path):
    """The lines for a TOML file are those that evaluate the renamed folder as the head's class."""
    root = tmp_path / "foreign"
    root.mkdir()
    for name in NAMES:
        (root / ("null" if name == "zero" else name)).symlink_to(folders / name)
    model = named(tmp_path / "m.safetensors", NAMES)
    with pytest.raises(ModelError, match="'null'") as caught:
        evaluate(model, str(root), workers=0)
    lines = [line for line in str(caught.value).splitlines() if line.startswith(("root =", "class_map ="))]
    assert tomllib.loads("\n".join(lines))["class_map"]["null"] == "zero"
    (tmp_path / "foreign.toml").write_text("\n".join(lines))
    assert correct(model, tmp_path / "foreign.toml") == correct(model, folders)


def test_a_class_map_alone_names_the_heads_classes_and_counts_what_it_leaves_out(folders, tmp_path):
    """Without classnames, class_map's classes are the head's; folders that it does not name are noted."""
    (tmp_path / "x.toml").write_text(f'root = "{folders}"\nclass_map = {{ two = "TWO", nine = "nine" }}\n')
    model = named(tmp_path / "m.safetensors", NAMES)
    found = evaluate(model, str(tmp_path / "x.toml"), workers=0)
    columns = [2, 9]
    rows = torch.isin(LABELS, torch.tensor(columns))
    best = torch.tensor(columns)[logits(model)[rows][:, columns].argmax(dim=1)]
    assert found.records[0].correct == int((best == LABELS[rows]).sum())
    assert any("8 folders" in note and "'eight'" in note for note in found.notes)


def test_classnames_settle_a_difference_of_built_in_data(tmp_path):
    """The digits have English names; for a head with German ones, a file of these names replaces them."""
    german = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]
    model = named(tmp_path / "m.safetensors", german)
    with pytest.raises(ModelError, match=r"10 of its 10 classes are not among .*`classnames` FILE"):
        evaluate(model, "digits", workers=0, limit=10)
    (tmp_path / "de.txt").write_text("\n".join(german))
    (tmp_path / "unnamed").mkdir()
    plain = named(tmp_path / "unnamed" / "m.safetensors", None)
    reference = [r.correct for r in evaluate(plain, "digits", workers=0, limit=50).records]
    named_too = evaluate(model, "digits", workers=0, limit=50, classnames=tmp_path / "de.txt")
    assert [record.correct for record in named_too.records] == reference


def test_the_names_of_a_head_from_a_file_count(folders, tmp_path):
    """With --head, the names in that file decide, not those of the checkpoint's own head."""
    order = list(range(9, -1, -1))
    own = named(tmp_path / "m.safetensors", ["x"] * 9 + ["y"])
    head = named(tmp_path / "whole.safetensors", [NAMES[row] for row in order], order=order)
    state = {name: tensor for name, tensor in load_file(head).items() if "head" in name}
    with safe_open(head, "np") as file:
        save_file(state, tmp_path / "head.safetensors", file.metadata())
    straight = named(tmp_path / "s.safetensors", NAMES)
    assert correct(own, folders, head=tmp_path / "head.safetensors") == correct(straight, folders)


def test_two_heads_of_one_order_are_not_mixed_row_by_row_in_another(folders, tmp_path):
    """A zero-shot head in another order gives the merge, the sweep and the verification of the same one in order."""
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    straight, tuned = named(tmp_path / "zs.safetensors", NAMES), named(tmp_path / "ft.safetensors", NAMES, seed=1)
    mixed_up = named(tmp_path / "other.safetensors", [NAMES[row] for row in order], order=order)
    for zeroshot in (straight, mixed_up):
        report = merge(zeroshot, tuned, tmp_path / f"merged-{zeroshot.name}", alpha=0.25)
        assert any("another order" in note for note in report.notes) == (zeroshot is mixed_up)
        assert verify(report.output, zeroshot=zeroshot, finetuned=tuned).difference is None
    wanted, found = (load_file(tmp_path / f"merged-{name}") for name in ("zs.safetensors", "other.safetensors"))
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.items())
    counts = [
        [(r.alpha, r.correct) for r in sweep(zs, tuned, suite=str(folders), alphas="0,0.5,1", workers=0).records]
        for zs in (straight, mixed_up)
    ]
    assert counts[0] == counts[1]


def test_one_side_of_a_pair_names_the_classes_for_both(folders, tmp_path):
    """Another tool's fine-tuned file has no names, but its rows are those of the zero-shot head that it began with."""
    zeroshot, tuned = named(tmp_path / "zs.safetensors", NAMES), named(tmp_path / "ft.safetensors", NAMES, seed=1)
    unnamed = named(tmp_path / "un.safetensors", None, seed=1)
    counts = [
        [(r.alpha, r.correct) for r in sweep(*pair, suite=str(folders), alphas="0,0.5,1", workers=0).records]
        for pair in ((zeroshot, tuned), (zeroshot, unnamed), (named(tmp_path / "z.safetensors", None), tuned))
    ]
    assert counts[0] == counts[1] == counts[2]


def test_heads_of_other_classes_are_not_mixed(tmp_path):
    """A head of cats and one of numbers are refused; --keep leaves the head out, and renamed classes are mixed."""
    first = named(tmp_path / "zs.safetensors", NAMES)
    other = named(tmp_path / "ft.safetensors", [f"cat {name}" for name in NAMES], seed=1)
    with pytest.raises(MismatchError, match=r"`keep` 'ft:classification_head\.\*'"):
        merge(first, other, tmp_path / "out.safetensors")
    merge(first, other, tmp_path / "out.safetensors", keep=["ft:classification_head.*"])
    assert torch.equal(
        load_file(tmp_path / "out.safetensors")["classification_head.weight"],
        load_file(other)["classification_head.weight"],
    )
    renamed = named(tmp_path / "renamed.safetensors", ["null", *NAMES[1:]], seed=1)
    merge(first, renamed, tmp_path / "out.safetensors")


def test_fine_tuning_learns_each_class_in_its_own_row(folders, trained, tmp_path):
    """Training on folders in another order than the head's keeps what the head knows."""
    notes = []
    finetune(trained, folders, tmp_path / "ft.safetensors", **{**QUICK, "lr": 1e-5}, note=notes.append)
    assert correct(tmp_path / "ft.safetensors", folders) == pytest.approx(correct(trained, folders), abs=3)
    assert any("another order" in note for note in notes)


def test_validation_and_the_choice_of_alpha_read_classes_by_name(folders, trained, tmp_path):
    """--validate and --select-on map the folders as eval does, and say so."""
    notes = []
    finetune(
        trained, "digits", tmp_path / "ft.safetensors", **QUICK, validate=str(folders), note=notes.append,
        log=tmp_path / "log.jsonl",
    )  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    (entry,) = [line for line in lines if "fine-tuned" in line]
    assert entry["fine-tuned"]["numerals"] == correct(tmp_path / "ft.safetensors", folders) / len(LABELS)
    assert any("numerals: the classes are in another order" in note for note in notes)
    options = {"alphas": "0,1", "limit": 20, "workers": 0}
    chosen = sweep(trained, tmp_path / "ft.safetensors", suite="digits", select_on=str(folders), **options)
    assert any("numerals: the classes are in another order" in note for note in chosen.notes)


def test_a_head_without_names_warns_where_the_order_depends_on_case(folders, tmp_path):
    """Folders Two and nine are sorted Two, nine by computers, and nine, Two by some tools and people."""
    root = tmp_path / "cased"
    root.mkdir()
    for name in NAMES:
        (root / (name.title() if name == "two" else name)).symlink_to(folders / name)
    found = evaluate(named(tmp_path / "m.safetensors", None), str(root), workers=0)
    assert any("'Two' here, but 'eight'" in note for note in found.notes)


def test_contrastive_training_makes_the_heads_rows_in_its_own_order(folders, tmp_path):
    """The head that the text tower makes anew has the classes that the file names, row by row."""
    order = list(range(9, -1, -1))
    names = [NAMES[row] for row in order]
    state = tiny_state()
    metadata = {"open_clip_config": json.dumps(CONFIG), "classnames": json.dumps(names)}
    save_file(state, tmp_path / "zs.safetensors", metadata)
    quick = {**QUICK, "lr": 1e-9, "objective": "contrastive", "templates": ("{}",)}
    finetune(tmp_path / "zs.safetensors", folders, tmp_path / "ft.safetensors", **quick)
    model = open_model(open_checkpoint(tmp_path / "ft.safetensors"), own_head=False)
    tuned = open_checkpoint(tmp_path / "ft.safetensors")
    model.set_weights({name: (tuned.info(name), tuned.read(name)) for name in model.names})
    torch.testing.assert_close(
        load_file(tmp_path / "ft.safetensors")["classification_head.weight"],
        model.zeroshot_head(names, ("{}",)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_prompts_of_a_zero_shot_head_have_no_underscores(folders, tmp_path):
    """Folders with underscores give the head of the words, and WordNet ids are noted."""
    state = {n: t for n, t in tiny_state().items() if "head" not in n}
    save_file(state, tmp_path / "clip.safetensors", {"open_clip_config": json.dumps(CONFIG)})
    counts = []
    for name, zero in (("a", "hot_dog"), ("b", "hot dog"), ("c", "n99999999")):
        (tmp_path / name).mkdir()
        for digit in NAMES[:2]:
            (tmp_path / name / (zero if digit == "zero" else digit)).symlink_to(folders / digit)
        found = evaluate(tmp_path / "clip.safetensors", str(tmp_path / name), workers=0)
        counts.append(found.records[0].correct)
        assert any("is no word" in note for note in found.notes) == (name == "c")
    assert counts[0] == counts[1]


def test_validation_knows_the_names_that_a_head_without_names_learns(folders, tmp_path):
    """The head gets the names of the training data, which are in another order than those of the built-in digits."""
    zeroshot = save_tiny(tmp_path / "zs.safetensors")
    tuned = tmp_path / "ft.safetensors"
    report = finetune(zeroshot, folders, tuned, validate="digits-small", log=tmp_path / "log.jsonl", **QUICK)
    (record,) = evaluate(tuned, "digits-small", workers=0, results=tmp_path / "r.jsonl").records
    assert report.epochs[-1].validation.finetuned.shifts[0] == (record.correct, record.total)
    assert any("matched by name" in note for note in report.notes)
