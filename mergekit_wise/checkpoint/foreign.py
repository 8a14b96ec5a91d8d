"""What a file or folder is that is no checkpoint of a readable format, by its content, and what to give instead.

Consulted only after every reader has refused a file: the answers are for people, and some are guesses by a few bytes.
"""

import re
from collections.abc import Callable
from pathlib import Path

from mergekit_wise.checkpoint.mapped import MappedFile
from mergekit_wise.wording import listed, plural, shown

HEAD = 4096
"""Bytes at the start of a file that are looked at."""

MAX_MEMBERS = 100_000
"""Files of an archive that are looked at."""

CHECKPOINTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")

ORIGINAL = "Give the PyTorch or safetensors checkpoint that it was made from."


def foreign_file(file: MappedFile) -> str | None:
    """What a file is, and what to give instead, in sentences; None if it is not known."""
    head = file.bytes_at(0, HEAD)
    path = str(file.path)
    if head.startswith(b"PK\x03\x04"):
        return _zip(file)
    for starts, what in STARTS:
        if head.startswith(starts):
            return what.replace("FILE", path)
    if head[257:262] == b"ustar":
        return f"a tar archive. Unpack it, and give the checkpoint in it: tar -xf {path}"
    if b"joblib.numpy_pickle" in head:
        return (
            f'a file that joblib wrote. Convert it: python -c "import joblib, torch; '
            f"torch.save({{k: torch.as_tensor(v) for k, v in joblib.load('{path}').items()}}, 'OUT.pt')\""
        )
    return next((text for kind in GUESSES if (text := kind(head, path))), None)


def foreign_folder(folder: Path) -> str | None:
    """What a folder without weights of a readable format is, and what to give instead; None if it is not known."""
    names = sorted(path.name for path in folder.iterdir())
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        return (
            "a distributed checkpoint of PyTorch (DCP). Convert it to one file: "
            f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} OUT.pt"
        )
    if "zero_to_fp32.py" in names:
        return (
            "a checkpoint of DeepSpeed, whose weights are spread over the processes. Convert it: "
            f"python {folder / 'zero_to_fp32.py'} {folder} OUT"
        )
    if "saved_model.pb" in names:
        return f"a SavedModel of TensorFlow. {ORIGINAL}"
    if any(name.endswith(".index") and f"{name[:-6]}.data-00000-of-" in "\n".join(names) for name in names):
        return f"a checkpoint of TensorFlow. {ORIGINAL}"
    if "_CHECKPOINT_METADATA" in names or "_METADATA" in names or "manifest.ocdbt" in names:
        return f"a checkpoint of Orbax (JAX). {ORIGINAL}"
    if "adapter_config.json" in names:
        return "an adapter (LoRA), not a whole model. Merge it into its base model first, and give the result."
    return None


LFS = (
    "a pointer of Git LFS: the file itself was not downloaded. Run 'git lfs pull' in the repository, or download the "
    "file from the hub's website."
)
PAGE = (
    "a web page, not a checkpoint: the download was answered with a page. Download the file again; on the Hugging "
    "Face hub its address contains /resolve/, not /blob/."
)
COMPRESSED = "a file compressed with {}. Unpack it, and give what is in it: {}"

STARTS: tuple[tuple[bytes | tuple[bytes, ...], str], ...] = (
    (b"version https://git-lfs.github.com/spec/", LFS),
    (b"GGUF", f"a GGUF file (llama.cpp). {ORIGINAL}"),
    (b"ggml", f"a GGML file. {ORIGINAL}"),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file (Keras, TensorFlow). Give PyTorch or safetensors weights, or convert it: "
        "python -c \"import h5py, torch; s = {}; h5py.File('FILE').visititems(lambda n, d: s.update({n.replace('/', "
        "'.'): torch.from_numpy(d[()])}) if isinstance(d, h5py.Dataset) else None); torch.save(s, 'OUT.pt')\"",
    ),
    (b"\x93NUMPY", "a single NumPy array, without a name. Save the model's state dict with torch.save."),
    (b"\x1f\x8b", COMPRESSED.format("gzip", "gzip -d FILE")),
    (b"\x28\xb5\x2f\xfd", COMPRESSED.format("zstd", "zstd -d FILE")),
    (b"\xfd7zXZ\x00", COMPRESSED.format("xz", "xz -d FILE")),
    (b"BZh", COMPRESSED.format("bzip2", "bzip2 -d FILE")),
    (b"7z\xbc\xaf\x27\x1c", COMPRESSED.format("7-Zip", "7z x FILE")),
    (b"Rar!\x1a\x07", COMPRESSED.format("RAR", "unrar x FILE")),
    (b"%PDF-", "a PDF document, not a checkpoint. Give the path of a checkpoint."),
    ((b"\x89PNG", b"\xff\xd8\xff", b"GIF8"), "an image, not a checkpoint. Give the path of a checkpoint."),
    (b"TFL3", f"a model of TensorFlow Lite. {ORIGINAL}"),
    (b"\x7fELF", "a program, not a checkpoint. Give the path of a checkpoint."),
)
"""How files begin that are known by their first bytes, and what they are; FILE stands for the path."""


def _page(head: bytes, path: str) -> str | None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:200].lower()
    if not _is_text(head):
        return None
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return PAGE
    if start.startswith(b"<?xml") or re.match(rb"<[a-z][\w:]*[ >]", start):
        return PAGE if b"<html" in start else f"an XML document, not a checkpoint: {_text(head)}. {DOWNLOAD}"
    return None


DOWNLOAD = "If it was downloaded, this is the server's answer instead of the file: check the address."


