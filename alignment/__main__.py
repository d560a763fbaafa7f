"""`python -m alignment` is the same as the command `alignment`."""

from alignment.cli import main

main()
