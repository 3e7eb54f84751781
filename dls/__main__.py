"""`python -m dls`, the way the host runs our code."""

from dls.cli import main

main()
