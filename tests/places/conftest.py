"""Every scenario here runs at every place."""

import pytest


@pytest.fixture(params=["inline", "task", "thread", "process"])
def place(request):
    return request.param
