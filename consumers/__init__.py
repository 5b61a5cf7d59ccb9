"""The doors through which work comes in by itself. `python -m consumers tasks` runs a worker."""
