"""`python -m service` is the `playhead` command."""

from service.cli.app import main

main()
