"""A folder of models that is kept in step with a store: real stores of several kinds, and their faults."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgan.serving.errors import StoreError
from bgan.serving.models.model_files import address_of, scan
from bgan.serving.models.remote import Mirror, _Files
from bgan.serving.models.repository import Repository
from tests.kit.stores import BUCKET, FaultyProxy, bucket, s3_environment, s3_server
from tests.reliability.machine import ON_SMALL_DISK

fsspec = pytest.importorskip("fsspec", reason="the extra s3 is not installed")
OTHERS = ("readme.md", ".hidden.onnx", "digits/0.onnx", "digits/latest.onnx", "digits/3/weights.bin", "a/b/1.onnx")


@pytest.fixture
def store():
    """fsspec's store in memory, and the URL of an empty folder in it."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield partial(_put, files)
    files.store.clear()


def _put(files, name, content):
    files.pipe_file(f"/models/{name}", content)


def _mirror(tmp_path, url="memory://models", **options):
    return Mirror(url, tmp_path / "cache", **options)


def _there(mirror):
    """What the folder has, by name, but for what the mirror keeps for itself."""
    return {
        path.relative_to(mirror.folder).as_posix(): path.read_bytes()
        for path in sorted(mirror.folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


# Which files.


def test_models_are_fetched_and_the_rest_is_left(store, tmp_path):
    wanted = {"a.onnx": b"a", "digits/3.onnx": b"3", "digits/4/model.onnx": b"4"}
    for name, content in (wanted | dict.fromkeys(OTHERS, b"never read")).items():
        store(name, content)
    mirror = _mirror(tmp_path)
    assert not mirror.has_models
    mirror.sync()
    assert _there(mirror) == wanted
    assert mirror.has_models
    assert scan(mirror.folder).keys() == {mirror.folder / name for name in wanted}


_NAMES = st.sampled_from(["a", "a.onnx", "1", "1.onnx", "01.onnx", "model.onnx", ".a", "x y", "..", "2", "é.onnx"])


@settings(deadline=None)
@given(st.lists(_NAMES, min_size=1, max_size=4))
def test_the_files_of_a_store_are_those_of_a_folder(tmp_path_factory, parts):
    name = "/".join(parts)
    if ".." in parts:
        assert address_of(name) is None
        return
    folder = tmp_path_factory.mktemp("models")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    found = [(file.model, file.version) for file in scan(folder).values()]
    address = address_of(name)
    assert found == ([] if address is None else [address])


@pytest.mark.parametrize(
    "name", ["../a.onnx", "..\\a.onnx", "/a.onnx", "a\n.onnx", "../1.onnx", "../1/model.onnx", ""]
)
def test_no_name_leads_out_of_the_folder(name):
    assert address_of(name) is None


def test_what_changes_is_fetched_and_the_rest_stays(store, tmp_path):
    for name in ("a", "b", "c"):
        store(f"{name}.onnx", name.encode())
    mirror = _mirror(tmp_path)
    mirror.sync()
    inodes = {path: path.stat().st_ino for path in mirror.folder.glob("*.onnx")}
    store("b.onnx", b"B")
    fsspec.filesystem("memory").rm_file("/models/c.onnx")
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"a", "b.onnx": b"B"}
    assert (mirror.folder / "a.onnx").stat().st_ino == inodes[mirror.folder / "a.onnx"]
    assert (mirror.folder / "b.onnx").stat().st_ino != inodes[mirror.folder / "b.onnx"]  # what is open stays whole


def test_folders_of_versions_that_are_gone_are_removed(store, tmp_path):
    store("digits/1/model.onnx", b"1")
    store("a.onnx", b"a")
    mirror = _mirror(tmp_path)
    mirror.sync()
    fsspec.filesystem("memory").rm("/models/digits", recursive=True)
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"a"}
    assert not (mirror.folder / "digits").exists()


