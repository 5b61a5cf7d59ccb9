"""The fault bench: real processes on real stores, a proxy on every line between them, and checks from outside.

`wire` says what can be wrong with a line, `link` is the proxy that does it; `stores` are a Valkey and a PostgreSQL that
can be killed; `bench` has the processes and their links. `turns` asks for work, `recorder` reads it and forgets
nothing. `truth` looks into the stores, `checks` are the promises, `footprint` is what a process costs. `crowd` is a
load that checks itself, under which `battery` has everything go wrong, one after the other.
"""
