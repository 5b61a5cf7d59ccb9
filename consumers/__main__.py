"""`python -m consumers tasks`: a worker alone, as many times as there are machines for it."""

from service.cli.app import app

app(["serve", "--only", "tasks"])
