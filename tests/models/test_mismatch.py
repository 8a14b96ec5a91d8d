"""What the error about two checkpoints that do not fit says of them."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from mergekit_wise.errors import MismatchError
from mergekit_wise.models.pairing import match, open_pair
from mergekit_wise.models.source import open_source
from mergekit_wise.models.summary import summarize

VIT = {
    "visual.conv1.weight": (64, 3, 8, 8),
    "visual.positional_embedding": (17, 64),
    "visual.proj": (64, 16),
    **{f"visual.transformer.resblocks.{i}.ln_1.weight": (64,) for i in range(4)},
}


def opened(tmp_path, name, shapes):
    save_file({tensor: torch.ones(shape) for tensor, shape in shapes.items()}, tmp_path / name)
    return open_source(tmp_path / name)


def explained(tmp_path, first, second):
    with pytest.raises(MismatchError) as caught:
        match(opened(tmp_path, "zs", first), opened(tmp_path, "ft", second))
    return str(caught.value)


def resized(shapes, old, new):
    return {name: tuple(new if size == old else size for size in shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (resized(VIT, 64, 96), ("64 and 96 wide",)),
        (VIT | {f"visual.transformer.resblocks.{i}.ln_1.weight": (64,) for i in range(4, 6)}, ("4 and 6 layers",)),
        ({"conv_in.weight": (4, 4), "out.bias": (4,)}, ("No name occurs in both", "such as")),
        ({**resized(VIT, 16, 20), "visual.conv1.weight": (64, 3, 4, 4)}, ("8 and 4 pixels per patch",)),
    ],
    ids=["width", "depth", "other names", "patches"],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_two_architectures_get_a_reason_and_no_option(swapped, second, words, tmp_path):
    """The message says what differs, and proposes nothing that would write a model that is none."""
    text = explained(tmp_path, *((second, VIT) if swapped else (VIT, second)))
    if not swapped:
        assert all(word in " ".join(text.split()) for word in words), text
    assert "--keep" not in text


def test_blocks_of_unknown_models_are_counted_too(tmp_path):
    """Another depth is noticed where the architecture is unknown."""
    blocks = {f"trunk.blocks.{i}.{part}": (3,) for i in range(9) for part in ("w", "b")}
    deeper = {**blocks, "trunk.blocks.9.w": (3,), "trunk.blocks.9.b": (3,)}
    assert "9 and 10 blocks trunk.blocks.N" in explained(tmp_path, blocks, deeper)


def test_a_message_has_at_most_a_dozen_lines_of_names(tmp_path):
    """Thousands of different names do not fill the terminal, and the number of the others is given."""
    names = {f"{chr(97 + i % 26)}{chr(97 + i // 26)}.w": (2,) for i in range(600)}
    shapes = {f"s.{chr(97 + i)}": (2,) for i in range(20)}
    text = explained(
        tmp_path,
        {**shapes, **{f"common.{i}": (1,) for i in range(700)}, **names},
        {**dict.fromkeys(shapes, (3,)), **{f"common.{i}": (1,) for i in range(700)}, "extra": (1,)},
    )
    listed = [line for line in text.splitlines() if line.startswith("    ") and "--keep" not in line]
    assert len([line for line in listed if "more such lines" not in line]) <= 12
    assert "and 596 more such lines" in text


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({**VIT, "classification_head.weight": (5, 16)}, "open_clip: ViT/8, 4 layers, width 64, 32-pixel images, 16"),
        ({**VIT, "classification_head.weight": (5, 16)}, "head of 5 classes"),
        ({**VIT, "transformer.resblocks.0.ln_1.weight": (64,)}, "text tower"),
        ({"patch_embed.proj.weight": (8, 3, 4, 4), "head.weight": (7, 8)}, "timm's names; head of 7 classes"),
        ({"layer1.0.conv1.weight": (8, 3, 3, 3), "fc.weight": (1, 8)}, "head of 1 class"),
        ({"a.visual.x": (1,), "b.visual.x": (1,)}, "such as a.visual.x"),
        ({"visual.conv1.weight": (), "visual.proj": (0,), "vision_model.x": ()}, "open_clip"),
        ({"fc.weight": (0, 0), "blocks.0.fc.weight": (3, 3)}, "head of 0 classes"),
    ],
)
def test_a_file_is_described_in_a_line(shapes, words, tmp_path):
    """Naming, architecture, towers and head are named as far as they show; nothing raises."""
    assert words in str(summarize(opened(tmp_path, "file", shapes)))


def test_the_message_needs_no_torch(tmp_path):
    """The error is explained without importing torch or open_clip."""
    opened(tmp_path, "zs", {**VIT, "transformer.resblocks.0.w": (1,)})
    opened(tmp_path, "ft", {**VIT, "classification_head.weight": (5, 16)})
    script = (
        "import sys\nfrom mergekit_wise.api.merge import merge\nfrom mergekit_wise.errors import MismatchError\n"
        "try:\n    merge('zs', 'ft', 'out')\nexcept MismatchError as error:\n    assert 'head of 5' in str(error)\n"
        "print({'torch', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr


def test_commands_name_the_entry_that_was_chosen(tmp_path):
    """A command to copy holds FILE::ENTRY where one of the two was given so."""
    head = {"classification_head.weight": torch.ones(5, 8)}
    torch.save({"model": {"w.a": torch.ones(3)}, "model_ema": {"w.a": torch.ones(3), **head}}, tmp_path / "x.pt")
    with (
        pytest.raises(MismatchError) as caught,
        open_pair(tmp_path / "x.pt", f"{tmp_path / 'x.pt'}::model_ema") as pair,
    ):
        match(*pair[:2], command="diff")
    assert f"wise merge {tmp_path / 'x.pt'} {tmp_path / 'x.pt'}::model_ema" in str(caught.value)
