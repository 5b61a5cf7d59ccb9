"""The tests of consumers."""
