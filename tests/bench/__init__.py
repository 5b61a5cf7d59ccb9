"""Benchmarks: what the service reaches, as ratios against something else that is measured in the same run.

`python -m tests.bench` measures everything and prints one table; `python -m tests.bench M3 M5` measures a choice,
`--quick` a small version of it, `--profile M1 M3` shows where the time of our side goes.

Each workload is a module: `appending` (M1), `idle` (M2), `fanout` (M3), `replaying` (M5), `turns` (M13), `starting`
(M14), `browsing` (M15). What they measure against: `naive`, the obvious design; `nchan`, the peer in C; redis-
benchmark. What they share: `table` makes rows of samples, `ground` has the stores, `processes` starts and ends servers,
`ours` is our side, `sides` puts a log's writers and readers together, `crowd` and `readers` are the readers, `sender`
shows what they alone can take.
"""
