"""`python -m voiced` is the `voiced` command."""

from voiced.cli import main

main()
