"""Tests of this folder may be coroutines."""

from tests.coroutines import within

pytest_pyfunc_call = within(10.0)
