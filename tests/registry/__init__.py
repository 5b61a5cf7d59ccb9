"""The tests of registry."""