def test_models_that_are_named_are_fetched_alone(store, tmp_path):
    for name in ("a.onnx", "digits/3.onnx", "digits/4/model.onnx"):
        store(name, name.encode())
    _mirror(tmp_path, models=["digits"]).sync()
    assert _there(_mirror(tmp_path)).keys() == {"digits/3.onnx", "digits/4/model.onnx"}
    _mirror(tmp_path, models=["a"]).sync()  # and the others stay
    assert _there(_mirror(tmp_path)).keys() == {"a.onnx", "digits/3.onnx", "digits/4/model.onnx"}
    with pytest.raises(StoreError, match=r"^memory://models has no model 'b'; there are a, digits$"):
        _mirror(tmp_path, models=["a", "b"]).sync()


# The bound.


def test_the_highest_versions_are_fetched_and_one_to_spare(store, tmp_path):
    for version in (1, 2, 9, 10):
        store(f"digits/{version}.onnx", b"x" * version)
    mirror = _mirror(tmp_path, versions=2)
    mirror.sync()
    assert _there(mirror).keys() == {"digits/10.onnx", "digits/9.onnx", "digits/2.onnx"}
    store("digits/11.onnx", b"x")
    mirror.sync()  # a lower one that is there already stays: the highest may be invalid
    assert _there(mirror).keys() == {"digits/11.onnx", "digits/10.onnx", "digits/9.onnx", "digits/2.onnx"}


def test_the_bound_is_kept_by_the_lowest_versions(store, tmp_path, caplog):
    for version in (1, 2, 3):
        store(f"digits/{version}.onnx", b"x" * 400)
    store("letters.onnx", b"y" * 400)
    mirror = _mirror(tmp_path, versions=3, max_bytes=1200)
    mirror.sync()
    assert _there(mirror).keys() == {"digits/3.onnx", "letters.onnx", "digits/2.onnx"}
    text = "memory://models/digits/1.onnx, 400 bytes, is too much: --model-cache-bytes is 1200"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [text]
    store("digits/4.onnx", b"x" * 401)  # one more than there is place for
    mirror.sync()
    assert _there(mirror).keys() == {"digits/4.onnx", "letters.onnx"}


def test_a_file_that_is_too_large_is_not_fetched_and_its_old_content_stays(store, tmp_path, caplog):
    store("a.onnx", b"small")
    mirror = _mirror(tmp_path, max_model_bytes=10)
    mirror.sync()
    store("a.onnx", b"larger than ten")
    for _ in range(2):
        mirror.sync()
    assert _there(mirror) == {"a.onnx": b"small"}
    text = "memory://models/a.onnx has 15 bytes; --max-model-bytes is 10"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [text]


# What may happen to the folder.


def test_what_a_killed_process_left_is_put_right(store, tmp_path):
    store("a.onnx", b"a")
    store("b.onnx", b"b")
    mirror = _mirror(tmp_path)
    mirror.sync()
    (mirror.folder / ".0123.part").write_bytes(b"half of")
    (mirror.folder / "a.onnx").write_bytes(b"a longer one")
    (mirror.folder / "b.onnx").unlink()
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"a", "b.onnx": b"b"}
    assert not list(mirror.folder.glob(".*.part"))
    for broken in (b"", b"[1]", b'{"a.onnx": 3}', b'{"../a": ["x", 1]}', b"\xff"):
        (mirror.folder / ".store.json").write_bytes(broken)
        _mirror(tmp_path).sync()
        assert json.loads((mirror.folder / ".store.json").read_text()).keys() == {"a.onnx", "b.onnx"}


def test_a_folder_that_cannot_be_written_to_is_one_line(store, tmp_path):
    store("a.onnx", b"a")
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot keep the models of memory://models \(.*\); name another"):
        _mirror(tmp_path).sync()


_FULL = """if True:
    import logging, pathlib, sys
    from bgan.serving.models.remote import Mirror, _Files
    logging.basicConfig(format="%(message)s")
    mirror = Mirror(sys.argv[1], pathlib.Path(sys.argv[2]))
    mirror.sync()
    print(sorted(path.name for path in mirror.folder.rglob("*") if path.suffix in {".onnx", ".part"}))
"""


