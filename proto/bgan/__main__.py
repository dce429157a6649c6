"""The `bgan` command for launchers that start modules, such as torchrun."""

from bgan.trainer.cli.app import main

main()
