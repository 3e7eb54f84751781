"""The program that `ssh` runs to ask a question (SSH_ASKPASS): hands it to dls over a Unix socket, prints the answer.

It runs alone, without our package, and writes nothing to standard error, which is that of `ssh`.
"""

import json
import os
import socket
import sys


def main() -> None:
    """Ask one question and end with status 1 where it gets no answer."""
    question = {"prompt": " ".join(sys.argv[1:]), "kind": os.environ.get("SSH_ASKPASS_PROMPT", "")}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(os.environ["DLS_ASKPASS"])
            connection.sendall(json.dumps(question).encode() + b"\n")
            with connection.makefile("rb") as stream:
                answer = json.loads(stream.readline() or b"null")
        except (OSError, ValueError, KeyError):
            answer = None
    if answer is None:
        sys.exit(1)
    sys.stdout.write(answer + "\n")


if __name__ == "__main__":
    main()
