"""Images of every format and depth become 8 bits RGB: as Pillow and torchvision read them, or scaled, or refused."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin
from torchvision.datasets.folder import pil_loader

from mergekit_wise.datasets.decoding import decode, pixel_limit
from mergekit_wise.datasets.image_formats import BY_ENDING, EXTENSIONS, FORMATS, supported
from mergekit_wise.errors import SuiteError


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def ramp(mode="RGB", side=32):
    pixels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) % 251
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


# Each format that Pillow writes, with an ending, and the mode that it can hold.
WRITTEN = [
    *(("JPEG", "jpg", "RGB"), ("PNG", "png", "RGB"), ("WEBP", "webp", "RGB"), ("BMP", "bmp", "RGB")),
    *(("GIF", "gif", "P"), ("PPM", "ppm", "RGB"), ("TIFF", "tif", "RGB"), ("AVIF", "avif", "RGB")),
    *(("JPEG2000", "jp2", "RGB"), ("ICO", "ico", "RGBA"), ("ICNS", "icns", "RGBA"), ("QOI", "qoi", "RGB")),
    *(("DDS", "dds", "RGB"), ("SGI", "sgi", "RGB"), ("BLP", "blp", "P"), ("MSP", "msp", "1"), ("TGA", "tga", "RGB")),
    *(("DIB", "dib", "RGB"), ("PCX", "pcx", "RGB"), ("XBM", "xbm", "1")),
]


@pytest.mark.parametrize(("kind", "ending", "mode"), WRITTEN, ids=[kind for kind, _, _ in WRITTEN])
def test_a_format_is_decoded_as_torchvisions_loader_does(kind, ending, mode, tmp_path):
    """The pixels are those of Pillow, which the loader uses."""
    data = encoded(ramp(mode), kind)
    path = tmp_path / f"x.{ending}"
    path.write_bytes(data)
    assert f".{ending}" in EXTENSIONS
    assert np.array_equal(np.asarray(decode(data, str(path))), np.asarray(pil_loader(str(path))))


def test_every_format_of_pillow_is_read_or_left_out_on_purpose():
    """A format that a new Pillow adds fails this test until it is listed, or left out with a reason."""
    left_out = {
        *("EPS", "IPTC", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "FITS", "MCIDAS", "SPIDER", "IM", "IMT"),
        *("FPX", "MIC"),  # registered only where olefile is installed
    }
    read = {*supported(), *BY_ENDING.values()}
    assert not read & left_out
    assert set(Image.OPEN) - left_out == read
    assert set(supported()) == set(FORMATS)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "MPO", "PNG", "AVIF"])
def test_the_first_of_several_frames_is_taken(kind):
    """Photos of phones (MPO), animations and stacks show their first frame."""
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(decode(data, "x")).reshape(-1, 3).mean(0)
    assert red > 240
    assert max(green, blue) < 15


# Images of more than 8 bits

GREYS = np.array([[0, 1, 254, 255]], np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
def test_16_bits_are_scaled(kind):
    """A grey image with every value repeated in the second byte is the 8-bit image; torchvision's loader clips it."""
    deep = Image.fromarray(GREYS.astype(np.uint16) * 257)
    assert np.asarray(decode(encoded(deep, kind), "x"))[..., 0].tolist() == GREYS.tolist()


def test_16_bit_colours_and_greys_agree():
    """Grey as one 16-bit channel and as three give the same pixels."""
    values = np.arange(0, 65536, 97, dtype=np.uint16).reshape(26, 26)
    grey = decode(encoded(Image.fromarray(values), "TIFF"), "x")
    header = b"P6 26 26 65535\n"
    colours = decode(header + np.repeat(values[..., None], 3, -1).astype(">u2").tobytes(), "x.ppm")
    difference = np.abs(np.asarray(grey).astype(int) - np.asarray(colours).astype(int))
    assert difference.max() <= 1


