"""`Producer`, `ProducerConsumer`, `Consumer`: what users subclass.

A subclass defines the callbacks it needs, as plain functions or as ``async def``, and reaches its own runtime by
``self.stage``. Whatever ``Child`` is given beyond its own options goes to ``__init__``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from headgate.protocol.messages import CONSUMER, PRODUCER, PRODUCER_CONSUMER

if TYPE_CHECKING:
    from headgate.protocol.messages import End, Subscription, Terms
    from headgate.runtime.reference import StageContext

_Callback = TypeVar("_Callback", bound=Callable[..., Any])


def _default(function: _Callback) -> _Callback:
    """Mark a callback that is here for its documentation: a stage that does not define it has none."""
    function.__headgate_default__ = True  # type: ignore[attr-defined]
    return function


class Stage:
    """What all three have in common. Every callback is optional unless said otherwise."""

    role: ClassVar[str | None] = None
    stage: StageContext
    """The stage's own runtime; there from ``started`` on."""

    @_default
    def started(self) -> Any:
        """Run once before everything else, with ``self.stage`` in place.

        Raise `Stop` to end at once, or `Ignore` to have never been.
        """

    @_default
    def terminate(self, reason: Any) -> Any:
        """Run last, before the peers learn that the stage has ended. Not after a kill.

        Args:
            reason: ``"normal"``, ``"shutdown"``, a `StageCrashed`, or what the stage was stopped with.
        """

    @_default
    def handle_subscribe(self, role: str, options: Terms, peer: Subscription) -> Any:
        """Take note of a new subscription.

        Args:
            role: What the other side is: ``"producer"`` or ``"consumer"``.
            options: The terms that the consumer asked for.
            peer: The subscription.

        Returns:
            None or ``"automatic"``; as a consumer also ``"manual"``: nothing is asked but by ``self.stage.ask``.
        """

    @_default
    def handle_cancel(self, reason: End, peer: Subscription) -> Any:
        """Take note that a subscription has ended. A consumer then follows its cancel mode.

        Args:
            reason: `End`: ``kind`` is ``"cancel"`` or ``"down"``, ``reason`` is what was given.
            peer: The subscription.

        Returns:
            None, or (producing stages) events.
        """

    @_default
    def handle_call(self, request: Any) -> Any:
        """Answer a call: what is returned is the answer. To send events, use ``self.stage.emit``."""

    @_default
    def handle_cast(self, message: Any) -> Any:
        """Take a message that needs no answer. Producing stages may return events."""

    @_default
    def handle_info(self, message: Any) -> Any:
        """Take a message that came in order with the buffered events, or a `Down`.

        Producing stages may return events.
        """

    @_default
    def handle_discarded(self, count: int) -> Any:
        """Take note that the buffer dropped ``count`` events. Return True to have it logged as well."""


class Producer(Stage):
    """A stage that gives events to those who ask."""

    role = PRODUCER

    @_default
    def handle_demand(self, demand: int) -> Any:
        """Give events for demand.

        Args:
            demand: How many more events are wanted now, at least 1.

        Returns:
            Any sequence of events, up to ``demand`` of them; fewer or None when there are not so many yet. What is then
            still owed is ``self.stage.demand``, and is served by ``self.stage.emit`` whenever there is more; this
            callback is not repeated for it.
        """


class ProducerConsumer(Stage):
    """A stage in the middle: it receives events and gives others for them. ``handle_events`` is required."""

    role = PRODUCER_CONSUMER

    @_default
    def handle_events(self, events: Any, source: Subscription) -> Any:
        """Turn events into others.

        Args:
            events: A batch: the kind of sequence that the producer gave, at most ``max_demand - min_demand`` long.
            source: The subscription that they came by.

        Returns:
            Any sequence of events, or None. The input is acknowledged when all of these are handled.
        """


class Consumer(Stage):
    """A stage at the end: it receives events. ``handle_events`` is required."""

    role = CONSUMER

    @_default
    def handle_events(self, events: Any, source: Subscription) -> Any:
        """Handle a batch of events; they are acknowledged when this returns.

        Args:
            events: The kind of sequence that the producer gave, at most ``max_demand - min_demand`` long.
            source: The subscription that they came by.

        Returns:
            None.
        """
