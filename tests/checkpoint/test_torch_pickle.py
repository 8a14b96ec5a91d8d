"""Tests of old torch.save files, plain pickles and TorchScript archives against the modules they were made from."""

import io
import pickle
import pickletools
import subprocess
import sys

import pytest
import torch
from torch import nn

from mergekit_wise.checkpoint import open_checkpoint
from mergekit_wise.errors import CheckpointError


class Net(nn.Module):
    """Parameters, buffers that persist or not, a tied weight, a view of a larger storage."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        self.register_buffer("resolution", torch.tensor(7))
        self.register_buffer("passing", torch.ones(2), persistent=False)
        self.tied = self.body[0].weight
        self.part = nn.Parameter(torch.randn(5, 300)[1:4, ::2])

    def forward(self, x):
        return self.body(x)


def assert_holds(path, state, kind):
    checkpoint = open_checkpoint(path)
    assert checkpoint.kind == kind
    assert set(checkpoint.tensors) == set(state)
    for name, tensor in state.items():
        assert checkpoint.info(name).shape == tuple(tensor.shape), name
        assert checkpoint.read(name).tobytes() == tensor.contiguous().numpy().tobytes(), name


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.mark.parametrize("whole", [True, False], ids=["module", "state dict"])
def test_the_format_before_torch_1_6(whole, net, tmp_path):
    """Modules and state dicts in five pickles in a row, with the storages behind them, are read."""
    value = net if whole else {"epoch": 1, "state_dict": net.state_dict()}
    torch.save(value, tmp_path / "x", _use_new_zipfile_serialization=False)
    assert_holds(tmp_path / "x", net.state_dict(), "torch.save before 1.6")


def in_a_row(content):
    """The five pickles at the start of an old file, and the storages behind them."""
    rest = io.BytesIO(content)
    for _ in range(5):
        begin = rest.tell()
        list(pickletools.genops(rest))
        yield content[begin : rest.tell()]
    yield rest.read()


DAMAGED = {
    "protocol": (1, pickle.dumps(1002, 2), "its first numbers are not torch's"),
    "big endian": (2, pickle.dumps({"little_endian": False}, 2), "big-endian"),
    "no list": (4, pickle.dumps("0", 2), "not a list of names"),
    "numbers": (4, pickle.dumps([0], 2), "not a list of names"),
    "twice": (4, pickle.dumps(["0", "0"], 2), "occurs twice"),
    "missing": (4, pickle.dumps([], 2), "a storage is missing"),
    "of no tensor": (4, pickle.dumps(["0", "1"], 2), "storage '1' belongs to no tensor"),
    "a storage as list": (4, b"\x80\x02U\x010Q.", "a storage in an unexpected place"),
    "fewer elements": (5, bytes(8), "storage '0' reaches beyond the end"),
}


@pytest.mark.parametrize(("place", "part", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_an_old_file_with_one_part_changed_is_refused(place, part, message, tmp_path):
    """A change of any part is refused with a message of its own."""
    torch.save({"w": torch.ones(2)}, tmp_path / "x", _use_new_zipfile_serialization=False)
    parts = list(in_a_row((tmp_path / "x").read_bytes()))
    key = pickle.loads(parts[4])[0]
    parts[3] = parts[3].replace(f"X{chr(len(key))}\0\0\0{key}".encode(), b"X\1\0\0\x000")
    parts[4] = pickle.dumps(["0"], 2)
    (tmp_path / "x").write_bytes(b"".join(parts))
    assert open_checkpoint(tmp_path / "x").read("w").tolist() == [1, 1]
    parts[place] = part
    (tmp_path / "x").write_bytes(b"".join(parts))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path / "x")


@pytest.mark.parametrize("whole", [True, False], ids=["module", "state dict"])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_plain_pickle(protocol, whole, net, tmp_path):
    """Storages that are old torch.save files inside byte strings are read, in all protocols from 3 on."""
    (tmp_path / "x").write_bytes(pickle.dumps(net if whole else dict(net.state_dict()), protocol))
    assert_holds(tmp_path / "x", net.state_dict(), "plain pickle")


def test_a_plain_pickle_of_protocol_2_says_what_to_do(net, tmp_path):
    """Protocol 2 keeps bytes as text, which cannot be mapped; the error says to use torch.save."""
    (tmp_path / "x").write_bytes(pickle.dumps(net, 2))
    with pytest.raises(CheckpointError, match="protocol 2 or older.*torch.save"):
        open_checkpoint(tmp_path / "x")


def test_a_torchscript_archive(net, tmp_path):
    """TorchScript archives, such as OpenAI's CLIP files, are read."""
    torch.jit.save(torch.jit.trace(net.eval(), torch.randn(2, 3)), tmp_path / "x")
    wanted = torch.jit.load(tmp_path / "x").state_dict()
    assert_holds(tmp_path / "x", wanted, "TorchScript archive")


