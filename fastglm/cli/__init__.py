"""The command line: ``fastglm infer``, ``fit``, ``collect`` and ``demo``.

| file | what it holds |
|---|---|
| `infer` | ``fastglm infer``: who drives whom, by the recipe |
| `fit` | ``fastglm fit``: coupling between all units |
| `sessions` | several files in one call, and ``fastglm collect`` |
| `demo` | ``fastglm demo``: a simulated network, fitted and drawn |
| `options` | the options of `infer` and `fit`, checked before a file is read |
| `covariates` | ``--covariate``: series and events of a file as covariates |
| `files` | files in and out: recordings, masks, models, tables, pictures, pages |
| `rows` | the table on the terminal |
| `terminal` | errors, warnings and the log, one line each |
"""

from __future__ import annotations

import os
import sys
import warnings
from contextlib import nullcontext

import click

from fastglm import __version__
from fastglm._files import sentence
from fastglm._progress import somebody_waits
from fastglm.cli.demo import demo
from fastglm.cli.fit import fit
from fastglm.cli.infer import infer
from fastglm.cli.sessions import collect
from fastglm.cli.terminal import fail, show_warning, shown_log


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastglm")
def cli() -> None:
    """Exact, fully coupled GLMs of neural populations."""


for command in (infer, fit, collect, demo):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: exit code 2 and one line on standard error for bad input."""
    try:
        lines = nullcontext() if somebody_waits() else shown_log("fastglm.progress")
        with warnings.catch_warnings(), lines:
            warnings.showwarning = show_warning
            cli.main(args=arguments, prog_name="fastglm", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
    except click.ClickException as error:
        fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("fastglm: interrupted", err=True)
        sys.exit(130)
    except Exception as error:  # whatever a file or an argument led to
        if os.environ.get("FASTGLM_TRACEBACK"):
            raise
        fail(sentence(error))


__all__ = ["main"]
