"""The file of tokens, and what is found in it."""

import hashlib
import stat
from datetime import UTC, datetime, timedelta

import pytest

from bgan.serving.errors import TokenFileError
from bgan.serving.security.tokens import Token, find_token, make_token, read_tokens
from tests.kit.limits import files_of_at_most

HASH = "0" * 64


def _make(path, name="alice", **arguments):
    return make_token(path, name, **{"models": ["*"], "images_per_minute": None, "expires": None, **arguments})


def test_a_new_file_is_for_its_owner_alone_and_holds_the_hash_alone(tmp_path):
    path = tmp_path / "tokens.toml"
    token = _make(path, models=["a", "b-*"], images_per_minute=9, expires=datetime(2100, 1, 1, tzinfo=UTC))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_text()
    assert token.rpartition("_")[2] not in content
    kept = read_tokens(path)["alice"]
    assert kept.sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert (kept.models, kept.images_per_minute) == (["a", "b-*"], 9)
    assert kept.expires == datetime(2100, 1, 1, tzinfo=UTC)
    assert len(token.rpartition("_")[2]) == 64


def test_another_token_is_added_in_place(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text("# mine, and the last line is not ended")
    path.chmod(0o640)
    inode = path.stat().st_ino
    tokens = {name: _make(path, name) for name in ("alice", "bob-2")}
    assert path.read_text().startswith("# mine, and the last line is not ended\n\n[alice]\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert path.stat().st_ino == inode
    found = read_tokens(path)
    assert {name: find_token(found, token) for name, token in tokens.items()} == {
        "alice": "alice",
        "bob-2": "bob-2",
    }


def test_only_a_whole_token_is_found(tmp_path):
    path = tmp_path / "tokens.toml"
    token = _make(path)
    other = _make(path, "bob")
    tokens = read_tokens(path)
    assert find_token(tokens, token) == "alice"
    secret = other.rpartition("_")[2]
    for wrong in (
        "",
        "_",
        "alice",
        token[:-1],
        token + "0",
        token.upper(),
        f"bgan_alice_{secret}",
        f"x{token}",
        "ä",
    ):
        assert find_token(tokens, wrong) is None
    assert find_token({}, token) is None


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a_b", "ä", "x" * 65])
def test_names_that_are_none_are_refused(tmp_path, name):
    with pytest.raises(TokenFileError, match="is not a name for a token"):
        _make(tmp_path / "tokens.toml", name)
    assert not (tmp_path / "tokens.toml").exists()


def test_a_name_is_given_once(tmp_path):
    path = tmp_path / "tokens.toml"
    _make(path)
    before = path.read_bytes()
    with pytest.raises(TokenFileError, match="already has a token alice; remove its lines first"):
        _make(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("x", "is not TOML"),
        ("\x00", "is not TOML"),
        ("a = 1", "'a' is not a table of a token"),
        (f"[a]\nsha256 = '{HASH}'", "a.models: field required"),
        ("[a]\nmodels = ['*']", "a.sha256: field required"),
        ("[a]\nmodels = ['*']\nsha256 = 'x'", "a.sha256: string should match"),
        (f"[a]\nmodels = []\nsha256 = '{HASH}'", "a.models: list should have at least 1"),
        (f"[a]\nmodels = '*'\nsha256 = '{HASH}'", "a.models: input should be a valid list"),
        (f"[a]\nmodels = ['*']\nsha256 = '{HASH}'\nimages_per_minute = 0", "a.images_per_minute: "),
        (f"[a]\nmodels = ['*']\nsha256 = '{HASH}'\nimages_per_minute = true", "a.images_per_minute: "),
        (f"[a]\nmodels = ['*']\nsha256 = '{HASH}'\nexpires = 2030-01-01", "a.expires: "),
        (f"[a]\nmodels = ['*']\nsha256 = '{HASH}'\nexpires = 2030-01-01T00:00:00", "a.expires: "),
        (f"[a]\nmodels = ['*']\nsha256 = '{HASH}'\nimages_a_minute = 1", "a.images_a_minute: extra"),
    ],
)
def test_files_that_are_no_good_are_one_line(tmp_path, content, says):
    path = tmp_path / "tokens.toml"
    path.write_text(content)
    with pytest.raises(TokenFileError) as caught:
        read_tokens(path)
    assert says in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(TokenFileError):
        _make(path, "b")
    assert path.read_text() == content


def test_a_token_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "tokens.toml"
    _make(path)
    before = path.read_bytes()
    with files_of_at_most(len(before) + 10), pytest.raises(TokenFileError, match="cannot be written"):
        _make(path, "bob")
    assert path.read_bytes() == before


def test_a_token_ends_when_it_says():
    now = datetime.now(UTC)
    for seconds, has_expired in ((-1, True), (60, False)):
        token = Token(sha256=HASH, models=["*"], expires=now + timedelta(seconds=seconds))
        assert token.has_expired() is has_expired
    assert not Token(sha256=HASH, models=["*"]).has_expired()
