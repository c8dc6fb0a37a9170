"""Whole pipelines in virtual time: families of `headgate.testing.shell`, with sources that keep a ledger."""

from headgate.testing.shell.pipelines.families import EXPECTED, PIPELINES
from headgate.testing.shell.pipelines.world import PipelineWorld

__all__ = ["EXPECTED", "PIPELINES", "PipelineWorld"]
