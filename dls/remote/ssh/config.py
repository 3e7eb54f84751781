"""The target that the destination, the options and the SSH configuration (ssh_config(5)) define together.

`ssh -G` reads the configuration where this computer has `ssh`, so that it means here what it means there.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dls.errors import TargetError
from dls.remote.ssh import config_text, paramiko_config
from dls.remote.ssh.openssh_config import (
    GLOBAL_KNOWN_HOSTS,
    PLAIN,
    Settings,
    expand_home,
    find_ssh,
    home_directory,
    is_file,
    read_settings,
    split_paths,
)
from dls.remote.ssh.options import LoginOptions
from dls.remote.ssh.target import METHODS, Algorithms, Target, parse_destination, parse_port
from dls.remote.ssh.tokens import Tokens

MAX_HOPS = 16
"""Maximum number of jump hosts; a configuration in which two name each other would have no end."""
ALGORITHM_SETTINGS = {
    "host_keys": "hostkeyalgorithms",
    "kex": "kexalgorithms",
    "ciphers": "ciphers",
    "macs": "macs",
    "public_keys": "pubkeyacceptedalgorithms",
}
"""The fields of `Algorithms` and the settings that they come from."""
OPENSSH_ONLY = {
    "knownhostscommand": "KnownHostsCommand",
    "pkcs11provider": "PKCS11Provider",
    "revokedhostkeys": "RevokedHostKeys",
    "bindinterface": "BindInterface",
}
"""Settings that only `ssh` honours, whatever their value is."""
OPENSSH_ONLY_SWITCHES = {
    "proxyusefdpass": "ProxyUseFdpass",
    "verifyhostkeydns": "VerifyHostKeyDNS",
    "nohostauthenticationforlocalhost": "NoHostAuthenticationForLocalhost",
}
"""Settings that only `ssh` honours, where they are on."""

PLAIN_SESSION = {
    "sessiontype": "SessionType=default",
    "stdinnull": "StdinNull=no",
    "forkafterauthentication": "ForkAfterAuthentication=no",
}
"""Settings of OpenSSH 8.7 and later that keep a command or its input from the host, and their defaults."""

Note = Callable[[str], None]


def resolve_hops(destination: str, options: LoginOptions, note: Note = lambda text: None) -> tuple[Target, ...]:
    """Return the jump hosts, nearest to this computer first, and then the target itself.

    `note` is told what the configuration says and is not followed. Raises TargetError when something makes no sense.
    """
    for identity in options.identities:
        if not is_file(identity):
            raise TargetError(f"There is no key file {identity}.", "Check the path given with -i.")
    read = _reader(options, note)
    target = read(destination, options)
    for name in target.not_followed:
        note(f"dls does not follow {name} of the SSH configuration.")
    for path in sorted(target.named_identities - set(options.identities)):
        if not is_file(path):
            note(f"The SSH configuration names the key {path}, which is not there.")
    return (*_jump_hosts(target, options, read), target)


_Read = Callable[[str, LoginOptions], Target]
"""Makes a target of a destination and the options that were given for it."""


def _jump_hosts(target: Target, options: LoginOptions, read: _Read) -> tuple[Target, ...]:
    """Return the hosts on the way to the target; the first one may have jump hosts of its own, as in OpenSSH."""
    hops: list[Target] = []
    jumps = target.jumps
    while jumps and not target.proxy_command:
        # As in OpenSSH, a jump host gets the configuration file and none of the other options, but the keys as well:
        # after its own ones, since people use one key for all.
        found = [read(jump, LoginOptions(options.ssh_config)) for jump in jumps]
        keys = [tuple(dict.fromkeys([*hop.identities, *options.identities])) for hop in found]
        hops = [*(replace(hop, identities=each) for hop, each in zip(found, keys, strict=True)), *hops]
        if len(hops) > MAX_HOPS:
            raise TargetError(
                f"The way to {target.label} has more than {MAX_HOPS} jump hosts.", "Do two of them name each other?"
            )
        jumps = found[0].jumps
    return tuple(hops)


def _reader(options: LoginOptions, note: Note) -> _Read:
    """Return the function that makes a target of a destination: with `ssh -G`, or with paramiko where there is none."""
    program = find_ssh()
    if program is None:
        return _reader_without_ssh(options, note)
    if options.ssh_config is not None and str(options.ssh_config) != "none" and not is_file(options.ssh_config):
        raise TargetError(f"The SSH configuration {options.ssh_config} can't be read.", "Name another one with -F.")

    plain = read_settings(program, *PLAIN)

    def read(destination: str, given: LoginOptions) -> Target:
        parsed = parse_destination(destination)
        settings = read_settings(program, given.ssh_arguments(parsed.user, parsed.port), parsed.host)
        return build_target(destination, settings, plain, given)

    return read


def _reader_without_ssh(options: LoginOptions, note: Note) -> _Read:
    text, line = paramiko_config.remove_unknown(config_text.read_text(options.ssh_config))
    if line:
        note(f"This computer has no ssh, and dls can't follow this line of the SSH configuration by itself: {line}")

    def read(destination: str, given: LoginOptions) -> Target:
        parsed = parse_destination(destination)
        source = str(options.ssh_config or "~/.ssh/config")
        user, port = given.user or parsed.user, given.ssh_port or parsed.port
        first = (*([f"User={user}"] if user else []), *([f"Port={port}"] if port else []), *given.ssh_options)
        settings = dict(paramiko_config.read_settings(text, first, parsed.host, source))
        if given.jump:
            settings["proxyjump"] = (given.jump,)
        if given.address_family:
            settings["addressfamily"] = (given.address_family,)
        return build_target(destination, settings, {}, given)

    return read


def build_target(
    destination: str,
    settings: Settings,
    plain: Settings,
    options: LoginOptions,
    *,
    home: Path | None = None,
    local_user: str | None = None,
) -> Target:
    """Return the target that the destination, the options and the settings of the host define together.

    Options win over the destination, that over the settings, as in OpenSSH. `plain` are the settings without any
    configuration: what equals them was not chosen. Raises TargetError for values that make no sense.
    """
    get, home = _getter(settings), home or home_directory()
    tokens = _tokens(destination, options, get, str(home), local_user or getpass.getuser())
    identities, named = _identities(settings, plain, tokens, home)
    return Target(
        label=tokens.original,
        host=tokens.host,
        port=tokens.port,
        user=tokens.user,
        identities=tuple(dict.fromkeys([*options.identities, *identities])),
        named_identities=frozenset([*options.identities, *named]),
        certificates=tuple(_paths(settings, "certificatefile", tokens, home)),
        identities_only=get("identitiesonly", "no") == "yes",
        identity_agent=_agent(settings.get("identityagent", ("SSH_AUTH_SOCK",))[0], tokens, home),
        known_hosts=_known_hosts(get("userknownhostsfile", "~/.ssh/known_hosts"), tokens, home),
        global_known_hosts=_known_hosts(get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS), tokens, home),
        host_key_alias=tokens.alias,
        strict_host_key_checking=_strictness(get("stricthostkeychecking", "ask")),
        hash_known_hosts=get("hashknownhosts", "no") == "yes",
        jumps=tuple(part.strip() for part in tokens.jump.split(",")) if tokens.jump else (),
        proxy_command=tokens.expand(get("proxycommand")),
        methods=_methods(settings),
        algorithms=_algorithms(settings, plain),
        required_rsa_bits=int(_number(get("requiredrsasize")) or 0),
        adds_keys_to_agent=get("addkeystoagent", "no") not in ("no", "false"),
        connect_timeout=_number(get("connecttimeout")),
        alive_interval=int(_number(get("serveraliveinterval")) or 0),
        batch_mode=get("batchmode", "no") == "yes",
        password_prompts=int(_number(get("numberofpasswordprompts")) or 3),
        address_family=get("addressfamily", "any"),
        bind_address=get("bindaddress"),
        control_path=get("controlpath"),
        session_settings=tuple(value for name, value in PLAIN_SESSION.items() if name in settings),
        openssh_only=_openssh_only(settings, plain),
        not_followed=_not_followed(settings),
    )


def _tokens(destination: str, options: LoginOptions, get: Callable[..., str], home: str, local_user: str) -> Tokens:
    """Return what tokens stand for: the host, the port and the user, each from where it wins, and this computer."""
    parsed = parse_destination(destination)
    return Tokens(
        original=parsed.host,
        host=get("hostname", parsed.host),
        port=options.ssh_port or parsed.port or parse_port(get("port", "22"), f"Port of {parsed.host}"),
        user=options.user or parsed.user or get("user") or local_user,
        local_user=local_user,
        home=home,
        local_host=socket.gethostname(),
        uid=getattr(os, "getuid", int)(),
        alias=get("hostkeyalias"),
        jump=get("proxyjump"),
    )


def _getter(settings: Settings) -> Callable[..., str]:
    def get(name: str, default: str = "") -> str:
        value = settings.get(name, ("",))[0]
        return default if value == "" else "" if value.lower() == "none" else value

    return get


def _identities(settings: Settings, plain: Settings, tokens: Tokens, home: Path) -> tuple[list[Path], list[Path]]:
    """Return the key files, and those of them that the configuration names."""
    defaults = {expand_home(name, home) for name in plain.get("identityfile", paramiko_config.DEFAULT_IDENTITIES)}
    paths = _paths(settings, "identityfile", tokens, home)
    return paths, [] if set(paths) == defaults else paths


def _paths(settings: Settings, name: str, tokens: Tokens, home: Path) -> list[Path]:
    values = [value for value in settings.get(name, ()) if value.lower() != "none"]
    return [expand_home(tokens.expand(value, os.environ), home) for value in values]


def _known_hosts(value: str, tokens: Tokens, home: Path) -> tuple[Path, ...]:
    return tuple(expand_home(tokens.expand(name, os.environ), home) for name in split_paths(value))


def _agent(value: str, tokens: Tokens, home: Path) -> str:
    if value in ("none", "SSH_AUTH_SOCK"):
        return value
    if value.startswith("$"):
        return os.environ.get(value.strip("${}"), "none")
    return str(expand_home(tokens.expand(value, os.environ), home))


def _strictness(value: str) -> str:
    return {"true": "yes", "off": "no", "false": "no"}.get(value, value)


def _methods(settings: Settings) -> tuple[str, ...]:
    get = _getter(settings)
    switches = {
        "gssapi-with-mic": get("gssapiauthentication", "no"),
        "hostbased": get("hostbasedauthentication", "no"),
        "publickey": get("pubkeyauthentication", "yes"),
        "keyboard-interactive": get("kbdinteractiveauthentication", get("challengeresponseauthentication", "yes")),
        "password": get("passwordauthentication", "yes"),
    }
    preferred = [name for name in get("preferredauthentications", ",".join(METHODS)).split(",") if name in METHODS]
    return tuple(name for name in preferred if switches[name] not in ("no", "false"))


def _algorithms(settings: Settings, plain: Settings) -> Algorithms:
    def chosen(name: str) -> tuple[str, ...]:
        value = settings.get(name, ("",))[0]
        is_default = not value or (bool(plain) and value == plain.get(name, ("",))[0])
        return () if is_default or value[0] in "+-^" else tuple(value.split(","))

    return Algorithms(**{field: chosen(name) for field, name in ALGORITHM_SETTINGS.items()})


def _not_followed(settings: Settings) -> tuple[str, ...]:
    get = _getter(settings)
    return ("LocalCommand",) if get("permitlocalcommand") == "yes" and get("localcommand") else ()


def _openssh_only(settings: Settings, plain: Settings) -> str:
    get = _getter(settings)
    if plain and settings.get("casignaturealgorithms") != plain.get("casignaturealgorithms"):
        return "CASignatureAlgorithms"
    for name, written in OPENSSH_ONLY.items():
        if get(name):
            return written
    for name, written in OPENSSH_ONLY_SWITCHES.items():
        if get(name, "no") not in ("no", "false"):
            return written
    return ""


def _number(value: str) -> float | None:
    """Return a number, often of seconds, as `ssh -G` prints it; None where there is none, or the number is 0."""
    return float(value) or None if value.isascii() and value.isdigit() else None
