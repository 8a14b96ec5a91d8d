"""Whether the Hugging Face hub answers, by the client that downloads use, within two seconds.

The question is asked in a thread, because a name server that does not answer blocks for longer than any timeout of the
client; meanwhile other things are examined. A thread that has no answer in the end is left behind.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mergekit_wise.datasets.addresses import shown
from mergekit_wise.diagnosis.finding import Finding, Section, place

SECONDS = 2.0
"""How long the hub has time to answer."""

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy")

LONGEST_REASON = 200
"""Characters of an error of the client's that are shown."""

Ask = Callable[[str, float], int]
"""Asks an address for its headers and gives the HTTP status; raises whatever the client raises."""


class Question:
    """The question whether the hub answers, which is asked at once.

    Args:
        endpoint: the hub's address; by default the one that huggingface_hub uses (``HF_ENDPOINT``).
        seconds: how long it has time to answer.
        ask: asks it; by default with huggingface_hub's client.
        offline: whether the hub must not be asked; by default what huggingface_hub says (``HF_HUB_OFFLINE``).
    """

    def __init__(
        self,
        endpoint: str | None = None,
        seconds: float = SECONDS,
        ask: Ask | None = None,
        offline: bool | None = None,
    ) -> None:
        self._answers: list[Finding] = []
        self._constants = _constants()
        if self._constants is None:
            self._answers.append(Finding("hub", "not asked", "problem", "huggingface_hub cannot be loaded"))
            return
        address = endpoint or self._constants.ENDPOINT
        if self._constants.HF_HUB_OFFLINE if offline is None else offline:
            self._answers.append(
                Finding("hub", "offline (HF_HUB_OFFLINE is set); what was downloaded before can be used")
            )
            return
        self._end = time.monotonic() + seconds
        self._address, self._seconds = address, seconds
        self._thread = threading.Thread(target=self._ask, args=(ask or _head,), daemon=True)
        self._thread.start()

    @property
    def downloads(self) -> Path | None:
        """The folder in which the hub's files are kept; None if that is not known."""
        return None if self._constants is None else Path(self._constants.HF_HUB_CACHE)

    def section(self, environment: Mapping[str, str] = os.environ) -> Section:
        """The answer, for which this waits while there is time; and whether there is a token, not which one."""
        if not self._answers:
            self._thread.join(max(0.0, self._end - time.monotonic()))
        answer = self._answers[0] if self._answers else self._unreachable(f"no answer within {self._seconds:g} s")
        found = [answer, self._token(environment)]
        if proxy := next((name for name in PROXIES if environment.get(name)), None):
            found.append(Finding("proxy", f"that of {proxy}"))
        return Section("Hugging Face hub", tuple(found))

    def _ask(self, ask: Ask) -> None:
        try:
            status = ask(self._address, self._seconds)
        except Exception as error:  # the client's errors depend on its version, and none of them may end a diagnosis
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self._answers.append(self._unreachable(lines[0].rstrip(".")[:LONGEST_REASON]))
            return
        if status >= 500 or status == 407:
            self._answers.append(self._unreachable(f"HTTP status {status}"))
        else:
            self._answers.append(Finding("hub", f"{shown(self._address)} answers"))

    def _unreachable(self, reason: str) -> Finding:
        return Finding(
            "hub",
            f"{shown(self._address)} cannot be reached ({reason})",
            "problem",
            "nothing can be downloaded or pushed. Check the network and the proxy, or work offline",
            "set HF_HUB_OFFLINE=1" if os.name == "nt" else "export HF_HUB_OFFLINE=1",
        )

    def _token(self, environment: Mapping[str, str]) -> Finding:
        if name := next((name for name in TOKENS if environment.get(name)), None):
            return Finding("token", f"from {name}")
        path = None if self._constants is None else Path(self._constants.HF_TOKEN_PATH)
        if path is not None and path.is_file():
            return Finding("token", f"from {place(path)}")
        return Finding("token", "none; wise push and private models need one", command="hf auth login")


def _constants() -> Any:
    """The settings of huggingface_hub, which it reads from the environment; None if it cannot be loaded."""
    try:
        from huggingface_hub import constants
    except (ImportError, ValueError):  # a timeout in the environment that is no number
        return None
    return constants


def _head(address: str, seconds: float) -> int:
    client: Any = import_module("huggingface_hub.utils").get_session()  # of requests or httpx, by the version
    return int(client.head(address, timeout=seconds).status_code)