def _json(head: bytes, path: str) -> str | None:
    if head.lstrip()[:1] not in (b"{", b"[") or not _is_text(head):
        return None
    if b'"weight_map"' in head:
        return "an index of shards, where a file of weights was expected. Give the path of the index."
    if any(key in head for key in CONFIGURATION):
        return "a configuration (JSON), not weights. Give the folder that it is in, or the file of the weights."
    return f"JSON, but no index of shards (weight_map): {_text(head)}. {DOWNLOAD}"


def _tensorflow_or_onnx(head: bytes, path: str) -> str | None:
    """Both are protocol buffers that start with a small number under tag 1; TensorFlow's is always 1."""
    if len(head) < 3 or head[0] != 8 or head[2] not in (0x12, 0x1A, 0x22, 0x32, 0x3A, 0x42):
        return None
    if head[1] == 1:
        return f"a SavedModel of TensorFlow. {ORIGINAL}"
    return f"an ONNX model. {ORIGINAL}" if 2 <= head[1] <= 40 else None


def _msgpack(head: bytes, path: str) -> str | None:
    """A map whose first key is a short text."""
    fixed = len(head) > 2 and 0x81 <= head[0] <= 0x8F and 0xA1 <= head[1] <= 0xBF
    large = len(head) > 4 and head[0] == 0xDE and 0xA1 <= head[3] <= 0xBF
    if not fixed and not large:
        return None
    at = 1 if fixed else 3
    key = head[at + 1 : at + 1 + (head[at] & 0x1F)]
    if not key.isascii() or not key.decode("ascii").isprintable():
        return None
    return (
        "a msgpack file (Flax, JAX). Give PyTorch or safetensors weights, or convert it: "
        'python -c "import flax; from safetensors.flax import save_file; save_file(flax.traverse_util.flatten_dict('
        f"flax.serialization.msgpack_restore(open('{path}', 'rb').read()), sep='.'), 'OUT.safetensors')\""
    )


def _old_pickle(head: bytes, path: str) -> str | None:
    """Protocols 0 and 1, which have no mark of their own: a dictionary or a call at the start."""
    if not re.match(rb"(\(dp\d|\(d?\]?q|\}q|\(lp\d|\]q|c\w[\w.]*\n\w[\w.]*\n|ccopy_reg\n)", head):
        return None
    return (
        "a pickle of protocol 0 or 1, which is not supported. If you trust the file, save the weights again: "
        f"python -c \"import pickle, torch; torch.save(pickle.load(open('{path}', 'rb')), 'OUT.pt')\""
    )


def _zlib(head: bytes, path: str) -> str | None:
    if head[:1] != b"\x78" or len(head) < 2 or int.from_bytes(head[:2]) % 31:
        return None
    return (
        f'a file compressed with zlib (joblib?). Convert it: python -c "import joblib, torch; '
        f"torch.save({{k: torch.as_tensor(v) for k, v in joblib.load('{path}').items()}}, 'OUT.pt')\""
    )


def _plain_text(head: bytes, path: str) -> str | None:
    if not head.strip() or not _is_text(head):
        return None
    return f"a text, not a checkpoint. It begins: {_text(head)}. {DOWNLOAD}"


CONFIGURATION = (b'"model_type"', b'"architectures"', b'"model_cfg"', b'"pretrained_cfg"', b'"_class_name"')
"""Keys of configurations of transformers, open_clip, timm and diffusers."""

GUESSES: tuple[Callable[[bytes, str], str | None], ...] = (
    _page,
    _json,
    _tensorflow_or_onnx,
    _msgpack,
    _old_pickle,
    _zlib,
    _plain_text,
)


def _is_text(head: bytes) -> bool:
    """Whether the bytes are UTF-8 without control characters; the last character may be cut."""
    text = head.decode("utf-8", "replace")
    return "\ufffd" not in text[:-1] and not any(letter < " " and letter not in "\t\r\n\f" for letter in text)


def _text(head: bytes) -> str:
    """The first line of a text, quoted."""
    return repr(shown(" ".join(head.decode("utf-8", "replace").split()), 80))


TORCH_SAVE = frozenset(("data.pkl", ".format_version", ".storage_alignment"))
"""Files of an archive that only torch.save writes; one without data.pkl is damaged."""


def _zip(file: MappedFile) -> str | None:
    """A zip archive that torch.save did not write; None if it may have, or if its directory is missing."""
    import zipfile  # what files that can be read do without

    path = file.path
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:MAX_MEMBERS]
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile, EOFError):
        return None
    last = {name.rpartition("/")[2] for name in names}
    if last & TORCH_SAVE:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return (
            f'NumPy arrays (.npz). Convert it: python -c "import numpy, torch; torch.save('
            f"{{k: torch.from_numpy(v) for k, v in numpy.load('{path}').items()}}, 'OUT.pt')\""
        )
    if "archive_format" in last or "serialized_exported_program.json" in last:
        return (
            f'an exported program (torch.export). Convert it: python -c "import torch; '
            f"torch.save(torch.export.load('{path}').state_dict, 'OUT.pt')\""
        )
    if "model.weights.h5" in last:
        return f"a Keras model. {ORIGINAL}"
    inside = [name for name in names if name.endswith(CHECKPOINTS)]
    if inside:
        return f"a zip archive with {listed(map(shown, inside), 3)} in it. Unpack it, and give the file: unzip {path}"
    return (
        f"a zip archive of {plural(len(names), 'file')} ({listed(map(shown, names), 3)}), without a checkpoint in it."
    )
