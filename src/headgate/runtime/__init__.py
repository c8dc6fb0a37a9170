"""Drivers: what runs the protocol, on an event loop, in tasks and in threads."""
