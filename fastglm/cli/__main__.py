"""``python -m fastglm.cli``: the command line."""

from fastglm.cli import main

main()
