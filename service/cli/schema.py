"""`playhead schema`: the database's DDL."""

import asyncio

import typer

from service.adapters.postgres_schema import KNOWN_VERSION, apply_schema, schema_sql
from service.cli.streams import write_out
from service.model.errors import ConfigurationError
from service.settings import load_settings

schema = typer.Typer(no_args_is_help=True, help="The database's schema.")


@schema.command("print")
def print_schema() -> None:
    """Print the whole DDL."""
    write_out(schema_sql())


@schema.command("apply")
def apply() -> None:
    """Make the database at PLAYHEAD_POSTGRES_URL ready; harmless to repeat."""
    url = load_settings().postgres_url
    if url is None:
        raise ConfigurationError("PLAYHEAD_POSTGRES_URL: not set (the embedded database gets its schema by itself)")
    applied = asyncio.run(apply_schema(url))
    write_out(f"schema version {KNOWN_VERSION} {'applied' if applied else 'was there already'}\n")
