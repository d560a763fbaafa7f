"""`python -m rig` is the same as the command `rig`."""

from rig.cli import main

main()
