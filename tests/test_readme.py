"""The commands that the README begins with, typed as they stand there, in a folder as it describes."""

import re
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

README = (Path(__file__).parents[1] / "README.md").read_text()
WNIDS = ImageNetInfo("imagenet-1k").label_names()
CLASSES = {
    "imagenet/val": WNIDS[:3],
    "imagenetv2-matched-frequency-format-val": ("0", "1"),
    "imagenet-r": ("n01443537",),  # goldfish
    "sketch": WNIDS[3:4],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Checkpoints by `torch.save`, the configuration of a smaller architecture, images of ImageNet and three shifts."""
    torch.manual_seed(0)
    state = timm.create_model("test_vit").state_dict()
    torch.save(state, tmp_path / "zs.pt")
    torch.save({key: tensor + 0.05 * torch.randn_like(tensor) for key, tensor in state.items()}, tmp_path / "ft.pt")
    for place, names in CLASSES.items():
        for shade, name in enumerate(names):
            path = tmp_path / place / name / "0.jpg"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (40, 40), (60 * shade, 80, 120)).save(path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WISE_DATA", raising=False)
    (toml,) = re.findall(r"^```toml\n(# wise\.toml\n.*?)^```", README, re.M | re.S)
    given = re.sub(r'^# model = "ViT-B-32".*', 'model = "timm:test_vit"', toml, flags=re.M)  # 400 times smaller
    assert given != toml
    (tmp_path / "wise.toml").write_text(given)
    return tmp_path


def test_the_three_commands_work_in_a_folder_with_two_files_and_a_configuration(folder, wise):
    """Merge writes the file, sweep tables every alpha on all data sets found, and eval measures the merged file."""
    (block,) = [text for text in re.findall(r"^```bash\n(.*?)^```", README, re.M | re.S) if "sweep --alphas" in text]
    merge, sweep, evaluate = (line.removeprefix("wise ").split() for line in block.splitlines())
    done = wise(*merge)
    assert done.exit_code == 0, done.stderr
    assert (folder / "out.safetensors").exists()
    done = wise(*sweep)
    assert done.exit_code == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if re.match(r"[01](\.\d)? ", line)]
    assert rows[:11] == ["0", *(f"0.{tenth}" for tenth in range(1, 10)), "1"]
    assert all(title in done.stdout for title in ("V2", "Sketch"))
    done = wise(*evaluate)
    assert done.exit_code == 0, done.stderr
    assert "objectnet" in done.stderr.lower()  # what was not found is named
    assert "V2" in done.stdout
