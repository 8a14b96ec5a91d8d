"""Files on web servers, on the Hugging Face hub and in object stores, read by ranges. Knows no tar and no image.

Only the protocols in `PROTOCOLS` are followed: an address never leads to a local file, nor to a library that would
unpack or run what it finds. Every read checks that the file is still the one that was listed; of an object store, the
first read of each process does.
"""

import functools
import http.client
import importlib
import os
import re
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from mergekit_wise.datasets.addresses import shown
from mergekit_wise.errors import SuiteError
from mergekit_wise.wording import listed, plural

STORES = {"s3": "s3fs", "gs": "gcsfs"}
"""Protocols that fsspec reads, and the package that each needs."""

PROTOCOLS = ("https", "http", "hf", *STORES)
"""Protocols of the addresses that are read."""

MAX_FILES = 100_000
"""The most files that one address may stand for."""

_PAUSES = (0.5, 1.0, 2.0)
"""Seconds before each further attempt."""

_SECONDS = 60
"""How long a server may be silent."""

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)
_NUMERIC_HOST = re.compile(r"(?<=://)\[[0-9A-Fa-f:.]+\]")


class Range(NamedTuple):
    """Bytes of a file, the size of the whole file, and what changes with its content; empty if the server has none."""

    data: bytes
    size: int
    version: str


class _NotNow(Exception):
    """A failure that another attempt may overcome."""


class Absent(SuiteError):
    """There is no such file, or it is not shown to this user."""


def addresses(pattern: str) -> tuple[str, ...]:
    """The addresses that a pattern stands for: ``{000..012}`` is every number in between, with as many digits.

    Raises SuiteError if the protocol is not one of `PROTOCOLS`, if the braces hold anything else, or if it is no
    address that may be asked for.
    """
    protocol, chained = pattern.partition("://")[0].lower(), "::" in _NUMERIC_HOST.sub("", pattern)
    if protocol not in PROTOCOLS or chained:
        found = "a chain of protocols" if chained else f"the protocol {protocol!r}"
        raise SuiteError(
            f"{shown(pattern)}: has {found}. Data sets are read from {listed(f'{each}://' for each in PROTOCOLS)} "
            "addresses, or from local paths."
        )
    texts = _BRACES.split(pattern)
    spans = [_span(text, pattern) for text in texts[1::2]]
    count = functools.reduce(lambda total, span: total * len(span), spans, 1)
    if count > MAX_FILES:
        raise SuiteError(f"{shown(pattern)}: stands for {count:,} files; at most {MAX_FILES:,} are read.")
    every = tuple(
        texts[0] + "".join(number + text for number, text in zip(numbers, texts[2::2], strict=True))
        for numbers in product(*map(_texts, spans))
    )
    _require_plain_host(every[0])
    return every


def _require_plain_host(address: str) -> None:
    """Raise SuiteError for a host that cannot be one, or that follows a user's name and password."""
    try:
        parts = urllib.parse.urlsplit(address)
        named = parts.netloc
        if not named.encode("idna") or parts.port == 0:
            raise ValueError
    except ValueError as error:
        raise SuiteError(f"{shown(address)}: this is no valid address. Look at its host and its port.") from error
    if "@" in named:
        raise SuiteError(
            f"{shown(address)}: an address may hold no user name and no password. Give a signed address, or download "
            "the files and give their folder."
        )


class _Span(NamedTuple):
    first: int
    last: int
    digits: int

    def __len__(self) -> int:
        return self.last - self.first + 1


def _span(text: str, pattern: str) -> _Span:
    found = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if found is None or int(found[1]) > int(found[2]):
        raise SuiteError(
            f"{shown(pattern)}: expected two numbers in braces, the smaller one first, as in {{000..012}}, found "
            f"{{{text}}}."
        )
    return _Span(int(found[1]), int(found[2]), len(found[1]) if found[1].startswith("0") else 0)


def _texts(span: _Span) -> Iterator[str]:
    return (str(number).zfill(span.digits) for number in range(span.first, span.last + 1))


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address, with the size and the version that it had when it was found."""

    address: str
    size: int
    version: str

    @classmethod
    def find(cls, address: str) -> "RemoteFile":
        """Ask for the first byte. Raises Absent, or SuiteError if the server cannot be read by ranges."""
        found = read_range(address, 0, 1)
        return cls(address, found.size, found.version)

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes. Raises SuiteError if they cannot be read, or if the file is another one by now."""
        stop = min(offset + size, self.size)
        if stop <= offset:
            return b""
        found = read_range(self.address, offset, stop)
        if (found.size, found.version) != (self.size, self.version):
            raise SuiteError(
                f"{shown(self.address)}: has changed since it was listed, from {self.size:,} to {found.size:,} bytes. "
                "Run the same command again."
            )
        return found.data


