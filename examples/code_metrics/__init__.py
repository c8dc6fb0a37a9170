"""How complicated is the standard library? Some 1,800 real files are parsed and measured, at three places.

::

    python -m examples.code_metrics                                  # in worker processes, one for each core
    python -m examples.code_metrics --place thread --workers 4
    python -m examples.code_metrics --place inline path/to/a/project

A stage gives paths, some measure files, one collects. That they measure on the event loop, in threads or in worker
processes is one argument (``place=`` in ``stages.py``); the outcome is the same. The time is not: a parse keeps a core
busy, threads of Python take turns on one, and only processes use the others.
"""
