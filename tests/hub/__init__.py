"""A small hub that speaks as much of the protocol as huggingface_hub uses: its client talks to it unpatched."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.serving import running

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".png")
"""Files that are stored by Git LFS: their ETag is a SHA-256, and they are redirected."""


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """A repository: what each commit holds, and what branches and tags stand for."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool | str = False
    """Whether who is not on the owner's list, or has another token than this one, may see names, and no content."""
    token: str | None = None
    """Who does not send it sees no such repository."""

    def commit(self, files, branch="main"):
        """Add a commit to a branch; return its name."""
        text = repr(sorted((name, hashlib.sha256(content).hexdigest()) for name, content in files.items()))
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name

    def at(self, revision):
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Hub:
    """The hub's repositories by kind and name, what it was asked, and what goes wrong."""

    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and authorization of each request."""
    sent: Counter = field(default_factory=Counter)
    """Bytes of each file that were sent."""
    drops: Counter = field(default_factory=Counter)
    """How often a file's connection breaks after half of its content."""
    corrupt: Counter = field(default_factory=Counter)
    """How often a file comes with other content of the same size."""
    short: Counter = field(default_factory=Counter)
    """How often a file ends early, as if it were whole."""
    expired: Counter = field(default_factory=Counter)
    """How often a file's address is no longer good."""
    sizes: dict[str, int] = field(default_factory=dict)
    """What is listed as the size of a file."""
    names: dict[str, str] = field(default_factory=dict)
    """What is listed as the name of a file."""
    status: list[int] = field(default_factory=list)
    """Answers to the next requests, whatever they are for."""
    valid_tokens: set[str] = field(default_factory=set)
    url: str = ""
    store: str = ""
    """Where large files come from: another host, as far as the client can see."""

    def model(self, name, files, **options):
        return self._add(self.models, name, files, options)

    def dataset(self, name, files, **options):
        return self._add(self.datasets, name, files, options)

    def _add(self, where, name, files, options):
        where[name] = repository = Repository(**options)
        repository.commit(files)
        return repository


@contextmanager
def serve(hub=None, port=0, certificate=None):
    """Serve a hub on this machine, with TLS where a certificate and its key are given."""
    hub = hub or Hub()
    server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.certificate, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "https" if certificate else "http"
    hub.url, hub.store = (f"{scheme}://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
    with running(server):
        yield hub


_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|refs)(?:/([^/]+))?)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        parts = urlsplit(self.path)
        self.hub.asked.append((self.command, unquote(parts.path), self.headers.get("Authorization")))
        if self.hub.status:
            self._fail(self.hub.status.pop(0), "")
        elif parts.path.startswith("/lfs/"):
            self._lfs(parts.path.removeprefix("/lfs/"))
        elif parts.path in ("/api/models", "/api/datasets"):
            self._search(getattr(self.hub, parts.path.removeprefix("/api/")), parse_qs(parts.query))
        elif found := _API.fullmatch(parts.path):
            self._api(*found.groups())
        elif found := _FILE.fullmatch(parts.path):
            data, name, revision, path = found.groups()
            self._file(self.hub.datasets if data else self.hub.models, name, unquote(revision), unquote(path))
        else:
            self._fail(404, "NotFound")

    def _open(self, repositories, name, revision, *, content=True):
        """Return repository and commit, or answer why not."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        repository = repositories.get(name)
        if token and token not in self.hub.valid_tokens:
            return self._fail(401, "", "Invalid credentials in Authorization header")
        if repository is None or (repository.token and token != repository.token):
            return self._fail(404 if token else 401, "RepoNotFound", "Repository not found")
        if repository.gated and not token and content:
            return self._fail(401, "GatedRepo", "Access to this model is restricted")
        if repository.gated and content and token != repository.gated:
            return self._fail(403, "GatedRepo", "You are not in the authorized list")
        commit = repository.at(revision)
        if commit is None:
            return self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def _api(self, kind, name, what, revision):
        repositories, revision = getattr(self.hub, kind), unquote(revision or "main")
        if opened := self._open(repositories, name, "main" if what == "refs" else revision, content=False):
            repository, commit = opened
            if what == "tree":
                self._json([self._entry(path, content) for path, content in repository.commits[commit].items()])
            elif what == "refs":
                refs = [
                    {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha}
                    for ref, sha in repository.refs.items()
                ]
                self._json({"branches": refs, "tags": [], "converts": []})
            else:
                files = [{"rfilename": path} for path in repository.commits[commit]]
                self._json({"id": name, "sha": commit, "siblings": files})

    def _entry(self, path, content):
        size = self.hub.sizes.get(path, len(content))
        entry = {"type": "file", "path": self.hub.names.get(path, path), "size": size, "oid": git_oid(content)}
        if path.endswith(LFS_SUFFIXES):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 130}
        return entry

    def _search(self, repositories, query):
        author, word = query.get("author", [""])[0], query.get("search", [""])[0]
        found = [name for name in repositories if name.startswith(author and f"{author}/") and word in name]
        self._json([{"id": name} for name in found])

    def _file(self, repositories, name, revision, path):
        if not (opened := self._open(repositories, name, revision)):
            return
        repository, commit = opened
        content = repository.commits[commit].get(path)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            self._fail(404, "EntryNotFound", **headers)
        elif path.endswith(LFS_SUFFIXES):
            oid = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
            self._head(302, 0, Location=f"{self.hub.store}/lfs/{path}?{oid}", **linked, **headers)
        else:
            self._content(path, content, ETag=f'"{git_oid(content)}"', **headers)

    def _lfs(self, path):
        wanted = urlsplit(self.path).query
        if self.hub.expired[unquote(path)] > 0:
            self.hub.expired[unquote(path)] -= 1
            return self._fail(403, "")
        every = [*self.hub.models.values(), *self.hub.datasets.values()]
        files = (files.get(unquote(path)) for repository in every for files in repository.commits.values())
        content = next(found for found in files if found is not None and hashlib.sha256(found).hexdigest() == wanted)
        return self._content(unquote(path), content, ETag=f'"{wanted}"')

    def _content(self, path, content, **headers):
        begin = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        body = content[begin:]
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        if self.command == "GET" and self.hub.corrupt[path] > 0:
            self.hub.corrupt[path] -= 1
            body = bytes(byte ^ 1 for byte in body)
        if self.command == "GET" and self.hub.short[path] > 0:
            self.hub.short[path] -= 1
            body = body[: len(body) // 2]
        self._head(206 if begin else 200, len(body), **headers)
        if self.command != "GET":
            return
        if self.hub.drops[path] > 0:
            self.hub.drops[path] -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.hub.sent[path] += len(body)
        self.wfile.write(body)

    def _json(self, value):
        text = json.dumps(value).encode()
        self._head(200, len(text), **{"Content-Type": "application/json"})
        self.wfile.write(text)

    def _fail(self, status, code, message="", **headers):
        errors = {"X-Error-Code": code, "X-Error-Message": message} if code or message else {}
        self._head(status, 0, **errors, **headers)

    def _head(self, status, length, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
