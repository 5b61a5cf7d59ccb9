"""What a worker does with a turn: `turn` from its claim to its end, `ending` what a log is owed, `ports` the model."""
