"""Tests of service.cli: the command as a user runs it."""
