"""Web pages saved in place of a file: a server's answer to a wrong address, or to a download without a login."""

import re
from pathlib import Path

from mergekit_wise.errors import SuiteError

HEAD_BYTES = 256
"""The number of first bytes by which a page is recognised."""

_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE)


def is_web_page(head: bytes) -> bool:
    """Whether a file with the first bytes `head` is a web page."""
    return _PAGE.match(head) is not None


def refuse_web_page(path: Path | str) -> None:
    """Raise SuiteError if `path` is a web page. A file that cannot be read is left to the caller."""
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return
    if is_web_page(head):
        raise SuiteError(
            f"{path}: is a web page that was saved in place of the file. Download the file again, if need be with a "
            "browser that is logged in."
        )
