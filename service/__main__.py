"""`python -m service` is the `playhead` command."""

import signal

# While the rest is loaded, which takes a second, a Ctrl-C is an end without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