def test_a_disk_that_is_full_is_one_line_and_keeps_what_is_there(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "a.onnx").write_bytes(b"a")
    (tmp_path / "models" / "b.onnx").write_bytes(bytes(2_000_000))
    (tmp_path / "small").mkdir()
    url = f"file://{tmp_path}/models"
    command = (*ON_SMALL_DISK, tmp_path / "small", sys.executable, "-c", _FULL, url, tmp_path / "small")
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, check=False)
    if result.returncode and not result.stdout:
        pytest.skip(f"this user may not mount a small disk ({result.stderr.strip()})")
    assert result.stdout == "['a.onnx']\n"
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"{url}/b.onnx has no room in {tmp_path}/small/")
    assert "; make some, or name another folder with BGAN_MODEL_CACHE, or --model-cache" in line


def test_processes_with_one_folder_take_turns(store, tmp_path):
    store("a.onnx", b"a")
    mirror = _mirror(tmp_path)
    mirror.sync()
    done = threading.Event()
    with mirror._locked():
        thread = threading.Thread(target=lambda: (_mirror(tmp_path).sync(), done.set()))
        thread.start()
        assert not done.wait(0.05)
    thread.join()
    assert done.is_set()


def test_the_user_has_a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Mirror("memory://models").folder.parent == tmp_path / "bgan" / "models"
    monkeypatch.setenv("BGAN_CACHE_DIR", str(tmp_path / "own"))
    assert Mirror("memory://models").folder.parent == tmp_path / "own" / "models"
    assert Mirror("memory://models").folder == Mirror("memory://models/").folder
    assert Mirror("memory://models").folder != Mirror("memory://others").folder


# Stores that are away, or not there.


def test_a_store_that_is_not_there_is_one_line(store, tmp_path):
    for url, says in (
        ("memory://nothing", "memory://nothing: it is not there; make it first, or name another"),
        ("what://bucket", "what://bucket is no URL that fsspec opens (Protocol not known: what)"),
        ("http://user:secret@127.0.0.1:1/m", "http://127.0.0.1:1/m: Connect call failed"),
    ):
        with pytest.raises(StoreError) as caught:
            _mirror(tmp_path, url).sync()
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


def test_what_a_library_says_shows_no_password():
    files = _Files("memory://user:secret@models", "memory://models")
    with (
        pytest.raises(StoreError, match=r"^memory://models/a\.onnx: memory://models has a bad day$"),
        files._explained("a.onnx"),
    ):
        raise ValueError("memory://user:secret@models has a bad day")


def test_a_store_without_models_is_one_line(store, tmp_path):
    store("readme.md", b"text")
    with pytest.raises(StoreError, match=r"^memory://models has no \.onnx file where models are looked for;"):
        _mirror(tmp_path).sync()


def test_the_models_stay_while_the_store_is_empty_or_gone(store, tmp_path):
    store("a.onnx", b"a")
    mirror = _mirror(tmp_path)
    mirror.sync()
    fsspec.filesystem("memory").store.clear()
    for _ in range(2):
        with pytest.raises(StoreError, match="memory://models"):
            mirror.sync()
        assert _there(mirror) == {"a.onnx": b"a"}
    store("a.onnx", b"A")
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"A"}


# Other URLs.


def test_a_folder_by_its_url(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "x y.onnx").write_bytes(b"1")
    mirror = _mirror(tmp_path, f"file://{tmp_path}/models")
    mirror.sync()
    assert _there(mirror) == {"x y.onnx": b"1"}
    (tmp_path / "models" / "new").write_bytes(b"2")
    (tmp_path / "models" / "new").replace(tmp_path / "models" / "x y.onnx")  # of the same size
    mirror.sync()
    assert _there(mirror) == {"x y.onnx": b"2"}


