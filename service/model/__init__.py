"""The nouns: pure values and decisions, no await and no I/O."""
