"""Headgate beside the plain loop and other Python libraries, measured in the same run.

Run with ``make bench`` or ``python -m benchmarks``; ``--list`` names the rows. Nothing here asserts a time: a
run fails only when a contender computes something wrong, crashes or hangs. Compare ratios within one run,
never figures of two runs.
"""
