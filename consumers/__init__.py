"""The doors through which work comes in by itself. `python -m consumers <name>` runs one of them."""
