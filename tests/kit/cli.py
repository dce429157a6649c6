"""The command line, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

BGAN = Path(sys.executable).with_name("bgan")


def bgan(*arguments, cwd=None, env=None, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [str(BGAN), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(env or {})},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **options,
    )
