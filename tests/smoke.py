"""What the tool does in an environment that holds nothing but it: ``python tests/smoke.py``, run by ``make dist``."""

import json
import os
import struct
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

WISE = Path(sysconfig.get_path("scripts")) / "wise"


def save(path: Path, values: list[float]) -> Path:
    """A safetensors file of one tensor, written by hand."""
    header = {"weight": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, 4 * len(values)]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack(f"<{len(values)}f", *values))
    return path


def wise(*words: object) -> str:
    """What a command prints; the hub is not asked."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([WISE, *map(str, words)], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"wise {' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Merge, look, verify; then everything that is imported from Python."""
    import mergekit_wise
    from mergekit_wise import evaluate, finetune, merge, sweep

    here = Path(mergekit_wise.__file__)
    assert not here.is_relative_to(Path(__file__).parents[1] / "mergekit_wise"), f"{here} was not installed"
    assert all(map(callable, (merge, sweep, evaluate, finetune)))
    assert mergekit_wise.__version__ in wise("--version")
    with tempfile.TemporaryDirectory() as name:
        zs, ft, out = (Path(name, f"{side}.safetensors") for side in ("zs", "ft", "out"))
        save(zs, [0.0, 1.0, 2.0])
        save(ft, [2.0, 1.0, 4.0])
        wise("merge", zs, ft, "--alpha", 0.5, "-o", out)
        assert out.read_bytes()[-12:] == struct.pack("<3f", 1.0, 1.0, 3.0)
        assert "weight" in wise("inspect", out)
        wise("verify", out, "--zeroshot", zs, "--finetuned", ft)
        merge(zs, ft, Path(name, "again.safetensors"), alpha=0.5)
        assert Path(name, "again.safetensors").read_bytes() == out.read_bytes()
    assert "digits" in wise("suites")
    examined = json.loads(wise("doctor", "--json"))
    modules = next(section for section in examined["sections"] if section["title"] == "Compiled modules")
    assert {each["value"] for each in modules["findings"]} == {"loaded"}, modules
    assert examined["usable"]
    print(f"mergekit_wise {mergekit_wise.__version__} works as installed in {here.parent}")


if __name__ == "__main__":
    main()
