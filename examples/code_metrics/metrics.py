"""What is to be known of one file of Python: a parse and a walk through the tree, all of it work for a core."""

from __future__ import annotations

import ast
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension, ast.match_case)
"""What adds a way through a function (McCabe, "A Complexity Measure", 1976); so does each ``and`` and ``or``."""
NESTING = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.With, ast.AsyncWith, ast.Match)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
CODE = "<code>"
"""What files are called in warnings of the parser."""


class Function(NamedTuple):
    """A function; what is defined inside of it counts for itself."""

    path: str
    name: str  # with the classes and functions that it is in
    lines: int
    branches: int  # ways through it: 1 when there is no choice
    depth: int  # of blocks in blocks


_PARSER: Final = threading.Lock()
"""Two threads that parse at once get in each other's way (SystemError) in Python before 3.11.5."""


class File(NamedTuple):
    """One file. If it could not be parsed, ``error`` says why, and the rest is empty."""

    path: str
    lines: int = 0
    classes: int = 0
    functions: tuple[Function, ...] = ()
    names: dict[str, int] = {}  # noqa: RUF012 (nobody changes it)
    error: str = ""


def be_quiet() -> None:
    """Let the parser not warn of what is old-fashioned in other people's files."""
    warnings.filterwarnings("ignore", module=CODE)


def measure(path: str) -> File:
    """Read a file, parse it and count."""
    try:
        source = Path(path).read_bytes()
        with _PARSER:
            tree = ast.parse(source, filename=CODE)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return File(path, error=f"{type(error).__name__}: {error}".splitlines()[0])
    functions: list[Function] = []
    classes = 0
    names: Counter[str] = Counter()
    for qualified, scope in scopes(tree, ""):
        if isinstance(scope, ast.ClassDef):
            classes += 1
        else:
            branches, depth = complexity(scope)
            lines = (scope.end_lineno or scope.lineno) - scope.lineno + 1
            functions.append(Function(path, qualified, lines, branches, depth))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names[node.id] += 1
        elif isinstance(node, ast.Attribute):
            names[node.attr] += 1
    return File(path, source.count(b"\n"), classes, tuple(functions), dict(names))


Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def scopes(node: ast.AST, prefix: str) -> Iterator[tuple[str, Scope]]:
    """Find all functions and classes below a node, with their names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, SCOPES):
            name = f"{prefix}{child.name}"
            yield name, child
            yield from scopes(child, f"{name}.")
        else:
            yield from scopes(child, prefix)


def complexity(scope: ast.AST) -> tuple[int, int]:
    """Return the ways through a function, and the depth of its blocks."""
    branches, deepest = 1, 0
    waiting = [(child, 0) for child in ast.iter_child_nodes(scope)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, SCOPES):
            continue
        if isinstance(node, BRANCHES):
            branches += 1
        if isinstance(node, ast.BoolOp):
            branches += len(node.values) - 1
        inner = depth + isinstance(node, NESTING)
        deepest = max(deepest, inner)
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    chained = name == "orelse" and isinstance(child, ast.If) and len(value) == 1  # elif is no block
                    waiting.append((child, depth if chained else inner))
    return branches, deepest
