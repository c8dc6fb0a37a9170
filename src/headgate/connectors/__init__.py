"""Sources and sinks, one module a system. A module is imported only by who uses it."""
