"""Cores, memory, terminal and devices of machines that are not this one."""

import io
import os
from types import SimpleNamespace

import pytest

from mergekit_wise.diagnosis.devices import devices
from mergekit_wise.diagnosis.finding import place
from mergekit_wise.diagnosis.machine import processor_and_memory, terminal


def found(section):
    return {finding.name: finding for finding in section.findings}


class Screen(io.StringIO):
    """A terminal with an encoding."""

    def __init__(self, encoding):
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self):
        return self._encoding

    def isatty(self):
        return True


class Torch:
    """A torch with devices that compute, fail, or compute something wrong."""

    def __init__(self, cuda="12.8", error=None, result=8**3):
        self.version = SimpleNamespace(cuda=cuda, hip=None)
        self.cuda = SimpleNamespace(
            init=self._init, mem_get_info=lambda name: (70 << 30, 80 << 30), get_device_capability=lambda name: (9, 0)
        )
        self._error, self._result = error, result

    def _init(self):
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU.")

    def get_num_threads(self):
        return 4

    def ones(self, *shape, device):
        if device != "cpu" and self._error:
            raise RuntimeError(self._error)
        result = self._result if device != "cpu" else 8**3

        class Matrix:
            def __matmul__(self, other):
                return self

            def sum(self):
                return self

            def cpu(self):
                return result

        return Matrix()


def test_a_containers_limits_are_named(tmp_path, monkeypatch):
    """The cores and the memory of a container are those that it may use, beside those of the machine."""
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("64000000")
    monkeypatch.setattr("mergekit_wise.diagnosis.machine.physical_memory", lambda: 8 * 10**9)
    names = found(processor_and_memory(tmp_path))
    assert "limit of the container: 1.5" in names["cores"].value
    assert names["memory"].value == "8 GB, of which the container may use 64 MB"


def test_fewer_threads_than_cores_are_a_note(tmp_path, monkeypatch):
    """OMP_NUM_THREADS below the number of cores makes torch slower, which is said."""
    monkeypatch.setattr("mergekit_wise.diagnosis.machine.usable_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert found(processor_and_memory(tmp_path))["OMP_NUM_THREADS"].level == "note"


def test_a_terminal_is_described(monkeypatch):
    """Width, colours and an encoding that lacks characters; a pipe has neither width nor colours."""
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((40, 24)))
    names = found(terminal(Screen("ascii"), {"NO_COLOR": "1"}))
    assert (names["stdout"].value, names["stdout"].level) == ("a terminal of 40 columns", "note")
    assert names["colours"].value == "no (NO_COLOR is set)"
    assert (names["encoding"].value, names["encoding"].level) == ("ascii", "note")
    assert found(terminal(Screen("UTF-8"), {}))["colours"].value == "yes"
    assert found(terminal(io.StringIO(), {})).keys() == {"stdout"}


def test_a_gpu_that_computes_is_listed_with_its_memory():
    """A device on which a product is right is no problem, and has free memory and compute capability."""
    names = found(devices(Torch, lambda: [("cpu", ""), ("cuda:0", "H200, 80 GiB")]))
    assert names["cuda:0"].value == "H200, 80 GiB, 70 GiB of it free, compute capability 9.0; computes"
    assert not names["cuda:0"].level
    assert "cuda" not in names


@pytest.mark.parametrize(
    ("torch", "part"),
    [
        (
            Torch(error="CUDA error: no kernel image is available for execution on the device\nCompile with"),
            "no kernel",
        ),
        (Torch(result=7), "wrong result"),
    ],
    ids=["kernel", "result"],
)
def test_a_gpu_that_does_not_compute_is_a_problem(torch, part):
    """An error of the device, or a wrong product, is a problem with that device."""
    finding = found(devices(lambda: torch, lambda: [("cuda:0", "old card")]))["cuda:0"]
    assert finding.level == "problem"
    assert part in finding.text


@pytest.mark.parametrize(
    ("torch", "has_driver", "level", "part"),
    [
        (Torch(cuda=None), False, "", "built for the CPU"),
        (Torch(cuda=None), True, "problem", "built for the CPU"),
        (Torch(), False, "", "Found no NVIDIA driver on your system"),
        (Torch(), True, "problem", "Found no NVIDIA driver on your system"),
    ],
)
def test_why_there_is_no_gpu_is_said(torch, has_driver, level, part, monkeypatch):
    """Without a GPU torch's reason is given; it is a problem if the machine has a driver."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    finding = found(devices(lambda: torch, lambda: [("cpu", "")], has_driver))["cuda"]
    assert (finding.level, part in finding.value) == (level, True)
    assert bool(finding.command) == (has_driver and torch.version.cuda is None)


def test_hidden_gpus_are_no_problem(monkeypatch):
    """An empty CUDA_VISIBLE_DEVICES is the reason why there is no GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    finding = found(devices(Torch, lambda: [("cpu", "")], has_driver=True))["cuda"]
    assert (finding.level, finding.value) == ("", "none: CUDA_VISIBLE_DEVICES hides the GPUs")


@pytest.mark.parametrize(
    ("error", "command"),
    [
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "pip install torch torchvision"),
        (OSError("libcudart.so.12: cannot open shared object file"), "pip install --force-reinstall torch torchvision"),
    ],
)
def test_a_torch_that_cannot_be_loaded_is_an_error(error, command):
    """Without torch, or with one that does not load, the tool cannot be used for models."""

    def load():
        raise error

    (finding,) = devices(load).findings
    assert (finding.level, finding.command) == ("error", command)


def test_paths_hide_who_runs_the_tool(monkeypatch, tmp_path):
    """The home folder is ~, and a folder of the user's name is $USER, so that a shell still understands the path."""
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    assert place(tmp_path / "ada" / "data") == f"~{os.sep}data"
    assert place(tmp_path / "ada") == "~"
    assert place("/scratch/ada/cache", {"USER": "ada"}) == "/scratch/$USER/cache"
    assert place("/scratch/adam/cache", {"USER": "ada"}) == "/scratch/adam/cache"
