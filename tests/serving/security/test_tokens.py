"""The file of tokens, and what is found in it."""

import hashlib
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest

from bgan.serving.errors import TokenFileError, UsageError
from bgan.serving.security.tokens import Token, find_token, make_token, read_tokens, remove_token
from tests.kit.cli import bgan
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
    with pytest.raises(UsageError, match="is not a name for a token"):
        _make(tmp_path / "tokens.toml", name)
    assert not (tmp_path / "tokens.toml").exists()


def test_a_name_is_given_once(tmp_path):
    path = tmp_path / "tokens.toml"
    _make(path)
    before = path.read_bytes()
    with pytest.raises(TokenFileError, match="already has a token alice; `bgan token revoke alice` removes it"):
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


def test_a_removed_token_takes_no_other_lines_with_it(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text("# mine\n\n")
    path.chmod(0o640)
    for name in ("alice", "bob", "carol"):
        _make(path, name)
    before = path.read_text()
    remove_token(path, "bob")
    assert list(read_tokens(path)) == ["alice", "carol"]
    (left,) = {line for line in before.splitlines() if line not in path.read_text().splitlines()} - {"[bob]"}
    assert left.startswith("sha256 = ")
    assert path.read_text().startswith("# mine\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(TokenFileError, match="has no token 'bob'; there are alice, carol"):
        remove_token(path, "bob")


def test_a_file_of_another_hand_is_not_cut_at_the_wrong_place(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'alice = {{sha256 = "{HASH}", models = ["*"]}}\n')
    before = path.read_text()
    with pytest.raises(TokenFileError, match="remove the lines of alice by hand"):
        remove_token(path, "alice")
    assert path.read_text() == before


def test_the_commands_make_list_and_revoke(tmp_path):
    def token(*arguments, code=0):
        result = bgan("token", *arguments, "--tokens", tmp_path / "tokens.toml")
        assert result.returncode == code, result.stderr
        return result

    made = token("create", "alice", "--model", "digits", "--model", "letters-*", "--images-per-minute", 9)
    assert made.stdout.startswith("bgan_alice_")
    old = token("bob", "--models", "a, b-*", "--days", 1)
    assert old.stderr.count("the old spelling goes with the next release") == 2
    assert "--models A,B is now --model A --model B" in old.stderr
    listed = json.loads(token("list", "--json").stdout)["tokens"]
    assert [each["name"] for each in listed] == ["alice", "bob"]
    assert listed[0] == {
        "name": "alice",
        "models": ["digits", "letters-*"],
        "images_per_minute": 9,
        "expires": None,
        "has_expired": False,
    }
    assert listed[1]["models"] == ["a", "b-*"]
    assert datetime.fromisoformat(listed[1]["expires"]) > datetime.now(UTC)
    heading, row, _ = token("list").stdout.splitlines()
    assert heading.split() == ["name", "models", "images/minute", "expires"]
    assert row.split() == ["alice", "digits,", "letters-*", "9", "never"]
    assert "sha256" not in token("list").stdout
    assert token("revoke", "alice").stdout == ""
    assert "has no token 'alice'; there are bob" in token("revoke", "alice", code=1).stderr
    assert "Make a token for a caller" in bgan("token", "create", "--help").stdout
    assert "revoke" in bgan("token", "--help").stdout
