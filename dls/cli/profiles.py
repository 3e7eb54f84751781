"""Profiles of hosts: the options of `dls connect` that are kept for a host, and what the command line says besides.

A key is an option's long name. So the file needs no description of its own, and what an option can be, its key can be.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from dls.cli.connect_options import list_options
from dls.errors import TargetError
from dls.remote.user.profile_file import ProfileFile, render

NOT_KEPT = {
    "accept-licence",
    "accept-new-host-key",
    "from",
    "help",
    "json",
    "password-file",
    "save",
    "steps",
    "verbose",
}
"""Options that are about one command, or a secret."""
GIVEN = "dls.given"
"""Name under which the context holds what the command line said, as `read_given` returns it."""


def list_keys() -> dict[str, click.Option]:
    """Return the options that a profile may have, by their keys; the options -4 and -6 have the key of their value."""
    keys = {_key(option): option for option in list_options() if not option.hidden}
    return {key: option for key, option in keys.items() if key not in NOT_KEPT}


def _key(option: click.Option) -> str:
    long = [name[2:] for name in option.opts if name.startswith("--")]
    return long[0] if long else str(option.name).replace("_", "-")


def _is_switch(option: click.Option) -> bool:
    """Whether the option takes no value on the command line, and its key is a truth."""
    return option.is_flag and any(name.startswith("--") for name in option.opts)


def read_given(context: click.Context) -> dict[str, object]:
    """Return what the command line says, by key and as a profile has it: what was left out has no key here."""
    given: dict[str, object] = {}
    for key, option in list_keys().items():
        name = str(option.name)
        value = context.params.get(name)
        if isinstance(option.flag_value, str) and option.is_flag:  # several options with one name
            if value is not None and (not _is_switch(option) or value == option.flag_value):
                given[key] = True if _is_switch(option) else value
        elif context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            given[key] = _as_toml(option, value)
    return given


def _as_toml(option: click.Option, value: Any) -> object:
    if isinstance(value, list | tuple):
        return [_as_toml(option, each) for each in value]
    if isinstance(option.type, click.Path) and str(value) not in ("none", "-"):
        return str(Path(value).expanduser().absolute())
    return value if isinstance(value, bool | int | float) else str(value)


def apply(context: click.Context, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a command with those of the host's profile, where the command line says nothing else.

    Raises TargetError, which names the line, for a profile that is wrong.
    """
    given = context.meta[GIVEN] = read_given(context)
    if not target:
        return dict(options)
    file = ProfileFile.read()
    chosen = {str(option.name) for key, option in list_keys().items() if key in given}
    result = dict(options)
    for problem in find_problems(file, target):
        raise problem
    for key, value in file.hosts.get(target, {}).items():
        option = list_keys()[key]
        name = str(option.name)
        if name in result and name not in chosen and not (_is_switch(option) and _is_named(option) and not value):
            result[name] = convert(option, value)
    return result


def _is_named(option: click.Option) -> bool:
    """Whether the option is one of several that set one value, each to its own."""
    return option.is_flag and isinstance(option.flag_value, str)


def find_problems(file: ProfileFile, host: str) -> Iterator[TargetError]:
    """Yield an error for each line of the host's profile that is wrong."""
    keys = list_keys()
    for key, value in file.hosts.get(host, {}).items():
        where = f"{file.path}, line {file.line_of(host, key)}"
        if not host:
            yield TargetError(f"{where}: {key} stands before the first host.", 'Write ["HOST"] on the line before it.')
        elif key not in keys:
            close = difflib.get_close_matches(key, keys, 1)
            kept = "It is not kept in a profile" if key in NOT_KEPT else "`dls connect --help` lists them"
            hint = f"Did you mean {close[0]}?" if close and key not in NOT_KEPT else f"{kept}."
            yield TargetError(f"{where}: {key} is no option of a host.", hint)
        else:
            try:
                convert(keys[key], value)
            except click.BadParameter as error:
                yield TargetError(f"{where}: {key}: {error.message.rstrip('.')}.", "`dls connect --help` says more.")


def convert(option: click.Option, value: object) -> Any:
    """Return a profile's value as the command line gives it; raises BadParameter for one of another kind."""
    if option.multiple:
        items = value if isinstance(value, list) else [value]
        return tuple(_convert_one(option, item) for item in items)
    if _is_switch(option):
        if not isinstance(value, bool):
            raise click.BadParameter(f"{render(value)} is neither true nor false")
        return option.flag_value if _is_named(option) else value
    if option.is_flag:
        return _convert_flag_value(option, value)
    return _convert_one(option, value)


def _convert_flag_value(option: click.Option, value: object) -> object:
    known = [each.flag_value for each in list_options() if each.name == option.name]
    if value not in known:
        raise click.BadParameter(f"{render(value)} is none of {', '.join(map(str, known))}")
    return value


def _convert_one(option: click.Option, value: object) -> Any:
    kind = option.type
    if isinstance(kind, click.types.IntParamType):
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif isinstance(kind, click.types.FloatParamType):
        fits, wanted = isinstance(value, int | float) and not isinstance(value, bool), "a number"
    else:
        fits, wanted = isinstance(value, str), "a text in quotes"
    if not fits:
        raise click.BadParameter(f"{render(value)} is not {wanted}")
    if isinstance(kind, click.Path):
        value = str(Path(str(value)).expanduser())
    context = click.Context(click.Command("connect"))
    converted = kind.convert(value, option, context)
    return option.callback(context, option, converted) if option.callback else converted


def save(target: str, given: Mapping[str, object]) -> tuple[Path, list[str]]:
    """Keep what the command line said for the host, besides what was kept; returns the file and all keys now in it.

    Raises TargetError.
    """
    keys, file = list_keys(), ProfileFile.read()
    replaced = {keys[key].name for key in given}
    kept = {k: v for k, v in file.hosts.get(target, {}).items() if k not in keys or keys[k].name not in replaced}
    values = {**kept, **given}
    file.with_host(target, values).write()
    return file.path, list(values)
