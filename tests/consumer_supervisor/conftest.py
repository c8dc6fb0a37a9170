"""Most scenarios run with all three kinds of children."""

import logging

import pytest

from tests.consumer_supervisor.helpers import KINDS


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Keep what children fail with out of the reports of other tests."""
    caplog.set_level(logging.WARNING, logger="headgate")
