"""Help in groups: the commands of `dls --help` by what they are for, the options of a command by theirs.

This module is imported by `dls --help`, so it imports click alone.
"""

from __future__ import annotations

import inspect

import click

COMMAND_GROUPS = (
    ("Segment", ("connect", "demo", "segment", "serve"), "dls connect ann@gpuhost"),
    ("Look", ("status", "logs", "sessions", "doctor", "check"), "dls status ann@gpuhost"),
    ("Prepare a host, and clean up", ("models", "pack", "stop", "uninstall"), "dls models push ann@gpuhost"),
    ("This computer", ("hosts", "forget", "completion", "help", "version"), "dls completion bash"),
)
"""Headings of `dls --help`, the commands below each, and an example."""
OTHER = "Other commands"
EXAMPLE = "Example: "
"""How a paragraph of a command's description begins that is an example."""

OPTION_GROUPS = (
    (
        "Login",
        "ssh_config identities ssh_port user jump ssh_options address_family verbose carrier via through_exec "
        "accept_new_host_key password_file save_password remote_dir",
    ),
    (
        "Engine and model",
        "engine device gpu stand_in model models_path insecure ca_bundle no_network compile native_api accept_licence",
    ),
    ("A host without internet", "lend parcel"),
    (
        "Cluster",
        "mode time renew partition account qos gres cpus mem constraint sbatch_options",
    ),
    ("Stored sessions", "session_dir session_ttl session_disk"),
)
"""Headings of a command's options, and the names of the options below each; all others come first."""


class GroupedCommand(click.Command):
    """A command whose help lists its options in groups, and its examples last, in lines that are not wrapped."""

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the description without its examples."""
        text, _ = _split_examples(self.help or "")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        _, examples = _split_examples(self.help or "")
        if examples:
            formatter.write_paragraph()
            formatter.write("".join(f"Example: {line}\n" for line in examples))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their groups."""
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        headings = {name: heading for heading, names in OPTION_GROUPS for name in names.split()}
        groups |= {heading: [] for heading, _ in OPTION_GROUPS}
        for parameter in self.get_params(ctx):
            if isinstance(parameter, click.Option) and (record := parameter.get_help_record(ctx)) is not None:
                groups[headings.get(str(parameter.name), "Options")].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _split_examples(text: str) -> tuple[str, list[str]]:
    """Return the paragraphs that are no example, and the command lines of those that are."""
    paragraphs = [paragraph.strip() for paragraph in inspect.cleandoc(text).split("\n\n")]
    examples = [paragraph for paragraph in paragraphs if paragraph.startswith(EXAMPLE)]
    others = [paragraph for paragraph in paragraphs if paragraph not in examples]
    return "\n\n".join(others), [" ".join(each.removeprefix(EXAMPLE).split()) for each in examples]


def write_commands(formatter: click.HelpFormatter, summaries: dict[str, str]) -> None:
    """Write the commands in their groups, each with its summary, and an example for each group."""
    left = dict(summaries)
    for heading, names, example in COMMAND_GROUPS:
        if rows := [(name, left.pop(name)) for name in names if name in left]:
            with formatter.section(heading):
                formatter.write_dl(rows)
                formatter.write_paragraph()
                formatter.write_text(f"Example: {example}")
    if left:
        with formatter.section(OTHER):
            formatter.write_dl(sorted(left.items()))
