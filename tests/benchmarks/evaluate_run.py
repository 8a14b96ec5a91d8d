"""One run of one contestant of ``evaluate.py``, in a process of its own: ``python evaluate_run.py CONTESTANT ...``.

A run prints the seconds that opening and evaluating took after everything was imported, and how many images it found
right. It knows nothing of repetitions and tables.
"""

import io
import sys
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.random import Generator

CLASSES = 10
SHARDS = 8
"""CLIP_benchmark's workers share tars, so there are no fewer than workers."""


def data(folder: str, images: str) -> None:
    """JPEGs of photographs' size and weight in class folders, and the same ones in tars as clip-benchmark has them."""
    import numpy as np

    home, rng = Path(folder), np.random.default_rng(0)
    test = home / "wds" / "test"
    test.mkdir(parents=True)
    with ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(test / f"{shard}.tar", "w")) for shard in range(SHARDS)]
        for number in range(int(images)):
            photograph(home, number, rng, tars[number % SHARDS])
    (test / "nshards.txt").write_text(str(SHARDS))
    (home / "wds" / "classnames.txt").write_text("".join(f"class {label}\n" for label in range(CLASSES)))
    (home / "wds" / "zeroshot_classification_templates.txt").write_text("a photo of {c}.\n")


def photograph(home: Path, number: int, rng: "Generator", tar: tarfile.TarFile) -> None:
    """One image in its class folder, and in a tar with its label."""
    import numpy as np
    from PIL import Image

    label = number % CLASSES
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
    noisy = np.clip(np.asarray(coarse) + rng.normal(0, 8, (375, 500, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noisy).save(stream, "JPEG", quality=90)
    path = home / "folders" / f"class {label}" / f"{number:06}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    for ending, content in (("jpg", stream.getvalue()), ("cls", str(label).encode())):
        member = tarfile.TarInfo(f"{number:06}.{ending}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def model(path: str, name: str) -> None:
    """An untrained model of open_clip's, seeded."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    state = open_clip.create_model(name).state_dict()
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)


def wise(
    checkpoint: str, name: str, folder: str, batch_size: str, workers: str, precision: str, device: str, **more: Any
) -> None:
    """The tool, from Python, on the tars; nothing from its cache unless `more` says so."""
    import open_clip  # noqa: F401 as the others import it, before the clock starts

    from mergekit_wise.api.evaluate import evaluate

    began = time.perf_counter()
    found = evaluate(
        checkpoint,
        f"{folder}/wds",
        model=name,
        batch_size=int(batch_size),
        workers=int(workers),
        precision=precision,
        device=device,
        **{"cache": False} | more,
    )
    (record,) = found.records
    report(time.perf_counter() - began, record.correct)


def again(*words: str) -> None:
    """The tool with many templates, which may find zero-shot head and images in its cache."""
    wise(*words, templates="openai", cache=True, cache_images=True)


def first(*words: str) -> None:
    """The same without a cache."""
    wise(*words, templates="openai")


def loop(checkpoint: str, name: str, folder: str, batch_size: str, workers: str, precision: str, device: str) -> None:
    """The script that everybody writes: open_clip's model and transform, torchvision's folder, torch's loader."""
    import open_clip
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    began, correct = time.perf_counter(), 0
    network, _, transform = open_clip.create_model_and_transforms(name, pretrained=checkpoint)
    network.eval().to(device)
    images = ImageFolder(f"{folder}/folders", transform)
    loader = DataLoader(images, int(batch_size), num_workers=int(workers))
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        head = open_clip.build_zero_shot_classifier(
            network, open_clip.get_tokenizer(name), images.classes, ["a photo of {}.".format], device=device
        )
        for inputs, labels in loader:
            logits = network.encode_image(inputs.to(device), normalize=True) @ head
            correct += int((logits.argmax(1).cpu() == labels).sum())
    report(time.perf_counter() - began, correct)


def clip_benchmark(
    checkpoint: str, name: str, folder: str, batch_size: str, workers: str, precision: str, device: str
) -> None:
    """CLIP_benchmark's own functions on the tars, called as its command line calls them."""
    import torch
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification
    from clip_benchmark.models import load_clip

    began = time.perf_counter()
    network, transform, tokenizer = load_clip(
        model_type="open_clip", model_name=name, pretrained=checkpoint, cache_dir=None, device=device
    )
    network.eval()
    dataset = build_dataset("wds/bench", f"{folder}/wds", transform, split="test")
    loader = torch.utils.data.DataLoader(dataset.batched(int(batch_size)), batch_size=None, num_workers=int(workers))
    found = zeroshot_classification.evaluate(
        network, loader, tokenizer, dataset.classes, dataset.templates, device, amp=precision == "bf16"
    )
    seconds = time.perf_counter() - began
    images = sum(1 for _ in Path(folder, "folders").rglob("*.jpg"))
    report(seconds, round(found["acc1"] * images))


def decoding(folder: str) -> None:
    """The tool's images at the model's size, without a model."""
    import numpy as np

    from mergekit_wise.datasets.own_folders import open_folder
    from mergekit_wise.evaluation.image_batches import decoded
    from mergekit_wise.models.transform import Preprocess

    dataset = open_folder(Path(folder, "folders"))
    began = time.perf_counter()
    batches = np.split(np.arange(len(dataset)), range(128, len(dataset), 128))
    count = sum(len(batch.indices) for batch in decoded(dataset, Preprocess(), batches, 128, workers=0, hold=1))
    report(time.perf_counter() - began, count)


def loading(folder: str) -> None:
    """The same by torchvision's folder and open_clip's transform, without its last step, which normalises."""
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, PILToTensor

    steps = image_transform_v2(PreprocessCfg(), is_train=False).transforms[:-2]
    images = ImageFolder(f"{folder}/folders", Compose([*steps, PILToTensor()]))
    began = time.perf_counter()
    count = sum(1 for pixels, _ in images if pixels.shape == (3, 224, 224))
    report(time.perf_counter() - began, count)


def report(seconds: float, correct: int) -> None:
    """In the words that ``contest.py`` reads."""
    print(f"\nseconds {seconds:.4f}\nresult {correct} right")


if __name__ == "__main__":
    contestants = (data, model, wise, again, first, loop, clip_benchmark, decoding, loading)
    {contestant.__name__: contestant for contestant in contestants}[sys.argv[1]](*sys.argv[2:])
