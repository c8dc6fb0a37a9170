"""The seeded simulation of the shell: real systems on an event loop with a virtual clock.

Beside `headgate.testing.simulation`, which has the pure protocol in its hands message by message, this one runs what is
around it: `System`, drivers, tasks, threads, timers, cancellation. Topology, options, the order of callbacks, times and
faults are chosen by a seed. At random moments the numbers of all stages must add up; at the end nothing may be lost,
given twice without a crash that explains it, out of order, hanging, or left behind.

::

    python -m headgate.testing.shell --families all --schedules 2000
    python -m headgate.testing.shell --families chain --seed 4711 --trace
"""

from headgate.testing.seeds import Summary
from headgate.testing.shell.families import FAMILIES
from headgate.testing.shell.runner import ShellError, run_all, run_family, run_seed, uncovered
from headgate.testing.shell.world import Violation, World

__all__ = ["FAMILIES", "ShellError", "Summary", "Violation", "World", "run_all", "run_family", "run_seed", "uncovered"]
