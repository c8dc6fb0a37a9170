"""Every scenario here runs at every place."""

import pytest

from tests.places.helpers import NEAR


@pytest.fixture(params=[*NEAR, pytest.param("process", marks=pytest.mark.slow)])
def place(request):
    return request.param
