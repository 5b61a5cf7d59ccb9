"""Conversations: `conversations` is what doors ask for, `ports` what a database must promise, claims included."""
