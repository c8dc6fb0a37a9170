"""The seeded simulator of the protocol, and the exhaustive search of small configurations.

Stages are the real cores (`headgate.protocol`), users are scripts, and everything in between is chosen by a seed: which
message arrives next, when a handler returns, who crashes. After every single action oracles look at the stage that it
touched; at the end nothing may be lost, doubled without a crash that explains it, or left behind. The machines of
pipelines are driven one by one, each beside a slow model of itself.

::

    python -m headgate.testing.simulation --schedules 10000
    python -m headgate.testing.simulation --family chain --seed 4711 --trace
"""

from headgate.testing.seeds import Summary
from headgate.testing.simulation.oracles import Violation
from headgate.testing.simulation.runner import FAMILIES, SimulationError, run_all, run_family, run_seed, uncovered

__all__ = ["FAMILIES", "SimulationError", "Summary", "Violation", "run_all", "run_family", "run_seed", "uncovered"]
