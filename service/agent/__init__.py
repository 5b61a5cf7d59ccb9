"""What a worker does with a turn: `turn` from its claim to its end, `model_call` a call that cannot last for ever,
`ending` what a log is owed, `ports` the model."""
