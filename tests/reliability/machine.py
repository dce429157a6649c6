"""Conditions that need something of the machine: a disk that is full, and a clock that jumps."""

import os
import subprocess
from pathlib import Path

from tests.conftest import ROOT

_FAKETIME = "usr/lib/*/faketime/libfaketimeMT.so.1"
_AS_ROOT = () if os.geteuid() == 0 else ("--map-root-user",)
ON_SMALL_DISK = (
    *("unshare", "--mount", *_AS_ROOT),
    *("sh", "-c", 'mount -t tmpfs -o size=1m bgan-small "$1" && shift && exec "$@"', "sh"),
)
"""A program that takes a folder and a command, and runs it with an empty disk of 1 MiB at that folder."""
_RUN = """
mount -t tmpfs -o size="$1" bgan-small "$2" || exit 77
cd "$2" && shift 2
"$@"
code=$?
echo "left: $(ls -A | tr '\\n' ' ')"
exit $code
"""
_NO_MOUNT = 77


class NotHereError(Exception):
    """This machine does not have what a fault needs; the message says what."""


def run_on_small_disk(folder: Path, size: str, command: list, *, env=None) -> subprocess.CompletedProcess:
    """Run a command in an empty file system of that size, which is gone with it; stdout ends with what it left.

    The file system is mounted at `folder`, for this command alone. Raises NotHereError.
    """
    done = subprocess.run(
        ["unshare", "--mount", *_AS_ROOT, "sh", "-c", _RUN, "sh", size, folder, *map(str, command)],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    if done.returncode == _NO_MOUNT or "unshare" in done.stderr:
        raise NotHereError(f"no file system can be mounted here ({done.stderr.strip()})")
    return done


class Clock:
    """A wall clock for processes that are started with its variables; it jumps when it is told to.

    Only the wall clock, as on a machine whose time is set: Linux never moves the monotonic one.
    """

    def __init__(self, file: Path) -> None:
        """The clock is right until `jump`. Raises NotHereError without libfaketime."""
        found = [path for root in (ROOT / ".tools/faketime", Path("/")) for path in root.glob(_FAKETIME)]
        if not found:
            raise NotHereError("libfaketime is not installed; it is the Debian package libfaketime")
        self._file = file
        self.jump("+0")
        self.variables = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }

    def jump(self, by: str) -> None:
        """Set it so far from the right time, such as "+10y" or "-1h"."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{by}\n")
        new.rename(self._file)
