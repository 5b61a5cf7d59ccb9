"""Tests of service.sessions: what a door can ask of conversations."""
