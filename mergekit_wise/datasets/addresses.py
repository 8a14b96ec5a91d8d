"""What is an address of a data set, and what of it may be shown. Opens nothing."""

import re


def is_address(name: str) -> bool:
    """Whether a name is an address such as ``https://host/0.tar``, of whatever protocol."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", name) is not None


def shown(address: str) -> str:
    """An address for messages and records: without a query, which may hold a signature, and without a password."""
    protocol, _, rest = address.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{protocol.lower()}://{host.rpartition('@')[2]}{slash}{path}"
