"""The tests of http."""
