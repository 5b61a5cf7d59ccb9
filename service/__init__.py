"""Playhead: runs AI agents as an event-sourced service that never loses a step.

The rooms, from the ground up; imports run downward only:

model       the nouns: ids, positions, events, errors; pure
registry    the stream registry: the only way into a log and the only way out
sessions    conversations: create, read, post; who works on what
agent       what a worker does with a turn
adapters    one technology a file, behind the ports of the rooms above
http        the doors over HTTP
client      the Python client; needs the model alone
wiring      puts adapters behind ports
settings    the one reader of the environment
cli         the `playhead` command
"""
