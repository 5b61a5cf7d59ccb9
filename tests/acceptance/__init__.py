"""The tests of acceptance."""
