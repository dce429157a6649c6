"""A server that speaks what `HfFileSystem` asks of a Hub of models: `python -m tests.kit.hub FOLDER`.

FOLDER/USER/NAME are its repositories. Large files answer as LFS files do, small ones as git's; a listing comes in
pages of two entries. Requests are logged to standard output, after a line with the port.
"""

import hashlib
import json
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_a_token_of_the_tests"
_PAGE = 2
_LFS_AT = 1000


@contextmanager
def hub(folder):
    """The variables by which huggingface_hub finds a Hub with the repositories in a folder."""
    command = [sys.executable, "-m", "tests.kit.hub", str(folder)]
    with open(folder / ".log", "wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, cwd=Path(__file__).parents[2], text=True
        )
    try:
        port = int(process.stdout.readline())
        yield {
            "HF_ENDPOINT": f"http://127.0.0.1:{port}",
            "HF_HOME": str(folder / ".home"),
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def digest(path):
    """The id that git has for a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path

    def do_GET(self):
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[:2] == ["api", "models"]:
            self._api(parts[2:], parse_qs(url.query))
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file(parts[:2], parts[4:])
        else:
            self._answer(404)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server asks for

    def _api(self, parts, query):
        root = self._root(parts)
        if root is None:
            return
        rest = parts[2:]
        if not rest or rest[0] == "revision":
            name = "/".join(parts[:2])
            self._answer(200, {"_id": "1", "id": name, "modelId": name, "sha": "0" * 40, "siblings": []})
        elif rest[0] == "tree":
            self._tree(root, root.joinpath(*rest[2:]), query)
        else:
            self._answer(404)

    def _tree(self, root, folder, query):
        if not folder.is_dir():
            self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        is_recursive = query.get("recursive", ["false"])[0].lower() == "true"
        entries = [_entry(root, path) for path in sorted(folder.rglob("*") if is_recursive else folder.iterdir())]
        first = int(query.get("cursor", ["0"])[0])
        headers = {}
        if len(entries) > first + _PAGE:
            recursive = "&recursive=True" if is_recursive else ""
            path = urlsplit(self.path).path
            address = f"http://{self.headers['Host']}{path}?cursor={first + _PAGE}{recursive}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._answer(200, entries[first : first + _PAGE], headers)

    def _file(self, names, path):
        root = self._root(names)
        if root is None:
            return
        file = root.joinpath(*path)
        if not file.is_file():
            self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        content = file.read_bytes()
        if wanted := self.headers.get("Range"):
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            last = min(int(end or len(content)), len(content) - 1)
            piece = content[int(start) : last + 1]
            self._answer(206, piece, {"Content-Range": f"bytes {start}-{last}/{len(content)}"})
        else:
            self._answer(200, content, {"ETag": f'"{digest(file)}"'})

    def _root(self, parts):
        """The folder of a repository; None: it was answered that there is none for this caller."""
        root = self.folder.joinpath(*parts[:2])
        if (root / ".private").exists() and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, headers={"X-Error-Code": "RepoNotFound"})
            return None
        if not root.is_dir():
            self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
            return None
        return root

    def _answer(self, status, body=None, headers=None):
        content = body if isinstance(body, bytes) else json.dumps(body or {} if body is None else body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(root, path):
    name = path.relative_to(root).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    size = path.stat().st_size
    entry = {"type": "file", "oid": digest(path), "size": size, "path": name}
    if size >= _LFS_AT:
        pointer = {"oid": hashlib.sha256(path.read_bytes()).hexdigest(), "size": size, "pointerSize": 134}
        entry["lfs"] = pointer
    return entry


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
