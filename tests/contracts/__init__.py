"""The tests of contracts."""
