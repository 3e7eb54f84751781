"""Fetch a model with the code of dls on the host; runs in the environment there, its argument is a `ModelSpec` in JSON.

Prints lines of progress, `progress`, a tab and the text; then `there` or `fetched`, a tab and the model's folder; or
`failed`, a tab, the message, a tab and the hint. The licence of what it fetched follows: `licence`, a tab and the text.
"""

import json
import sys
from pathlib import Path

from dls import weights
from dls.errors import DlsError


def say(*fields: str) -> None:
    """Print a line of fields."""
    print("\t".join(" ".join(field.split()) for field in fields), flush=True)


def main() -> None:
    """Fetch the model unless it is there."""
    fields = json.loads(sys.argv[1])
    for name in ("path", "ca_bundle"):
        fields[name] = Path(fields[name]).expanduser() if fields[name] else None
    spec = weights.ModelSpec(**fields)
    try:
        folder = weights.locate(spec)
        if folder is not None:
            say("there", str(folder))
            return
        folder = weights.fetch(spec, lambda text, *_: say("progress", text))
    except DlsError as error:
        say("failed", error.message, error.hint)
        sys.exit(1)
    say("fetched", str(folder))
    say("licence", weights.read_license(folder))


if __name__ == "__main__":
    main()
