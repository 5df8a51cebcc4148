"""``python -m fastglm``: the command line."""

from fastglm.cli import main

if __name__ == "__main__":
    main()
