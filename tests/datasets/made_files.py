"""Images, tars and class folders that tests of layouts are made of."""

import io
import tarfile

from PIL import Image


def encoded(value=0, form="PNG"):
    """The bytes of a small image of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(buffer, form)
    return buffer.getvalue()


def write_image(path, value=0):
    """Write a small PNG, whatever the ending of `path`, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(value))


def write_classes(root, *folders):
    """Write one image into each class folder; its colour is the position of the folder."""
    for number, folder in enumerate(folders):
        write_image(root / folder / "0.png", number)
    return root


def write_tar(path, *members):
    """Write a tar of (name, content) pairs, where a text or a number stands for its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            data = content if isinstance(content, bytes) else str(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def reds(dataset):
    """The red value of each image, which `encoded` was given."""
    return [dataset.image(index).getpixel((0, 0))[0] for index in range(len(dataset))]
