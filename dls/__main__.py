"""Run the command line with `python -m dls`, as the client does on the host."""

from dls.cli.main import main

main()
