"""Pipelines: messages from a source, through processors and batchers, each acknowledged once."""