def read_range(address: str, start: int, stop: int) -> Range:
    """The bytes from `start` to `stop`, or to the end of the file. Raises SuiteError; connections are tried again."""
    for pause in (*_PAUSES, None):
        try:
            if address.partition("://")[0].lower() in STORES:
                return _from_store(address, start, stop)
            return _from_web(address, start, stop)
        except _NotNow as error:
            if pause is None:
                raise SuiteError(
                    f"{shown(address)}: cannot be read: {error}. Tried {plural(len(_PAUSES) + 1, 'time')}; run the "
                    "same command again, or download the files and give their folder."
                ) from error
            time.sleep(pause)
    raise AssertionError


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirection from an encrypted connection to another, nor to any other protocol."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        protocol = newurl.partition(":")[0].lower()
        if protocol != "https" and protocol != req.type:
            raise SuiteError(
                f"{shown(req.full_url)}: leads to {shown(newurl)}, and is followed to {req.type}:// or https:// alone."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """Opens addresses of the web alone; urllib's own opener also opens local files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener


def _from_web(address: str, start: int, stop: int) -> Range:
    request = _request(address)
    request.add_header("Range", f"bytes={start}-{stop - 1}")
    request.add_header("Accept-Encoding", "identity")
    try:
        with _opener().open(request, timeout=_SECONDS) as response:
            if response.status != 206:
                raise SuiteError(
                    f"{shown(address)}: the server ignores the range of bytes that is asked for, so images cannot be "
                    "read one by one. Download the files and give their folder."
                )
            found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if found is None or int(found[1]) != start or int(found[3]) <= start:
                raise SuiteError(f"{shown(address)}: the server answers with another range than is asked for.")
            size = int(found[3])
            version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
            wanted = min(stop, size) - start
            data = response.read(wanted)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(address, error) from error
    except http.client.InvalidURL as error:  # its text holds the whole address
        raise SuiteError(f"{shown(address)}: this is no valid address, or leads to none.") from error
    except (OSError, http.client.HTTPException) as error:
        raise _NotNow(getattr(error, "reason", None) or error) from error
    except ValueError as error:  # of a redirection to what is no address
        raise SuiteError(f"{shown(address)}: this is no valid address, or leads to none.") from error
    if len(data) != wanted:
        raise _NotNow(f"the connection was cut after {len(data):,} of {wanted:,} bytes")
    return Range(data, size, version.removeprefix("W/"))


def _refusal(address: str, error: urllib.error.HTTPError) -> Exception:
    """What becomes of an answer of the server that is an error."""
    name = shown(address)
    if error.code == 416:
        return SuiteError(f"{name}: is empty, or shorter than when it was listed. Run the same command again.")
    if error.code in (404, 410):
        return Absent(f"{name}: the server has no such file (HTTP {error.code}). Look at the address.")
    if error.code in (401, 403):
        how = "'hf auth login' logs in to the hub" if address.startswith("hf://") else "a signed address may be over"
        return Absent(f"{name}: the server does not let you read it (HTTP {error.code}); {how}.")
    if error.code == 429 or error.code >= 500:
        return _NotNow(f"the server answers with HTTP {error.code}")
    return SuiteError(f"{name}: the server answers with HTTP {error.code}. Look at the address.")


def _request(address: str) -> urllib.request.Request:
    """The request for an address; those on the hub carry the user's token, which no redirection gets."""
    if not address.lower().startswith("hf://"):
        return urllib.request.Request(_in_ascii(address))
    from huggingface_hub import constants, get_token

    found = re.fullmatch(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)", address, re.IGNORECASE)
    if found is None:
        raise SuiteError(
            f"{address}: expected a file of a data set on the hub, as in hf://datasets/OWNER/NAME/test/0.tar."
        )
    if constants.HF_HUB_OFFLINE:
        raise SuiteError(
            f"{address}: HF_HUB_OFFLINE is set, so nothing is read from the hub. Unset it, or download the files and "
            "give their folder."
        )
    name, revision, path = (urllib.parse.quote(part) for part in (found[1], found[2] or "main", found[3]))
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT
    request = urllib.request.Request(f"{endpoint}/datasets/{name}/resolve/{revision}/{path}")
    if token := get_token():
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return request


def _in_ascii(address: str) -> str:
    """An address as requests have it: escapes in place of blanks and of letters beyond ASCII."""
    parts = urllib.parse.urlsplit(address)
    path, query = (urllib.parse.quote(text, safe=string.punctuation) for text in (parts.path, parts.query))
    host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    return urllib.parse.urlunsplit((parts.scheme, host, path, query, ""))


def _from_store(address: str, start: int, stop: int) -> Range:
    files = _store(address)
    try:
        size, version = _facts_in_store(files, address)
        data = files.cat_file(address, start, min(stop, size)) if size > start else b""
    except FileNotFoundError as error:
        raise Absent(f"{shown(address)}: there is no such file. Look at the address.") from error
    except PermissionError as error:
        raise Absent(f"{shown(address)}: you may not read it: {error}.") from error
    except SuiteError:
        raise
    except Exception as error:  # every store has its own errors, and none of them is a defect of ours
        raise _NotNow(f"{type(error).__name__}: {error}") from error
    if len(data) != max(0, min(stop, size) - start):
        raise _NotNow(f"{len(data):,} of {min(stop, size) - start:,} bytes came")
    return Range(data, size, version)


def _store(address: str) -> Any:
    """Fsspec's file system for an address; each process has its own. Raises SuiteError if its package is missing."""
    protocol = address.partition("://")[0].lower()
    try:
        fsspec = importlib.import_module("fsspec")
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise SuiteError(
            f"{shown(address)}: reading {protocol}:// needs {STORES[protocol]}. Run: pip install {STORES[protocol]}"
        ) from error


@functools.lru_cache(maxsize=1 << 12)
def _known_in_store(process: int, address: str) -> tuple[int, str]:
    """The size and the version of a file, which each process asks for once."""
    facts = _store(address).info(address)
    version = next((str(facts[key]) for key in ("ETag", "etag", "md5Hash", "LastModified") if facts.get(key)), "")
    return int(facts["size"]), version


def _facts_in_store(files: Any, address: str) -> tuple[int, str]:
    return _known_in_store(os.getpid(), address)
