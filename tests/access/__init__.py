"""The room that knows who is asking."""
