"""The doors over HTTP: parse, one call inward, format.

`app` has the table of routes, each with what it takes, `sessions` and `tasks` their handlers, `sse` the stream on the
wire, `problems` the one table from errors to statuses, `bodies` what may be posted, `answers` what is answered,
`contract` what is promised of each route, `openapi` the document of it, `caching` what may be kept, `auth` who is
asking, `local` who may ask where nobody is asked that, `cors` which pages may, `request_ids` what a request is called,
`health` how things are, `listener` the way in, `connection` what holds for each connection, `stalled` how long a client
is waited for.
"""
