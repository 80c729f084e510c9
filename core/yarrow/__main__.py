"""`python -m yarrow` is the command `yarrow`."""

from yarrow.cli import main

main(prog_name="yarrow")
