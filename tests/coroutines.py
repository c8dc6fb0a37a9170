"""Tests that are coroutines: each gets an event loop of its own, and a deadline."""

import asyncio
import inspect

import pytest


def within(seconds):
    """Return the hook for a conftest.py: tests of its folder may be coroutines, and take so long at most."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(pyfuncitem):
        if not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        wanted = inspect.signature(pyfuncitem.obj).parameters
        arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in wanted}

        async def bounded():
            async with asyncio.timeout(seconds):
                await pyfuncitem.obj(**arguments)

        asyncio.run(bounded())
        return True

    return pytest_pyfunc_call
