"""The stream registry: logs that are written once and can be followed from any position.

`writer` is the only way in, `follow` the only way out. Between them: `pages` reads what is stored, `hub` receives what
is hinted at, `replay` folds a whole log. `ports` says what a store, a carrier of hints and the database must promise.
"""
