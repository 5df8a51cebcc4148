"""What stands on the terminal: tables on standard output, all else on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from fastglm._files import one_line


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


def show_warning(message, category, filename, lineno, file=None, line=None):
    """A warning as one line; takes the place of ``warnings.showwarning``."""
    click.echo(f"warning: {one_line(message)}", err=True)


def fail(message: str) -> None:
    """End with exit code 2 and a line."""
    click.echo(f"fastglm: error: {one_line(message)}", err=True)
    sys.exit(2)


@contextmanager
def shown_log(name: str = "fastglm") -> Iterator[None]:
    """Shows what the library logs: what it left out by a rule of its own."""
    logger = logging.getLogger(name)
    handler, level = _Echo(logging.INFO), logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Echo(logging.Handler):
    """A line on standard error for each record."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)
