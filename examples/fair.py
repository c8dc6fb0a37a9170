"""Fairness: one user has put in 100,000 jobs, then another one 10. Who waits for whom?

Run the comparison, or the fair one alone::

    python -m examples.fair
    headgate run examples.fair:app

The same two users, the same worker, two dispatchers. In the order of arrival Bob waits for all of Ann's jobs. With
`FairDispatcher` a round gives each user a quantum of 10, so his 10 are done within the first round. It prints::

    in the order of arrival: Bob's 10 jobs were done after 100,010 jobs
    fair between users:      Bob's 10 jobs were done after 20 jobs, in the first round
    fair between users:      all 100,010 jobs were done in the end

"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import headgate
from headgate import (
    Child,
    Consumer,
    DemandDispatcher,
    Dispatcher,
    FairDispatcher,
    Producer,
    Subscription,
    Supervisor,
    To,
)

QUANTUM = 10


class Job(NamedTuple):
    """One event."""

    user: str
    number: int


class Inbox(Producer):
    """Holds what the users have put in. It needs no handle_demand: everything it has, it emits by itself."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def started(self) -> None:
        self.stage.emit(self.jobs)  # nobody has asked yet: they wait in the stage's buffer
        self.stage.finish()


class Worker(Consumer):
    """Does jobs, and remembers in which order."""

    def __init__(self, report: Callable[[Sequence[Job]], None]) -> None:
        self.done: list[Job] = []
        self.report = report

    def handle_events(self, events: Sequence[Job], source: Subscription) -> None:
        self.done.extend(events)

    def terminate(self, reason: Any) -> None:
        self.report(self.done)


def pipeline(dispatcher: Dispatcher, report: Callable[[Sequence[Job]], None]) -> Supervisor:
    """Return an app that does all jobs, and reports them in the order in which they were done."""
    jobs = [Job("Ann", number) for number in range(100_000)] + [Job("Bob", number) for number in range(10)]
    return Supervisor(
        [
            Child(Inbox, jobs, name="inbox", dispatcher=dispatcher, buffer_size=len(jobs)),
            Child(Worker, report, subscribe_to=[To("inbox", max_demand=100)]),
        ]
    )


def when_done(user: str, done: Sequence[Job]) -> int:
    """Return how many jobs were done when the user's last one was."""
    return max(place for place, job in enumerate(done, start=1) if job.user == user)


def report_plain(done: Sequence[Job]) -> None:
    print(f"in the order of arrival: Bob's 10 jobs were done after {when_done('Bob', done):,} jobs")


def report_fair(done: Sequence[Job]) -> None:
    place = when_done("Bob", done)
    first_round = ", in the first round" if place <= 2 * QUANTUM else ""
    print(f"fair between users:      Bob's 10 jobs were done after {place} jobs{first_round}")
    print(f"fair between users:      all {len(done):,} jobs were done in the end")


app = pipeline(FairDispatcher(key=lambda job: job.user, quantum=QUANTUM), report_fair)

if __name__ == "__main__":
    headgate.run(pipeline(DemandDispatcher(), report_plain))
    headgate.run(app)
