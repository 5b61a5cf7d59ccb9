"""The doors over HTTP: parse, one call inward, format.

`app` has the table of routes, `sessions` and `tasks` their handlers, `sse` the stream on the wire, `problems` the one
table from errors to statuses, `bodies` what may be posted, `local` who may ask at all, `health` how things are,
`listener` the way in, `connection` what holds for each connection, `stalled` how long a client is waited for.
"""
