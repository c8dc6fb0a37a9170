"""A year of flights into a database of delays: the main example of Headgate.

Run it with `python -m examples.flights`; see `python -m examples.flights --help`. Read it in this order:

1. `job`: which stages there are and how they are connected. This is where the library is used.
2. `stages`: what each stage does with what it gets.
3. `flight`, `tally`: what a row means and how delays add up. Plain functions that know nothing of stages.
4. `source`, `store`, `report`: the file, the database, and the check that no row was lost.
5. `progress`, `summary`, `__main__`: what is on the screen.
"""

from .job import Job, load_flights
from .report import LostRowsError, Report
from .source import InputError

__all__ = ["InputError", "Job", "LostRowsError", "Report", "load_flights"]
