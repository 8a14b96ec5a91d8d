"""The preprocessing of torchvision's pretrained weights, which their file names tell: resnet50-11ad3fa6.pth.

Several weights of one architecture have different preprocessing, and timm's weights of the same architecture another
one. Knows only networks whose tensors have the same names in timm. Reads no file.
"""

import re
from math import floor
from typing import Any

_NAME = re.compile(r"((?:wide_resnet|resnext|resnet)\w+)-[0-9a-f]{8}\.pth")


def torchvision_settings(file_name: str) -> tuple[str, dict[str, Any], str] | None:
    """Timm's architecture and ``pretrained_cfg`` of a file of torchvision's, and the name of the weights.

    None if the name is not that of weights of torchvision's.
    """
    found = _NAME.fullmatch(file_name)
    if found is None:
        return None
    from torchvision.models import get_model_weights, list_models

    if found[1] not in list_models():
        return None
    for weights in get_model_weights(found[1]):
        if weights.url.endswith(f"/{file_name}"):
            preset = weights.transforms()
            (crop,), (edge,) = preset.crop_size, preset.resize_size
            share = crop / edge if floor(crop / (crop / edge)) == edge else crop / (edge + 0.5)
            settings = {
                "input_size": [3, crop, crop],
                "interpolation": preset.interpolation.value,
                "mean": list(preset.mean),
                "std": list(preset.std),
                "crop_pct": share,
                "crop_mode": "center",
            }
            return found[1], settings, str(weights)
    return None
