"""The `bgan` command, for launchers that start modules."""

from .cli.app import main

main()