@contextmanager
def _listening(handler):
    """The URL where a handler of requests answers."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(tmp_path):
    """A folder, and the URL where Python's own HTTP server lists it."""
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with _listening(partial(Quiet, directory=tmp_path)) as url:
        yield folder, f"{url}/web"


def test_a_listing_on_the_web(web, tmp_path):
    pytest.importorskip("aiohttp", reason="the extra s3 is not installed")
    folder, url = web
    (folder / "digits" / "2").mkdir(parents=True)
    (folder / "digits" / "1.onnx").write_bytes(b"1")
    (folder / "digits" / "2" / "model.onnx").write_bytes(b"2")
    (folder / "ä b.onnx").write_bytes(b"3")
    (folder / "text.txt").write_bytes(b"never read")
    mirror = _mirror(tmp_path, url)
    mirror.sync()
    assert _there(mirror) == {"digits/1.onnx": b"1", "digits/2/model.onnx": b"2", "ä b.onnx": b"3"}
    os.utime(folder / "ä b.onnx", (1, 1))
    (folder / "digits" / "1.onnx").unlink()
    inode = (mirror.folder / "ä b.onnx").stat().st_ino
    mirror.sync()
    assert _there(mirror).keys() == {"digits/2/model.onnx", "ä b.onnx"}
    assert (mirror.folder / "ä b.onnx").stat().st_ino != inode
    shutil.rmtree(folder)
    with pytest.raises(StoreError, match=f"^{url}: it is not there; make it first, or name another$"):
        mirror.sync()
    assert _there(mirror).keys() == {"digits/2/model.onnx", "ä b.onnx"}


def test_a_body_without_an_end_is_left(tmp_path, caplog):
    pytest.importorskip("aiohttp", reason="the extra s3 is not installed")

    class Endless(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200)
            self.send_header("ETag", '"1"')
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            if self.path == "/models":
                self.wfile.write(b'<a href="a.onnx">a.onnx</a>')
                return
            with suppress(OSError):  # the reader has gone
                while True:
                    self.wfile.write(bytes(10_000))

        def log_message(self, *arguments):
            pass

    with (
        _listening(Endless) as url,
        pytest.raises(StoreError, match=r"/models/a.onnx goes on after 100000 bytes$"),
    ):
        _mirror(tmp_path, f"{url}/models", max_model_bytes=100_000).sync()
    assert not list((tmp_path / "cache").rglob("*.part"))


# Object stores.


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with s3_server("moto", tmp_path_factory.mktemp("moto")) as port:
        yield port


