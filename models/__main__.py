"""`python -m models` is the same as the command `models`."""

from models.cli import main

main()
