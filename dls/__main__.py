"""`python -m dls`, the way the host runs our code."""

from dls.cli.main import main

main()
