"""Classification sets of CLIP_benchmark as tars from the Hugging Face hub: VTAB's, and others of DataComp's 38.

Source: https://huggingface.co/clip-benchmark; Zhai et al. 2019 (arXiv 1910.04867); Gadre et al. 2023 (arXiv
2304.14108), whose metrics these are. Each is named after its repository; class names and templates are those of its
text files. Retrieval sets, sets with several labels an image, and ImageNet-O, whose metric needs more than predicted
classes, are not among them.
"""

from functools import partial
from pathlib import Path
from typing import Literal

from mergekit_wise.datasets.dataset import Dataset, Entry, Metric
from mergekit_wise.datasets.own_folders import Description, open_folder
from mergekit_wise.datasets.webdataset import has_tars
from mergekit_wise.errors import SuiteError

_PER_CLASS: Literal["mean-per-class"] = "mean-per-class"

METRICS: dict[str, Literal["top-1", "mean-per-class"]] = {
    "wds_vtab-caltech101": _PER_CLASS,
    "wds_vtab-flowers": _PER_CLASS,
    "wds_vtab-pets": _PER_CLASS,
    "wds_fgvc_aircraft": _PER_CLASS,
    "wds_vtab-clevr_closest_object_distance": "top-1",
    "wds_vtab-clevr_count_all": "top-1",
    "wds_vtab-diabetic_retinopathy": "top-1",
    "wds_vtab-dmlab": "top-1",
    "wds_vtab-dsprites_label_orientation": "top-1",
    "wds_vtab-dsprites_label_x_position": "top-1",
    "wds_vtab-eurosat": "top-1",
    "wds_vtab-kitti_closest_vehicle_distance": "top-1",
    "wds_vtab-pcam": "top-1",
    "wds_vtab-resisc45": "top-1",
    "wds_vtab-smallnorb_label_azimuth": "top-1",
    "wds_vtab-smallnorb_label_elevation": "top-1",
    "wds_vtab-svhn": "top-1",
    "wds_country211": "top-1",
    "wds_fer2013": "top-1",
    "wds_gtsrb": "top-1",
    "wds_mnist": "top-1",
    "wds_renderedsst2": "top-1",
    "wds_stl10": "top-1",
    "wds_voc2007": "top-1",
}
"""The metric of each data set, by the name of its repository."""

_TITLES = {
    "caltech101": "Caltech-101",
    "flowers": "Flowers-102",
    "pets": "Oxford-IIIT Pets",
    "fgvc_aircraft": "FGVC Aircraft",
    "eurosat": "EuroSAT",
    "pcam": "PatchCamelyon",
    "resisc45": "RESISC45",
    "svhn": "SVHN",
    "country211": "Country211",
    "fer2013": "FER2013",
    "gtsrb": "GTSRB",
    "mnist": "MNIST",
    "renderedsst2": "Rendered SST-2",
    "stl10": "STL-10",
    "voc2007": "VOC 2007",
    "dmlab": "DMLab",
    "clevr_closest_object_distance": "CLEVR distance",
    "clevr_count_all": "CLEVR count",
    "diabetic_retinopathy": "Diabetic retinopathy",
    "dsprites_label_orientation": "dSprites orientation",
    "dsprites_label_x_position": "dSprites location",
    "kitti_closest_vehicle_distance": "KITTI distance",
    "smallnorb_label_azimuth": "SmallNORB azimuth",
    "smallnorb_label_elevation": "SmallNORB elevation",
}


def _find(name: str, root: Path) -> Dataset | None:
    """The tars in the first place that has some. Raises SuiteError if the class names are missing."""
    place = next((root / place for place in _places(name) if has_tars(root / place)), None)
    if place is None:
        return None
    if not (place / "classnames.txt").is_file():
        raise SuiteError(f"{place}: expected the class names in classnames.txt. Run: wise data fetch {name}")
    return open_folder(place, Description(name, _title(name), metric=Metric(METRICS[name])))


def _places(name: str) -> tuple[str, ...]:
    tail = name.removeprefix("wds_")
    return (name, f"wds/{tail}", f"wds/{tail.replace('vtab-', 'vtab/')}", f"clip-benchmark/{name}")


def _title(name: str) -> str:
    return _TITLES[name.removeprefix("wds_").removeprefix("vtab-")]


ENTRIES = tuple(
    Entry(
        name,
        _title(name),
        partial(_find, name),
        tuple(dict.fromkeys(_places(name))),
        None,
        "Tars from the Hugging Face hub: wise data fetch NAME.",
    )
    for name in METRICS
)
