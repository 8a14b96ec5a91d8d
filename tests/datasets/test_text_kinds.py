"""Whether images have labels or captions is seen from a table's header or the first sample of tars."""

import io
import tarfile

import pytest

from mergekit_wise.datasets.text_kinds import Texts, texts_at
from mergekit_wise.errors import SuiteError

LABELS, CAPTIONS, BOTH, NEITHER = Texts(labels=True), Texts(captions=True), Texts(True, True), Texts()


def save_tar(path, **members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for ending, content in members.items():
            info = tarfile.TarInfo(f"000.{ending}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path,label\na.jpg,3\n", LABELS),
        ("filepath\ttitle\na.jpg\ta dog\n", CAPTIONS),
        ("Path;Caption;Class\na.jpg;a dog;dog\n", BOTH),
        ("a.jpg,dog\nb.jpg,cat\n", BOTH),
        ("path,size\na.jpg,3\n", NEITHER),
    ],
)
def test_a_table_is_known_by_its_columns(text, found, tmp_path):
    """Whatever separates them; a table without names of columns may hold either."""
    (tmp_path / "x.csv").write_text(text)
    assert texts_at(tmp_path / "x.csv") == found


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"jpg": b"", "cls": b"3"}, LABELS),
        ({"jpg": b"", "cls": b"3", "txt": b"a dog"}, BOTH),
        ({"jpg": b"", "txt": b"a dog\na black dog"}, CAPTIONS),
        ({"jpg": b"", "txt": b"17\n"}, LABELS),
        ({"jpg": b"", "json": b'{"caption": "a dog", "key": "000"}'}, CAPTIONS),
        ({"jpg": b"", "json": b'{"label": 3}'}, LABELS),
        ({"jpg": b"", "json": b"3"}, LABELS),
        ({"jpg": b""}, NEITHER),
    ],
)
@pytest.mark.parametrize("place", ["0.tar", "tars/0.tar", "parts/train/0.tar"])
def test_tars_are_known_by_their_first_sample(members, found, place, tmp_path):
    """As one file, a folder of them, or parts; with class names beside them, they have labels."""
    path = save_tar(tmp_path / place, **members)
    top = tmp_path / place.partition("/")[0]
    assert texts_at(top) == found
    (path.parent / "classnames.txt").write_text("dog\ncat\n")
    assert texts_at(top) == LABELS


def test_other_places_have_neither(tmp_path):
    """Class folders and TOML files are opened as data sets with classes; JSON holds captions."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "x.toml").write_text("")
    (tmp_path / "x.json").write_text("{}")
    assert [texts_at(tmp_path / name) for name in ("", "x.toml", "x.json")] == [NEITHER, NEITHER, CAPTIONS]


def test_a_damaged_sample_is_named(tmp_path):
    """With the tar and the member."""
    with pytest.raises(SuiteError, match=r"x\.tar:000\.json: expected JSON"):
        texts_at(save_tar(tmp_path / "x.tar", jpg=b"", json=b"{"))
