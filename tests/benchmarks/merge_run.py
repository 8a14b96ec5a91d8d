"""One run of one contestant, in a process of its own: ``python merge_run.py CONTESTANT ZEROSHOT FINETUNED OUTPUT``.

A run prints the seconds that its work took after everything was imported. It knows nothing of repetitions, memory or
tables, which are the matter of ``merge.py``.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ALPHA = 0.5
NAMES = {"torch.float32": "F32", "torch.bfloat16": "BF16", "torch.float16": "F16"}


@contextmanager
def timed() -> Iterator[None]:
    """Print how many seconds the block took."""
    began = time.perf_counter()
    yield
    print(f"\nseconds {time.perf_counter() - began:.4f}")


def data(folder: str, dtype: str, scale: str, moved: str) -> None:
    """Write a pair with the shapes of open_clip's ViT-L-14, as safetensors and by `torch.save`: seeded noise.

    The second one is called `moved`; in "half" of its tensors it is equal to the first.
    """
    import open_clip
    import torch
    from safetensors.torch import save_file

    shapes = open_clip.create_model("ViT-L-14", device="meta").state_dict()
    for side, drift in (("zeroshot", 0.0), (moved, 0.001)):
        shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
        tensors = {}
        for number, (name, meta) in enumerate(shapes.items()):
            shape = (max(1, int(meta.shape[0] * float(scale))), *meta.shape[1:]) if meta.dim() else ()
            values = torch.randn(shape, generator=shared).mul_(0.02)
            if drift and (moved != "half" or number % 2):
                values.add_(torch.randn(shape, generator=own), alpha=drift)
            tensors[name] = values.to(getattr(torch, dtype))
        save_file(tensors, Path(folder) / f"{side}-{dtype}.safetensors")
        torch.save(tensors, Path(folder) / f"{side}-{dtype}.pt")


def wise(zeroshot: str, finetuned: str, output: str) -> None:
    """The tool, from Python."""
    import numpy  # noqa: F401

    from mergekit_wise.api.merge import merge

    with timed():
        merge(zeroshot, finetuned, Path(output), alpha=ALPHA)


def everything(zeroshot: str, finetuned: str, output: str) -> None:
    """The script that everybody writes: load both, mix, save."""
    import torch
    from safetensors.torch import load_file, save_file

    load: Callable[[str], dict[str, Any]] = load_file if zeroshot.endswith(".safetensors") else torch.load
    with timed():
        first, second = load(zeroshot), load(finetuned)
        mixed = {name: (1 - ALPHA) * first[name] + ALPHA * second[name] for name in first}
        save_file(mixed, output)


def loop(zeroshot: str, finetuned: str, output: str) -> None:
    """Map, mix and write, one tensor after the other, in torch; no checks, no flush."""
    import torch
    from safetensors import safe_open

    def opened(path: str) -> tuple[list[str], Callable[[str], Any]]:
        if path.endswith(".pt"):
            tensors = torch.load(path, mmap=True)
            return list(tensors), tensors.__getitem__
        file = safe_open(path, "pt")
        return list(file.keys()), file.get_tensor

    with timed(), open(output, "wb") as out:
        (names, first), (_, second) = opened(zeroshot), opened(finetuned)
        header, end = {}, 0
        for name in names:
            tensor, start = first(name), end
            end += tensor.nbytes
            header[name] = {"dtype": NAMES[str(tensor.dtype)], "shape": [*tensor.shape], "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        out.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            mixed = torch.lerp(first(name), second(name), ALPHA)
            out.write(mixed.reshape(-1).view(torch.uint8).numpy().data)


def mecha(zeroshot: str, finetuned: str, output: str) -> None:
    """sd-mecha's weighted sum, written in the inputs' dtype; it would write float16 otherwise."""
    import sd_mecha
    import torch

    dtype = getattr(torch, Path(zeroshot).stem.rpartition("-")[2])
    with timed():
        recipe = sd_mecha.weighted_sum(sd_mecha.model(zeroshot), sd_mecha.model(finetuned), alpha=ALPHA)
        sd_mecha.merge(recipe, output=output, output_dtype=dtype)


if __name__ == "__main__":
    contestants = (data, wise, everything, loop, mecha)
    {contestant.__name__: contestant for contestant in contestants}[sys.argv[1]](*sys.argv[2:])
