"""``python -m mars``: the command line where the package is not installed."""

from mars.cli import main

main()
