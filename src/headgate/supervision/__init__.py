"""Supervisors: who starts stages, starts them again, and stops them in order."""
