"""How files of torch and of pickle begin. Apart from their readers, which other files do without."""

from mergekit_wise.checkpoint.mapped import MappedFile

MAGIC = 0x1950A86A20F9469CFC6C
"""The number with which ``torch.save`` began before version 1.6."""

START = b"\x80\x02\x8a\n" + MAGIC.to_bytes(10, "little") + b"."
"""The first of that version's five pickles, as torch writes it."""


def looks_like_zip(file: MappedFile) -> bool:
    """Whether the file starts like a zip archive."""
    return file.bytes_at(0, 4) == b"PK\x03\x04"


def looks_like_old_save(file: MappedFile) -> bool:
    """Whether the file starts with torch's magic number, pickled."""
    return file.bytes_at(0, len(START)) == START


def looks_like_pickle(file: MappedFile) -> bool:
    """Whether the file starts as pickles of protocol 2 and later do."""
    start = file.bytes_at(0, 2)
    return start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")
