"""OpenAI's own CLIP models, and what others saved of them: always QuickGELU, always heads of 64 features.

Knows names and shapes alone.
"""

import re
from typing import Any

from mergekit_wise.checkpoint import Checkpoint
from mergekit_wise.models.facts import image_facts, text_facts
from mergekit_wise.models.names import HEAD, TEXT, TOWER, Reading

HEAD_WIDTH = 64


def openai_reason(checkpoint: Checkpoint, reading: Reading) -> str | None:
    """Why this is OpenAI's model, or was made from one; None if nothing shows that."""
    if reading.flavour == "OpenAI's CLIP":
        return "the kind of archive: OpenAI's CLIP, which uses QuickGELU"
    # FLYP keeps a CLIPEncoder in a module of this name, which may hold any model of open_clip's.
    if any(re.search(r"src\.models\.modeling\.Image(Classifier|Encoder)\b", note) for note in checkpoint.notes):
        return "the pickled class: the WiSE-FT authors' code, which knows OpenAI's CLIP alone, with QuickGELU"
    # model-soups wraps OpenAI's ViT-B/32, deletes the text transformer and keeps the tensors beside it.
    remains = {"text.token_embedding.weight", "text.ln_final.weight"} <= reading.shapes.keys()
    wraps = reading.prefix == "model." and f"{HEAD}weight" in checkpoint.tensors
    if wraps and remains and not any(name.startswith("text.transformer.") for name in reading.shapes):
        return "its names: the model-soups authors' code, which knows OpenAI's CLIP alone, with QuickGELU"
    return None


def openai_config(reading: Reading) -> dict[str, Any] | None:
    """open_clip's ``model_cfg`` of a model of OpenAI's, from its shapes; None if it is not shaped like one."""
    vision = image_facts(reading.part(TOWER))
    if vision is None:
        return None
    embed_dim = vision.pop("embed_dim")
    text = text_facts(reading.part(TEXT))
    whole = {"width", "layers", "vocab_size", "context_length"} <= text.keys()
    text_cfg = {**text, "heads": text["width"] // HEAD_WIDTH} if whole else {}
    return {"embed_dim": embed_dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text_cfg}
