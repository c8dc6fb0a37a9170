"""Descriptions: what they take, that they can be sent, what they refuse."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from operator import itemgetter
from typing import Any

import pytest

from headgate.errors import OptionError
from headgate.flow import triggers, watermarks, windows

EVERYTHING = [
    windows.global_(trigger=triggers.custom(list, max)),
    windows.count(5, fill=True, trigger=triggers.every(2)),
    windows.periodic(timedelta(seconds=5), fill=2),
    windows.fixed(
        timedelta(hours=1),
        "at",
        offset=-600,
        allowed_lateness=60,
        watermark=watermarks.out_of_order(timedelta(minutes=5)),
        idle_after=30,
        fill=10,
        trigger=triggers.on_watermark(early=triggers.periodically(5), late=triggers.every(1), accumulator="reset"),
    ),
    windows.tumbling(60, itemgetter(1), watermark=watermarks.at_end()),
    windows.sliding(60, 10, 0, trigger=triggers.any_of(triggers.every(3), triggers.once(triggers.every(2)))),
    windows.session(30, "at", watermark=watermarks.told(itemgetter(2))),
    windows.session(30, "at", trigger=triggers.repeat(triggers.all_of(triggers.every(3), triggers.periodically(9)), 4)),
]


@pytest.mark.parametrize("spec", EVERYTHING, ids=lambda spec: spec.kind)
def test_they_are_data(spec):
    with pytest.raises(FrozenInstanceError):
        spec.trigger = None
    assert repr(pickle.loads(pickle.dumps(spec))) == repr(spec)
    assert replace(spec, trigger=None).trigger is None


@pytest.mark.parametrize("minutes", [60, 600, 6000])
def test_durations_in_any_form_are_the_same(minutes):
    """F135, FL-064: by timedelta where Flow has units."""
    period = timedelta(minutes=minutes)
    trigger = triggers.periodically(period)
    state = trigger.begin(0.0)
    state.added(1, 0.0)
    assert state.deadline() == minutes * 60
    assert state.tick(minutes * 60) == (("periodically", minutes * 60), "keep")


def wrong(value) -> Any:
    """A value of the wrong type, which a type checker would find, too."""
    return value


@pytest.mark.parametrize(
    ("make", "option", "where"),
    [
        (lambda: windows.count(0), "count", "windows.count"),
        (lambda: windows.count(True), "count", "windows.count"),
        (lambda: windows.count(wrong(2.0)), "count", "windows.count"),
        (lambda: windows.fixed(0, "at"), "size", "windows.fixed"),
        (lambda: windows.fixed(wrong("hour"), "at"), "size", "windows.fixed"),
        (lambda: windows.fixed(5, wrong(None)), "by", "windows.fixed"),
        (lambda: windows.fixed(5, "at", offset=wrong("x")), "offset", "windows.fixed"),
        (lambda: windows.fixed(5, "at", offset=float("nan")), "offset", "windows.fixed"),
        (lambda: windows.fixed(5, "at", allowed_lateness=-1), "allowed_lateness", "windows.fixed"),
        (lambda: windows.fixed(5, "at", watermark=wrong(5)), "watermark", "windows.fixed"),
        (lambda: windows.fixed(5, "at", idle_after=0), "idle_after", "windows.fixed"),
        (lambda: windows.fixed(5, "at", fill=-1), "fill", "windows.fixed"),
        (lambda: windows.fixed(5, "at", fill=True), "fill", "windows.fixed"),
        (lambda: windows.fixed(5, "at", trigger=wrong("every 5")), "trigger", "windows.fixed"),
        (lambda: windows.sliding(5, 6, "at"), "every", "windows.sliding"),
        (lambda: windows.sliding(timedelta(seconds=5), 6, "at"), "every", "windows.sliding"),
        (lambda: windows.sliding(5, 0, "at"), "every", "windows.sliding"),
        (lambda: windows.session(-1, "at"), "gap", "windows.session"),
        (lambda: windows.session(1, "at", trigger=triggers.custom(list, max)), "trigger", "windows.session"),
        (lambda: windows.periodic(0), "every", "windows.periodic"),
        (lambda: windows.global_(trigger=triggers.on_watermark()), "trigger", "windows.global"),
        (lambda: windows.count(5, trigger=triggers.repeat(triggers.on_watermark())), "trigger", "windows.count"),
        (lambda: windows.periodic(5, trigger=triggers.all_of(triggers.on_watermark())), "trigger", "windows.periodic"),
        (lambda: watermarks.out_of_order(-1), "bound", "watermarks.out_of_order"),
        (lambda: watermarks.out_of_order(wrong(None)), "bound", "watermarks.out_of_order"),
        (lambda: watermarks.told(wrong("at")), "function", "watermarks.told"),
        (lambda: triggers.every(0), "count", "triggers.every"),
        (lambda: triggers.every(5, accumulator="discard"), "accumulator", "triggers.every"),
        (lambda: triggers.periodically(0), "period", "triggers.periodically"),
        (lambda: triggers.on_watermark(early=wrong(5)), "early", "triggers.on_watermark"),
        (lambda: triggers.on_watermark(late=triggers.custom(list, max)), "late", "triggers.on_watermark"),
        (lambda: triggers.any_of(*[]), "parts", "triggers.any_of"),
        (lambda: triggers.all_of(triggers.every(1), wrong(None)), "parts", "triggers.all_of"),
        (lambda: triggers.repeat(wrong(5)), "part", "triggers.repeat"),
        (lambda: triggers.repeat(triggers.every(1), 0), "times", "triggers.repeat"),
        (lambda: triggers.custom(wrong(5), max), "init", "triggers.custom"),
        (lambda: triggers.custom(list, wrong(None)), "function", "triggers.custom"),
    ],
)
def test_bad_options_are_named(make, option, where):
    with pytest.raises(OptionError) as caught:
        make()
    assert (caught.value.option, caught.value.where) == (option, where)