class Recurrent(nn.Module):
    """Keeps a tensor while it runs that is no buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(2, 2)
        self.state = torch.zeros(2)

    def forward(self, x):
        self.state = self.cell(x + self.state)
        return self.state


def test_tensors_that_a_script_keeps_while_it_runs_are_no_weights(tmp_path):
    """The names are those of torch's own state dict, and a note lists what was left out."""
    torch.jit.save(torch.jit.script(Recurrent()), tmp_path / "x")
    assert_holds(tmp_path / "x", torch.jit.load(tmp_path / "x").state_dict(), "TorchScript archive")
    assert "left out state" in open_checkpoint(tmp_path / "x").notes[-1]


AUTHORS = """
import pickle, sys, types, torch
from torch import nn
modeling = types.ModuleType("src.models.modeling")
exec('''
import torch
class ImageEncoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.model = torch.nn.Module()
        self.model.visual = torch.nn.Linear(6, 4)
        self.train_preprocess = [len, self.__class__]
class ClassificationHead(torch.nn.Linear):
    def __init__(self, normalize, weights):
        super().__init__(*weights.shape[::-1])
        self.normalize = normalize
class ImageClassifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.classification_head = ClassificationHead(True, torch.zeros(3, 4))
        self.process_images = True
''', modeling.__dict__)
for name in ("ImageEncoder", "ClassificationHead", "ImageClassifier"):
    getattr(modeling, name).__module__ = "src.models.modeling"
sys.modules.update({"src": types.ModuleType("src"), "src.models": types.ModuleType("src.models"),
                    "src.models.modeling": modeling})
torch.manual_seed(int(sys.argv[2]))
model = modeling.ImageClassifier()
pickle.dump(model, open(sys.argv[1], "wb"))
torch.save(model.state_dict(), sys.argv[1] + ".state")
"""


def test_the_authors_own_files_merge_like_any_other(wise, tmp_path):
    """Pickled ImageClassifiers, whose classes are not installed here, are merged."""
    for name, seed in (("zs", "0"), ("ft", "1")):
        subprocess.run([sys.executable, "-c", AUTHORS, str(tmp_path / name), seed], check=True)
    result = wise("merge", tmp_path / "zs", tmp_path / "ft", "--alpha", "0.3", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    a, b = (torch.load(tmp_path / f"{name}.state") for name in ("zs", "ft"))
    from safetensors.torch import load_file

    out = load_file(tmp_path / "out")
    assert out.keys() == a.keys()
    assert "image_encoder.model.visual.weight" in out
    for name, tensor in out.items():
        assert torch.equal(tensor, (1 - 0.3) * a[name] + 0.3 * b[name])


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("old", [True, False])
def test_a_file_that_was_cut_off_is_refused(old, kept, net, tmp_path):
    """A file that was cut off anywhere is refused, in both formats."""
    if old:
        torch.save(net, tmp_path / "x", _use_new_zipfile_serialization=False)
    else:
        (tmp_path / "x").write_bytes(pickle.dumps(net))
    content = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(CheckpointError, match="copy or download it again"):
        open_checkpoint(tmp_path / "x")
