"""Conversations: what doors ask for is `conversations` and `tasks`; `removal` has what was deleted go; `ports` is what
a database must promise, claims included."""
