"""Write a checkpoint under the tensor names of another library."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mergekit_wise.api.result_object import ResultObject
from mergekit_wise.checkpoint import (
    Checkpoint,
    closing,
    plan_output,
    refuse_overwriting,
    require_folder,
    write_atomically,
    writing_output,
)
from mergekit_wise.checkpoint.folder import OPEN_CLIP as OPEN_CLIP_PREFIX
from mergekit_wise.checkpoint.folder import OPEN_CLIP_JSON
from mergekit_wise.checkpoint.writing import writing_folder
from mergekit_wise.errors import ModelError
from mergekit_wise.merging import blocks
from mergekit_wise.models.architecture import (
    CONFIG_KEY,
    ResolvedConfig,
    declared_config,
    declared_preprocessing,
    named_config,
    resolve_config,
)
from mergekit_wise.models.families import (
    HF_CLIP,
    HF_SIGLIP,
    HF_VISION,
    OPEN_CLIP,
    OPEN_CLIP_SIGLIP,
    OPEN_CLIP_TEXT,
    TIMM_SIGLIP,
    Family,
    layout_of,
    translated,
)
from mergekit_wise.models.huggingface_export import image_model_config, to_hugging_face
from mergekit_wise.models.huggingface_preprocessing import changes_when_written
from mergekit_wise.models.source import open_source
from mergekit_wise.option_types import takes
from mergekit_wise.options import ConvertOptions
from mergekit_wise.progress import Progress
from mergekit_wise.wording import fold_names, listed, plural

ELEMENTS_AT_ONCE = 1 << 22


@dataclass(frozen=True, slots=True, repr=False)
class ConvertReport(ResultObject):
    """The file or folder that was written, with its number of tensors and their bytes; and notes."""

    output: Path
    tensors: int
    size: int
    notes: tuple[str, ...]

    def _summary(self) -> str:
        return f"{self.output.name}, {plural(self.tensors, 'tensor')}, {self.size:,} bytes"


@takes(ConvertOptions)
def convert(options: ConvertOptions) -> ConvertReport:
    """Write the tensors of a checkpoint under open_clip's or Hugging Face's names; dtypes and values stay the same.

    If the name of the output has no ending, it is a folder that the library loads, with the model's configuration.
    Otherwise it is a file; its metadata holds open_clip's configuration, if the checkpoint declares it.

    Raises:
        CheckpointError: the input cannot be read.
        ModelError: its names are of no known family, or the other library has no class for such a model.
        OutputError: the output cannot be written, or is an input.
    """
    output = Path(options.output)
    require_folder(output)
    source = open_source(options.checkpoint, mmap=options.mmap)
    with closing(source):
        refuse_overwriting(output, tuple(file.path for file in source.files))
        converted = _converted(source, options.to)
        config = named_config(options.model) if options.model else _known_config(source, converted)
        notes = converted.notes
        if config is not None and not config.is_timm:
            if "/" not in (options.model or ""):
                config = _with_own_preprocessing(config, source)
            notes += changes_when_written(config.config["preprocess_cfg"], options.to if not output.suffix else "file")
        if output.suffix:
            metadata = _metadata(converted, config)
            if config is None:
                notes += ("the configuration is not known and was not written; later commands need --model",)
            _write(converted, output, metadata, options.progress)
        else:
            if config is None:
                raise ModelError(
                    f"{source.path}: does not say which architecture it holds, and a folder needs its configuration. "
                    "Name it with --model, or give -o the name of a file to write the tensors alone."
                )
            _require_complete(converted, options.to)
            with _folder(output, converted, config, options.to) as (weights, metadata):
                _write(converted, weights, metadata, options.progress)
        return ConvertReport(output, len(converted.tensors), converted.nbytes, notes)


def _converted(source: Checkpoint, to: str) -> Checkpoint:
    layout = layout_of(source.tensors)
    if layout is None:
        return translated(source, OPEN_CLIP)  # raises the error
    is_siglip = layout.family in (HF_SIGLIP, OPEN_CLIP_SIGLIP, TIMM_SIGLIP)
    families: dict[str, Family] = {
        "open_clip": OPEN_CLIP_SIGLIP if is_siglip else OPEN_CLIP,
        "hf": HF_SIGLIP if is_siglip else HF_CLIP,
    }
    family = OPEN_CLIP_TEXT if to == "open_clip" and layout.family is OPEN_CLIP_TEXT else families[to]
    if layout.family is HF_VISION and to == "hf":
        family = HF_VISION
    return translated(source, family)


def _require_complete(converted: Checkpoint, to: str) -> None:
    """Raise ModelError if the library could not load a folder with these tensors as one of its models."""
    layout = layout_of(converted.tensors)
    assert layout is not None
    advice = "Give -o the name of a file, ending in .safetensors, to write the tensors alone."
    if others := [name for name in converted.tensors if name not in layout.rows]:
        raise ModelError(
            f"{converted.path}: a folder for {layout.family.title} cannot hold {listed(fold_names(others))}, which its "
            f"models do not have. {advice}"
        )
    if to == "open_clip" and not _has_text(converted):
        raise ModelError(
            f"{converted.path}: has no text tower, and open_clip loads no folder with an image tower alone. {advice}"
        )


def _has_text(converted: Checkpoint) -> bool:
    return any(name.endswith("token_embedding.weight") for name in converted.tensors)


def _known_config(source: Checkpoint, converted: Checkpoint) -> ResolvedConfig | None:
    """The configuration that the source declares, or the only one of open_clip's that fits; None if there is none."""
    declared = declared_config(source)
    if declared is not None:
        return None if declared.is_timm else declared
    try:
        return resolve_config(converted)
    except ModelError:
        return None


