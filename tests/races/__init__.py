"""Races that need no processes: virtual time, shuffled order, every run replayable."""
