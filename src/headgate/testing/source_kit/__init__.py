"""The parts of `headgate.testing.check_source`: what drives a source, the rules, and random scripts."""
