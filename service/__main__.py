"""`python -m service` is the `playhead` command."""

import gc
import signal

# While the rest is loaded, which takes a second, a Ctrl-C is an end without a traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# What is loaded stays: looking through it for garbage, again and again, takes a quarter of the start.
gc.disable()

from service.cli.app import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main()
