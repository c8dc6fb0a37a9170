"""From ``module:attribute`` to an app, or to anything else in a module, or to one line that says why not."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from headgate.errors import HeadgateError
from headgate.runtime.options import Child
from headgate.supervision.supervisor import Supervisor

PACKAGE: Final = str(Path(__file__).parents[1])


class LoadError(Exception):
    """There is no such thing there; the message is one line."""

    def __init__(self, message: str, error: BaseException | None = None) -> None:
        """Keep the line, and what was raised by the user's code."""
        super().__init__(message)
        self.error = error

    def details(self, *, full: bool) -> str | None:
        """Return the traceback of what the user's code has raised.

        Args:
            full: With all frames, not only the user's.
        """
        error = self.error
        if error is None:
            return None
        if full:
            return "".join(traceback.format_exception(error))
        frames = [each for each in traceback.extract_tb(error.__traceback__) if not _is_machinery(each.filename)]
        head = ["Traceback (most recent call last):\n"] if frames else []
        return "".join([*head, *traceback.format_list(frames), *traceback.format_exception_only(error)])


def load(target: str) -> Any:
    """Find an app.

    Args:
        target: ``module:attribute``. The attribute is a `Supervisor`, a `Child`, a list of them, another app for
            ``async with``, or a function without arguments that returns one.

    Raises:
        LoadError: There is none, for the reason that its message gives.
    """
    return _app(find(target, "app", _is_app), target)


def find(target: str, kind: str, fits: Callable[[Any], bool]) -> Any:
    """Find anything in a module; the current folder can be imported from.

    Args:
        target: ``module:attribute``.
        kind: What is wanted, in a word, for messages.
        fits: Whether something is of that kind: what a module has of it is named when the attribute is missing.

    Raises:
        LoadError: There is none, for the reason that its message gives.
    """
    name, colon, path = target.partition(":")
    if not colon or not name or not path:
        raise LoadError(f"expected MODULE:{kind.upper()}, e.g. {_guess(target)}:{kind}; got: {target!r}")
    if name.endswith(".py") or "/" in name or os.sep in name:
        raise LoadError(f"expected a module, not a file: {_guess(name)}:{path}; got: {target!r}")
    value: Any = _module(name)
    for part in path.split("."):
        value = _attribute(value, part, name, path, fits)
    return value


def _module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            hint = f" ({error.name!r} is missing)" if error.name != name else ""
            raise LoadError(f"there is no module {name!r}{hint}; looked in {here} and where Python looks") from None
        raise LoadError(f"module {name!r} needs {error.name!r}, which is not installed", error) from None
    except SystemExit as error:
        raise LoadError(f"module {name!r} ends the program when it is imported (sys.exit)", error) from None
    except Exception as error:  # noqa: BLE001 (the user's module)
        raise LoadError(f"module {name!r} cannot be imported: {_line(error)}", error) from None


def _attribute(value: Any, part: str, module: str, path: str, fits: Callable[[Any], bool]) -> Any:
    try:
        return getattr(value, part)
    except AttributeError:
        names = [each for each in dir(value) if not each.startswith("_")]
        fitting = ", ".join(repr(each) for each in names if fits(getattr(value, each, None)))
        close = difflib.get_close_matches(part, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; it has {fitting}" if fitting else ""
        raise LoadError(f"module {module!r} has no {path!r}{hint}") from None


def _app(value: Any, target: str) -> Any:
    if inspect.isfunction(value) or inspect.ismethod(value):
        if inspect.iscoroutinefunction(value):
            raise LoadError(f"{target} is an async function; give an app, or a plain function that returns one")
        value = _made(value, target)
        target += "()"
    if isinstance(value, type):
        raise LoadError(f"{target} is a class; give an instance, e.g. Supervisor([...])")
    try:
        if isinstance(value, Child):
            return Supervisor([value], id=value.id)
        if isinstance(value, (list, tuple)) and value:
            return Supervisor(value, id="app")
    except HeadgateError as error:
        raise LoadError(f"{target} is no app: {error}") from None
    if not _is_app(value):
        expected = "expected a Supervisor, a Child, a list of them, or a function that returns one"
        raise LoadError(f"{target} is no app, but {_kind(value)}; {expected}")
    return value


def _made(function: Any, target: str) -> Any:
    """Call a function that makes an app."""
    try:
        needed = [
            each.name
            for each in inspect.signature(function).parameters.values()
            if each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ]
    except ValueError:  # it has no signature
        needed = []
    if needed:
        raise LoadError(f"{target} needs arguments ({', '.join(needed)}); give a function without any")
    try:
        return function()
    except Exception as error:  # noqa: BLE001 (the user's function)
        raise LoadError(f"{target}() has raised {_line(error)}", error) from None


def _is_app(value: Any) -> bool:
    kind = type(value)
    return isinstance(value, (Supervisor, Child)) or (hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"))


def _kind(value: Any) -> str:
    if value is None:
        return "None"
    if isinstance(value, ModuleType):
        return "a module"
    if isinstance(value, (list, tuple)):
        return f"an empty {type(value).__name__}"
    return f"of type {type(value).__name__}"


def _guess(target: str) -> str:
    """Return the module that was probably meant."""
    name = target.partition(":")[0].removesuffix(".py").replace("\\", ".").replace("/", ".").strip(".")
    return name or "module"


def _is_machinery(file: str) -> bool:
    return file.startswith((PACKAGE, "<frozen")) or f"{os.sep}importlib{os.sep}" in file


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
