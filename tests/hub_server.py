"""A stand-in for the Hugging Face hub on the loopback address, for tests of downloads and uploads."""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_" + "rightToken" * 3
FRONT_MATTER = re.compile(r"^---\n(.*?)\n---\n", re.DOTALL)


@contextmanager
def serving(hub, handler):
    """Run a server with `handler`, which finds `hub` as ``self.server.hub``; sets ``hub.url``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.hub = hub
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Replies(BaseHTTPRequestHandler):
    """A quiet handler that sends whole answers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def reply(self, status, data, headers, length=None, cut=None):
        """Send a status, headers and a body; `length` if that is not the body's, `cut` after so many bytes."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:cut])
        if cut is not None:
            self.close_connection = True


@dataclass
class Repository:
    """A repository: the files of each branch, and the commits of each, the last one last."""

    private: bool = False
    branches: dict = field(default_factory=lambda: {"main": {".gitattributes": b"*.safetensors filter=lfs\n"}})
    commits: dict = field(default_factory=lambda: {"main": ["a" * 40]})

    def branch_of(self, revision):
        """The branch that a name or the SHA-1 of its last commit means."""
        return next((name for name, commits in self.commits.items() if revision in (name, commits[-1])), None)


@dataclass
class ModelHub:
    """Models, what was stored for them, and what was asked.

    ``refuse`` maps a part of an address to the status, the headers and the JSON that are answered to it.
    """

    repositories: dict = field(default_factory=dict)
    objects: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    refuse: dict = field(default_factory=dict)
    url: str = ""

    def files(self, repository, branch="main"):
        """Bytes by name, without the file that every repository begins with."""
        return {n: data for n, data in self.repositories[repository].branches[branch].items() if n != ".gitattributes"}


class ModelHandler(Replies):
    """The API of the hub as far as uploading and downloading a model calls it."""

    def do_GET(self, body=True):
        path = self.begin()
        if path is None:
            return
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+))?(?:/)?", path):
            self.describe(found[1], found[2] or "revision", found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_file(*found.groups(), body)
        else:
            self.json(404, {"error": "not found"})

    def do_POST(self):
        length = self.headers.get("Content-Length")
        data = self.rfile.read(int(length)) if length else b""
        path = self.begin()
        if path is None:
            return
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.json(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self.create(json.loads(data))
        elif path == "/api/validate-yaml":
            self.validate(json.loads(data)["content"])
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path):
            self.name = found[1]
            getattr(self, found[2])(self.server.hub.repositories[self.name], found[3], data)
        elif found := re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            self.batch(json.loads(data))
        else:
            self.json(404, {"error": "not found"})

    def do_PUT(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            data = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.begin()
        if path is None:
            return
        oid = path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == oid
        self.server.hub.objects[oid] = data
        self.json(200, {})

    def begin(self):
        """The path that is asked for; None if it is refused, which has been answered."""
        hub, path = self.server.hub, self.path.partition("?")[0]
        hub.asked.append((self.command, path))
        for part, (status, headers, answer) in hub.refuse.items():
            if part in path:
                self.json(status, answer, headers)
                return None
        return path

    def json(self, status, answer, headers=()):
        data = json.dumps(answer).encode()
        sent = b"" if self.command == "HEAD" else data
        self.reply(status, sent, {"Content-Type": "application/json", **dict(headers)}, length=len(data))

    def describe(self, name, kind, revision):
        repository = self.server.hub.repositories.get(name)
        branch = repository and repository.branch_of(revision)
        if branch is None:
            code = "RevisionNotFound" if repository else "RepoNotFound"
            self.json(404, {"error": f"{name} not found"}, {"X-Error-Code": code})
            return
        entries = [entry(path, data) for path, data in sorted(repository.branches[branch].items())]
        if kind == "tree":
            self.json(200, entries)
            return
        sha = repository.commits[branch][-1]
        about = {"id": name, "modelId": name, "sha": sha, "private": repository.private, "tags": []}
        self.json(200, {**about, "siblings": entries})

    def send_file(self, name, revision, path, body):
        repository = self.server.hub.repositories.get(name)
        branch = repository and repository.branch_of(revision)
        data = None if branch is None else repository.branches[branch].get(path)
        if data is None:
            self.json(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": f'"{etag(path, data)}"', "X-Repo-Commit": repository.commits[branch][-1]}
        self.reply(200, data if body else b"", headers, length=len(data))

    def create(self, wanted):
        hub, name = self.server.hub, f"{wanted['organization']}/{wanted['name']}"
        if name in hub.repositories:
            self.json(409, {"error": "You already created this model repo", "url": f"{hub.url}/{name}"})
            return
        is_private = wanted.get("private") is True or wanted.get("visibility") == "private"
        hub.repositories[name] = Repository(is_private)
        self.json(200, {"url": f"{hub.url}/{name}"})

    def validate(self, content):
        found = FRONT_MATTER.match(content)
        errors = []
        if found is not None and not isinstance(yaml.safe_load(found[1]), dict):
            errors.append({"message": "no mapping"})
        missing = [] if found else [{"message": "empty or missing yaml metadata in repo card"}]
        self.json(400 if errors else 200, {"errors": errors, "warnings": missing})

    def preupload(self, repository, branch, data):
        files = json.loads(data)["files"]
        modes = [("lfs" if is_large(file["path"]) else "regular", file["path"]) for file in files]
        self.json(200, {"files": [{"path": path, "uploadMode": mode, "shouldIgnore": False} for mode, path in modes]})

    def branch(self, repository, branch, data):
        if branch in repository.branches:
            self.json(409, {"error": "Reference already exists"})
            return
        repository.branches[branch] = dict(repository.branches["main"])
        repository.commits[branch] = [hashlib.sha1(branch.encode()).hexdigest()]
        self.json(200, {})

    def batch(self, wanted):
        objects = []
        for each in wanted["objects"]:
            upload = {"upload": {"href": f"{self.server.hub.url}/lfs/{each['oid']}", "header": {}}}
            known = each["oid"] in self.server.hub.objects
            objects.append({**each, **({} if known else {"actions": upload})})
        self.json(200, {"transfer": "basic", "objects": objects})

    def commit(self, repository, branch, data):
        lines = [json.loads(line) for line in data.splitlines()]
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, repository.commits[branch][-1]):
            self.json(412, {"error": "A commit has happened since. Please refresh and try again."})
            return
        files = dict(repository.branches[branch])
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        repository.branches[branch] = files
        oid = hashlib.sha1(data).hexdigest()
        repository.commits[branch].append(oid)
        self.json(200, {"commitUrl": f"{self.server.hub.url}/{self.name}/commit/{oid}", "commitOid": oid})


def is_large(path):
    """Whether the hub stores a file as a large one."""
    return path.endswith((".safetensors", ".png"))


def etag(path, data):
    """The digest that the hub has for a file."""
    return hashlib.sha256(data).hexdigest() if is_large(path) else hashlib.sha1(data).hexdigest()


def entry(path, data):
    """A file as the API lists it."""
    oid = hashlib.sha256(data).hexdigest()
    lfs = {"lfs": {"oid": oid, "sha256": oid, "size": len(data), "pointerSize": 130}} if is_large(path) else {}
    blob = hashlib.sha1(data).hexdigest()
    return {"type": "file", "path": path, "rfilename": path, "oid": blob, "blobId": blob, "size": len(data), **lfs}
