"""Whether the hub answers: reachable, refusing, silent, offline."""

import socket
import time

import pytest

from mergekit_wise.diagnosis.hub import Question
from tests.hub_server import ModelHub, Replies, serving


class Answer(Replies):
    """Answers every question with the status of the hub."""

    def do_GET(self, body=True):
        self.reply(self.server.hub.refuse["status"], b"", {})


@pytest.fixture
def silent():
    """The address of a server that accepts connections and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed():
    """The address of a port at which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def asked(endpoint, environment=None, **settings):
    """What a question found, by name."""
    question = Question(endpoint, offline=False, **settings)
    return {finding.name: finding for finding in question.section(environment or {}).findings}


@pytest.mark.parametrize(("status", "level"), [(200, ""), (404, ""), (503, "problem"), (407, "problem")])
def test_a_hub_that_answers_is_reachable(status, level):
    """Any answer shows that the hub can be reached, except those of a proxy or of a server that is down."""
    with serving(ModelHub(refuse={"status": status}), Answer) as hub:
        finding = asked(hub.url)["hub"]
    assert finding.level == level
    assert hub.url in finding.value


def test_a_refused_connection_is_a_problem(closed):
    """The address and the reason are named, and how to go on without the hub."""
    finding = asked(closed)["hub"]
    assert (finding.level, closed in finding.value) == ("problem", True)
    assert "HF_HUB_OFFLINE=1" in finding.command


def test_a_silent_hub_is_given_up(silent):
    """A server that does not answer costs no more than the time that it is given."""
    begin = time.monotonic()
    assert asked(silent, seconds=0.3)["hub"].level == "problem"
    assert time.monotonic() - begin < 5  # the first use of the client imports it


def test_a_name_server_that_hangs_is_given_up():
    """A call that blocks for longer than its timeout is left behind."""
    begin = time.monotonic()
    finding = asked("http://hub.invalid", seconds=0.2, ask=lambda address, seconds: time.sleep(3) or 200)["hub"]
    assert time.monotonic() - begin < 2
    assert "no answer within 0.2 s" in finding.value


def test_offline_nothing_is_asked():
    """With HF_HUB_OFFLINE nobody is asked, and that is no problem."""

    def ask(address, seconds):
        raise AssertionError("asked")

    (finding, *_) = Question("http://127.0.0.1:9", ask=ask, offline=True).section({}).findings
    assert (finding.level, "HF_HUB_OFFLINE" in finding.value) == ("", True)


def test_neither_tokens_nor_passwords_are_shown(closed):
    """Of a token its origin is named, of a proxy the variable, and of an address the part without a password."""
    address = closed.replace("http://", "http://ada:geheim@")
    environment = {"HF_TOKEN": "hf_geheim", "HTTPS_PROXY": "http://ada:geheim@proxy:8080"}
    findings = asked(address, environment)
    assert (findings["token"].value, findings["proxy"].value) == ("from HF_TOKEN", "that of HTTPS_PROXY")
    assert closed in findings["hub"].value
    assert "geheim" not in str(findings)
