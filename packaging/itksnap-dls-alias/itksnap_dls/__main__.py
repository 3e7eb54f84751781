"""Run `dls serve` with the options of `itksnap-dls`: `python -m itksnap_dls --port N`."""

from __future__ import annotations

import importlib.metadata
import io
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from itksnap_dls.command_line import NO_NGROK, make_parser, plan

ORIGINAL, OURS = "itksnap-dls", "dls-itksnap-alias"
"""The distributions that have a module of this name."""
PACKAGES_FAILED = 14
"""Exit code of dls for packages that are not installed; `dls.errors` can't be asked where dls is missing."""


def main() -> None:
    """Run the command line and end the process with the exit code of dls."""
    _send_everything_to_standard_output()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the server and return its exit code; raises SystemExit for a wrong option and for --help."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.ngrok:
        parser.error(NO_NGROK)
    if is_mixed_with_original(Path(__file__).parent):
        return _fail(
            f"The distribution {ORIGINAL} is installed here too, and its files have the names of those of {OURS}.",
            f"Remove both, then install the one that you want: pip uninstall {ORIGINAL} {OURS}",
        )
    try:
        from dls.cli.main import run as run_dls
    except ImportError as error:
        return _fail(f"The package {error.name} is not installed here.", 'Install it: pip install "dls[server]"')
    chosen = plan(
        options, has_nninteractive=is_nninteractive_installed(), has_secret=bool(os.environ.get("DLS_SECRET"))
    )
    for note in chosen.notes:
        print(f"Note: {note}", file=sys.stderr)
    return run_dls(list(chosen.arguments))


def is_mixed_with_original(folder: Path) -> bool:
    """Whether `itksnap-dls` has put its module into this folder too.

    One in another folder, such as the system's packages below a virtual environment, is in nobody's way.
    """
    found = importlib.metadata.distributions(name=ORIGINAL)
    return any(Path(str(each.locate_file(folder.name))).resolve() == folder.resolve() for each in found)


def is_nninteractive_installed() -> bool:
    """Whether the packages of dls's engine are installed; the client of nnInteractive alone has no `trainer`."""
    try:
        return all(find_spec(name) is not None for name in ("torch", "nnInteractive.trainer"))
    except ImportError:
        return False


def _send_everything_to_standard_output() -> None:
    """Send standard error to standard output, that of the engine's process too, unless output goes to a terminal.

    The window of current ITK-SNAP reads standard error only when standard output has something new, so a server that
    writes to standard error alone seems to say nothing. It reads UTF-8 on every system.
    """
    if sys.stdout is None or sys.stderr is None or sys.stdout.isatty():
        return
    # First the encoding: to change it, a stream that began on a file asks for its position, which a pipe has not.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.dup2(sys.stdout.fileno(), sys.stderr.fileno())


def _fail(message: str, hint: str) -> int:
    print(f"Error: {message}\nHint:  {hint}", file=sys.stderr)
    return PACKAGES_FAILED


if __name__ == "__main__":
    main()
