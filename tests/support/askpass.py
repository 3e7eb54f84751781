"""A person for OpenSSH's `ssh`: a program that ssh asks instead of a terminal (SSH_ASKPASS), and that answers from a
script."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = """#!{python} -IS
import json, os, sys
folder, prompt = {folder!r}, sys.argv[1]
kind = os.environ.get("SSH_ASKPASS_PROMPT", "")
with open(folder + "/asked", "a") as file:
    file.write(json.dumps([prompt, kind]) + "\\n")
with open(folder + "/answers") as file:
    answers = json.load(file)
key = next((key for key in answers if key in prompt), None)
if key is None or not answers[key]:
    sys.exit(0 if kind == "none" else 1)
answer = answers[key] if isinstance(answers[key], str) else answers[key].pop(0)
with open(folder + "/answers", "w") as file:
    json.dump(answers, file)
print(answer)
sys.exit(kind == "confirm" and answer != "yes")
"""


class Askpass:
    """Answers each prompt with the first entry whose key is part of it; a sequence is used in turn.

    A prompt without an answer is refused, as a person does who presses Ctrl-C.
    """

    def __init__(self, folder: Path, answers: Mapping[str, str | Sequence[str]]) -> None:
        self._asked = folder / "asked"
        self._asked.write_text("")
        (folder / "answers").write_text(json.dumps(answers))
        program = folder / "askpass"
        program.write_text(PROGRAM.format(python=sys.executable, folder=str(folder)))
        program.chmod(0o755)
        self.env = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
        """Environment that lets ssh ask this program."""

    @property
    def asked(self) -> list[str]:
        """The prompts in order."""
        return [json.loads(line)[0] for line in self._asked.read_text().splitlines()]
