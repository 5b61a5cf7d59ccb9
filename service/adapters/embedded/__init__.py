"""The embedded default: a real Valkey and a real PostgreSQL as child processes, for a machine that has neither.

The map: `stores` is the door (`embedded_stores`). `binaries` finds the programs, `folders` and `lock` make and guard
the places, `privileges` says as whom Postgres runs, `valkey` and `postgres` know their server, `supervised` keeps it
answering, `kept` runs one program under `keeper`, the script that stops it when we are gone. `processes` and `logfile`
read what the system and the servers say.
"""

from service.adapters.embedded.stores import StoreUrls, embedded_stores, running_stores

__all__ = ["StoreUrls", "embedded_stores", "running_stores"]
