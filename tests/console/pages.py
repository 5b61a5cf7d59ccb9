"""Where the page's files are."""

from tests.conftest import REPOSITORY

STATIC = REPOSITORY / "service" / "http" / "console" / "static"
