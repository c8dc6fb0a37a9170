"""Dispatchers: who gets which events."""