def _with_own_preprocessing(config: ResolvedConfig, source: Checkpoint) -> ResolvedConfig:
    """The configuration with the preprocessing that a folder declares, although its architecture has to be named."""
    model_cfg = config.config["model_cfg"]
    own = declared_preprocessing(source, model_cfg["vision_cfg"].get("image_size", 224))
    if own is None:
        return config
    preprocess_cfg, name = own
    origin = config.source.partition("; preprocessing: ")[0]
    return ResolvedConfig(
        {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}, f"{origin}; preprocessing: {name}"
    )


def _metadata(converted: Checkpoint, config: ResolvedConfig | None) -> dict[str, str]:
    kept = {key: value for key, value in converted.metadata.items() if key != CONFIG_KEY}
    return {"format": "pt", **kept, **({CONFIG_KEY: json.dumps(config.with_source())} if config else {})}


@contextmanager
def _folder(
    output: Path, converted: Checkpoint, config: ResolvedConfig, to: str
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with configuration files; yields where the weights go, and their metadata."""
    if to == "hf":
        files = to_hugging_face(config.config)
        if not _has_text(converted):
            files["config.json"] = image_model_config(
                files["config.json"], has_projection="visual_projection.weight" in converted.tensors
            )
        with writing_folder(output, {}) as folder:
            for name, content in files.items():
                write_atomically(folder / name, json.dumps(content, indent=2) + "\n")
            yield folder / "model.safetensors", {"format": "pt"}
        return
    with writing_folder(output, {}) as folder:
        write_atomically(folder / OPEN_CLIP_JSON, json.dumps(dict(config.config), indent=2) + "\n")
        yield folder / f"{OPEN_CLIP_PREFIX}model.safetensors", _metadata(replace(converted, metadata={}), None)


def _write(checkpoint: Checkpoint, output: Path, metadata: dict[str, str], progress: Progress) -> None:
    plan = plan_output(output, (tensor.info for tensor in checkpoint.tensors.values()), metadata)
    done = 0
    with writing_output(plan) as sink:
        for info in plan.infos:
            spans = blocks(0, info.count, ELEMENTS_AT_ONCE) if info.count else ()
            for start, stop in spans:
                data = checkpoint.read(info.name, start, stop)
                sink.put(info.name, start * info.dtype.itemsize, data)
                checkpoint.forget(info.name, start, stop)
                done += data.nbytes
                progress("Converting", done, plan.size, "bytes")