@pytest.fixture(params=["moto", "s3_port"])
def s3(request, processes):
    """The port of each store in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def asks(monkeypatch):
    """Has s3fs ask a port from now on."""

    def ask(port, **others):
        environment = {**s3_environment(port), **others}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        if environment != _asked:  # a new client takes most of a second
            fsspec.get_filesystem_class("s3").clear_instance_cache()
            _asked.clear()
            _asked.update(environment)

    return ask


_asked = {}


def _url(request):
    """A folder of the bucket for one test."""
    return f"s3://{BUCKET}/{re.sub('[^a-z0-9]+', '-', request.node.name)}"


def _key(url, name):
    return {"Bucket": BUCKET, "Key": f"{url.removeprefix(f's3://{BUCKET}/')}/{name}"}


def test_a_bucket_is_followed(s3, asks, request, tmp_path, small_models, other_models):
    asks(s3)
    client, url = bucket(s3), _url(request)
    old, new = ((folder / "sbn.onnx").read_bytes() for folder in (small_models, other_models))
    client.put_object(**_key(url, "digits/1.onnx"), Body=old)
    client.put_object(**_key(url, "x y.onnx"), Body=old)
    client.put_object(**_key(url, "notes.txt"), Body=b"never read")
    mirror = _mirror(tmp_path, url)
    mirror.sync()
    assert _there(mirror) == {"digits/1.onnx": old, "x y.onnx": old}
    client.put_object(**_key(url, "digits/2/model.onnx"), Body=new)
    client.put_object(**_key(url, "x y.onnx"), Body=new)
    mirror.sync()
    assert _there(mirror) == {"digits/1.onnx": old, "digits/2/model.onnx": new, "x y.onnx": new}
    client.delete_object(**_key(url, "x y.onnx"))
    mirror.sync()
    assert _there(mirror) == {"digits/1.onnx": old, "digits/2/model.onnx": new}
    for name in ("digits/1.onnx", "digits/2/model.onnx"):
        client.delete_object(**_key(url, name))
    client.delete_object(**_key(url, "notes.txt"))
    with pytest.raises(StoreError, match=f"^{url}: "):
        mirror.sync()
    assert _there(mirror).keys() == {"digits/1.onnx", "digits/2/model.onnx"}


def test_a_bucket_that_is_not_there_is_one_line(s3, asks, tmp_path):
    asks(s3)
    with pytest.raises(StoreError, match=r"^s3://no-such-bucket/models: .*not exist.*; make it first, or"):
        _mirror(tmp_path, "s3://no-such-bucket/models").sync()


def test_a_bucket_that_is_not_allowed_is_one_line(s3_port, asks, request, tmp_path):
    url = _url(request)
    bucket(s3_port).put_object(**_key(url, "a.onnx"), Body=b"a")
    asks(s3_port, AWS_SECRET_ACCESS_KEY="wrong")
    mirror = _mirror(tmp_path, url)
    with pytest.raises(StoreError, match=f"^{url}: .*signature.*; check the credentials, which are found as"):
        mirror.sync()
    asks(s3_port)  # new ones are read at the next try
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"a"}


@pytest.fixture(scope="module")
def proxy(s3_port):
    with FaultyProxy(s3_port) as proxy:
        proxy.client = bucket(s3_port)
        yield proxy


@pytest.fixture
def faulty(proxy, asks, request, tmp_path):
    """A model in a bucket behind a proxy, which a mirror has fetched once."""
    asks(proxy.port)
    proxy.tamper, url = None, _url(request)
    proxy.key = partial(_key, url)
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"old" * 1000)
    mirror = _mirror(tmp_path, url)
    mirror.sync()
    return proxy, mirror


def _is_read(answer):
    return answer.method == "GET" and "a.onnx" in answer.path


def test_nothing_new_costs_one_listing(faulty):
    proxy, mirror = faulty
    proxy.requests.clear()
    mirror.sync()
    ((method, path),) = proxy.requests
    assert method == "GET"
    assert "list-type=2" in path


def test_errors_of_the_store_change_nothing(faulty):
    proxy, mirror = faulty
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new" * 1000)

    def refuse(answer):
        answer.status, answer.body, answer.headers = 500, b"", [("Content-Length", "0"), ("Connection", "close")]

    proxy.tamper = refuse
    with pytest.raises(StoreError, match=r"^s3://bucket/.*: .*Internal Server Error"):
        mirror.sync()
    assert _there(mirror) == {"a.onnx": b"old" * 1000}
    proxy.tamper = None
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"new" * 1000}


def test_a_body_that_is_cut_short_is_never_a_file(faulty, caplog):
    proxy, mirror = faulty
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new" * 1000)

    def cut(answer):
        if _is_read(answer):
            answer.cut = 100
            if "Range" in str(answer.headers):
                answer.cut = 0

    proxy.tamper = cut
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"old" * 1000}
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"{mirror.shown}/a.onnx")
    proxy.tamper = None
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"new" * 1000}


def test_an_old_version_makes_room_once_the_new_one_is_there(faulty, request, tmp_path):
    proxy, _ = faulty
    mirror = _mirror(tmp_path, _url(request), max_bytes=6000)
    proxy.client.put_object(**proxy.key("digits/1.onnx"), Body=b"one" * 1000)
    mirror.sync()
    proxy.client.put_object(**proxy.key("digits/2.onnx"), Body=b"two" * 1000)

    def cut(answer):
        if answer.method == "GET" and "2.onnx" in answer.path:
            answer.cut = 0

    proxy.tamper = cut
    mirror.sync()
    assert _there(mirror).keys() == {"a.onnx", "digits/1.onnx"}
    proxy.tamper = None
    mirror.sync()
    assert _there(mirror).keys() == {"a.onnx", "digits/2.onnx"}


def test_a_short_body_that_says_that_it_is_whole_is_none(faulty):
    proxy, mirror = faulty
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new" * 1000)

    def shorten(answer):
        if _is_read(answer):
            answer.body = answer.body[:100]
            answer.headers = [each for each in answer.headers if each[0].lower() != "content-length"]
            answer.headers.append(("Content-Length", "100"))

    proxy.tamper = shorten
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"old" * 1000}


def test_an_object_that_is_replaced_while_it_is_read_is_read_again(faulty):
    proxy, mirror = faulty
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"mid" * 1000)
    reads = []

    def replace(answer):
        if _is_read(answer):
            reads.append(answer)
            if len(reads) == 1:  # the first half of this body came before, the second comes after
                proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new" * 1000)
                answer.body = b"mid" * 500 + b"new" * 500

    proxy.tamper = replace
    mirror.sync()
    assert len(reads) == 2
    assert _there(mirror) == {"a.onnx": b"new" * 1000}


def test_an_object_that_is_always_replaced_keeps_its_last_content(faulty, caplog):
    proxy, mirror = faulty
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new")

    def replace(answer):
        if _is_read(answer):
            proxy.client.put_object(**proxy.key("a.onnx"), Body=os.urandom(3000))

    proxy.tamper = replace
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"old" * 1000}
    assert "a.onnx changed, or came cut short, each time that it was read" in caplog.text


def test_a_listing_that_lags_does_not_bring_back_what_was(faulty, caplog):
    proxy, mirror = faulty
    listing = []

    def lag(answer):
        if "list-type=2" in answer.path and "max-keys=1&" not in answer.path:
            listing.append(answer)
            answer.status, answer.headers, answer.body = listing[0].status, listing[0].headers, listing[0].body

    proxy.tamper = lag
    mirror.sync()
    assert listing
    proxy.client.put_object(**proxy.key("a.onnx"), Body=b"new" * 1000)
    proxy.client.put_object(**proxy.key("b.onnx"), Body=b"b")
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"old" * 1000}  # nothing is known of it yet
    proxy.tamper = None
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"new" * 1000, "b.onnx": b"b"}
    inode = (mirror.folder / "a.onnx").stat().st_ino
    proxy.tamper = lag  # of another machine of the store, which is behind: without b, and with the old tag of a
    mirror.sync()
    assert _there(mirror) == {"a.onnx": b"new" * 1000, "b.onnx": b"b"}
    assert (mirror.folder / "a.onnx").stat().st_ino == inode
    proxy.client.delete_object(**proxy.key("a.onnx"))
    mirror.sync()  # it is still listed, and not there
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    proxy.tamper = None
    mirror.sync()
    assert _there(mirror) == {"b.onnx": b"b"}


def test_what_a_store_gives_is_checked_as_a_local_file_is(store, tmp_path, small_models, other_models, processes):
    store("digits/1.onnx", (small_models / "sbn.onnx").read_bytes())
    mirror = _mirror(tmp_path)
    mirror.sync()
    repository = Repository(mirror.folder, versions=2)
    (first,) = repository.load().engines
    store("digits/2.onnx", b"no model")
    store("digits/3.onnx", (other_models / "sbn.onnx").read_bytes())
    mirror.sync()
    found = [registry for registry in (repository.poll() for _ in range(2)) if registry is not None][-1]
    assert [engine.version for engine in found.engines] == [3, 1]
    assert found.engines[1] is first
    (failure,) = found.failures
    assert failure.reason.startswith("digits/2.onnx is no ONNX model")
    repository.close()
