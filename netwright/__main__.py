"""python -m netwright: the command line."""

from netwright.cli import main

main()
