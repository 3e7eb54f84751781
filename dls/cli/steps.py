"""What the panel says first: which engine runs and why, and what to do in ITK-SNAP, step by step: pure.

A row is a mark, such as the number of a step, and a line: parts, each a text and a style. So this module needs no rich.
"""

from __future__ import annotations

from dls.engine_choice import EngineChoice

Part = tuple[str, str]
Line = list[Part]
Row = tuple[str, Line]

KEY, NAME, QUIET, PLAIN = "bold green", "bold", "dim", ""
"""Styles: what is typed, what is looked for on the screen, what explains, and the rest."""
LASSO_NAME = "nnInteractive"
"""The model for which ITK-SNAP has a lasso."""
PREFERENCES = "Preferences › AI Extensions › New…"  # noqa: RUF001 - as menus are written


def engine_lines(choice: EngineChoice, engine: str, device: str, command: str) -> list[Row]:
    """Return which engine runs, and why; where it was chosen for the user, also how to have the other one.

    `engine` and `device` are what the server says of itself, `command` is the command line that began all this.
    """
    if not choice.reason:
        return [("", [(engine, NAME), (f" on {device}", PLAIN)])]
    other = command.replace("dls connect", f"dls connect --engine {choice.other}", 1)
    return [
        ("", [(engine, NAME), (choice.reason.removeprefix(engine), PLAIN)]),
        ("", [(f"The other engine: {other}", QUIET)]),
    ]


def brief(models: tuple[str, ...]) -> list[Row]:
    """Return the steps in one line, for who knows them."""
    model = choose_model(models)
    line = [("In ITK-SNAP: paintbrush, ", PLAIN), ("AI", NAME), (", model ", PLAIN), (model, NAME), (", draw.", PLAIN)]
    return [("", [*line, (" --steps says more.", QUIET)])]


def whole(models: tuple[str, ...]) -> list[Row]:
    """Return all steps in ITK-SNAP for a server with these models, by the names that ITK-SNAP shows."""
    steps: list[Line] = [
        [("Open an image, choose the ", PLAIN), ("paintbrush", NAME), (" and press its ", PLAIN), ("AI", NAME),
         (" button.", PLAIN)],
        [("Once: ", PLAIN), (PREFERENCES, NAME), (", with the Server and Port above.", PLAIN)],
        [("Choose the model ", PLAIN), (choose_model(models), NAME), (".", PLAIN)],
        [("Draw: the ", PLAIN), ("left", NAME), (" button adds, the ", PLAIN), ("right", NAME),
         (" one removes.", PLAIN)],
        _lasso(models),
    ]  # fmt: skip
    return [(str(number), step) for number, step in enumerate(steps, 1)]


def choose_model(models: tuple[str, ...]) -> str:
    """Return the name of the model to choose: the one that has a lasso, where there is one."""
    return LASSO_NAME if LASSO_NAME in models else models[0]


def _lasso(models: tuple[str, ...]) -> Line:
    if LASSO_NAME in models:
        return [("For a lasso, draw the outline with the ", PLAIN), ("polygon", NAME), (" tool.", PLAIN)]
    return [
        ("The lasso (", PLAIN), ("polygon", NAME), (" tool) asks for a model named ", PLAIN), (LASSO_NAME, NAME),
        ("; --stand-in lists ", PLAIN), (models[0], PLAIN), (" under that name.", PLAIN),
    ]  # fmt: skip
