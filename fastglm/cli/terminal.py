"""What stands on the terminal: tables on standard output, all else on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fastglm._files import describe, one_line

_LOGGER = logging.getLogger("fastglm")


def print_table(rows: list[tuple[str, str]]) -> None:
    """Names and values, a line each."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def print_grid(rows: list[tuple]) -> None:
    """Rows of texts in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(f"{v:<{w}}" for v, w in zip(row, widths, strict=True)).rstrip())


def sentence(error: BaseException) -> str:
    """An error as one line for users."""
    if isinstance(error, ValueError | OSError | ImportError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return f"The memory is not enough. {one_line(error)}".strip()
    return (
        f"{describe(error)}. This is a fault of fastglm; please report it, with what "
        "FASTGLM_TRACEBACK=1 shows."
    )


def show_warning(message, category, filename, lineno, file=None, line=None):
    """A warning as one line; takes the place of ``warnings.showwarning``."""
    click.echo(f"warning: {one_line(message)}", err=True)


def fail(message: str) -> None:
    """End with exit code 2 and a line."""
    click.echo(f"fastglm: error: {one_line(message)}", err=True)
    sys.exit(2)


@contextmanager
def shown_log() -> Iterator[None]:
    """Shows what the library logs: what it left out by a rule of its own."""
    handler, level = _Echo(logging.INFO), _LOGGER.level
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        _LOGGER.setLevel(level)
        _LOGGER.removeHandler(handler)


class _Echo(logging.Handler):
    """A line on standard error for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)
