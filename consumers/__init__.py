"""The doors through which work comes in by itself. `python -m consumers tasks|archiver` runs one of them."""