def tiff(values, **tags):
    """A TIFF file with these tags besides those that Pillow writes."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for number, value in tags.items():
        info[int(number[1:])] = value
    return encoded(Image.fromarray(values), "TIFF", tiffinfo=info)


def test_a_deep_image_whose_zero_is_white_is_turned_around():
    """The photometric interpretation of TIFF holds for 16 bits as for 8."""
    data = bytearray(encoded(Image.fromarray(GREYS.astype(np.uint16) * 257), "TIFF"))
    entry = data.index((262).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[entry + 8] = 0
    assert np.asarray(decode(bytes(data), "x"))[..., 0].tolist() == (255 - GREYS).tolist()


@pytest.mark.parametrize("kind", ["TIFF", "PPM"])
def test_fractions_are_scaled(kind):
    """Floating-point values from 0 to 1 become 0 to 255, rounded."""
    values = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
    assert np.asarray(decode(encoded(Image.fromarray(values), kind), "x"))[..., 0].tolist() == [[0, 64, 128, 255]]


def test_a_range_that_the_file_states_is_used():
    """TIFF's tags of the smallest and the largest sample say what black and white are."""
    data = tiff(np.array([[-10.0, 0.0, 10.0]], np.float32), _340=-10.0, _341=10.0)
    assert np.asarray(decode(data, "x"))[..., 0].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0.0, 300.0]], np.float32),
        np.array([[-0.5, 0.5]], np.float32),
        np.array([[0.5, np.nan]], np.float32),
        np.array([[0.5, np.inf]], np.float32),
        np.array([[0, 70000]], np.int32),
        np.array([[0, 255]], np.int32),
    ],
)
def test_a_range_that_is_not_known_is_refused(values):
    """Neither NaN nor numbers without a white become black or white; the sentence names the file."""
    with pytest.raises(SuiteError, match=r"^a\.tif: .*(fractions|whole numbers).* 8 or 16 bits"):
        decode(encoded(Image.fromarray(values), "TIFF"), "a.tif")


@pytest.mark.parametrize("mode", ["CMYK", "LA", "RGBA", "P", "1", "L"])
def test_ordinary_modes_are_those_of_torchvision(mode, tmp_path):
    """Also a palette with transparency is converted as torchvision's loader does."""
    path = tmp_path / "x.tif"
    options = {} if mode != "P" else {"transparency": 3}
    kind = "PNG" if mode in ("P", "LA") else "TIFF"
    path.write_bytes(encoded(ramp(mode), kind, **options))
    assert np.array_equal(np.asarray(decode(path.read_bytes(), "x")), np.asarray(pil_loader(str(path))))


# What is refused


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "HEIC.*pillow-heif"),
        (b"\xff\x0a" + bytes(50), "JPEG XL.*djxl"),
        (b"\n<!DOCTYPE html><title>Sign in</title>", "web page"),
        (b"%PDF-1.7" + bytes(50), "cannot be decoded"),
    ],
)
def test_what_else_has_the_name_of_an_image_is_said(data, words):
    """A photo of a phone with another ending, a newer format, and a server's answer are named."""
    with pytest.raises(SuiteError, match=rf"^a\.jpg: .*{words}"):
        decode(data, "a.jpg")


def test_a_format_without_a_mark_is_only_tried_by_its_ending():
    """Bytes that could be a Targa image are one in x.tga alone."""
    data = encoded(ramp(), "TGA")
    assert decode(data, "x.tga").size == (32, 32)
    with pytest.raises(SuiteError, match="no known format"):
        decode(data, "x.jpg")


@pytest.mark.parametrize("side", [1000, 2000])
def test_the_limit_of_pixels_can_be_raised_as_the_message_says(side):
    """The number in the message is enough; the limit of the surrounding program is as before."""
    data, before = encoded(Image.new("L", (side, side)), "PNG"), Image.MAX_IMAGE_PIXELS
    with pixel_limit(800_000), pytest.raises(SuiteError, match="limit of 800,000 pixels.*--max-pixels") as caught:
        decode(data, "x.png")
    enough = int(str(caught.value).split("--max-pixels ")[1].rstrip("."))
    with pixel_limit(enough):
        assert decode(data, "x.png").size == (side, side)
    assert before == Image.MAX_IMAGE_PIXELS


def test_an_icon_with_a_huge_picture_is_refused():
    """The picture inside an icon is larger than its header says."""
    picture = encoded(Image.new("L", (3000, 3000)), "PNG")
    header = b"\0\0\1\0\1\0" + bytes([16, 16, 0, 0, 1, 0, 32, 0])
    data = header + len(picture).to_bytes(4, "little") + (22).to_bytes(4, "little") + picture
    message = r"(9,000,000|3,000 x 3,000) pixels .*--max-pixels 9000000"
    for most in (5_000_000, 2_000_000):
        with (
            pixel_limit(most),
            pytest.raises(SuiteError, match=message),
        ):
            decode(data, "x.ico")
