"""What a worker does with a turn: `turn` from its claim to its end, `loop` its steps and what comes in between
them, `step` a model call with its tools, `model_call` a call that cannot last for ever, `context` what a model is
given, `ending` what a log is owed, `ports` the model and the tools."""
