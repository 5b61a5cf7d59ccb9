"""Tests of the embedded servers: the real ones, as this machine can run them."""
