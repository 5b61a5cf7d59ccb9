"""The Python client: what it makes of bytes, of services that misbehave, and of the real one."""
