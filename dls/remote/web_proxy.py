"""A web proxy in the environment that would catch what viewers send to the local port.

ITK-SNAP (libcurl) and the viewers in Python (httpx) send even requests for localhost to the proxy that `http_proxy` or
`ALL_PROXY` names, unless `no_proxy` excepts it.
"""

from __future__ import annotations

from collections.abc import Mapping

PROXIES = ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
"""Variables that name a proxy for http; libcurl does not read HTTP_PROXY, and httpx does."""
EXCEPTIONS = ("no_proxy", "NO_PROXY")
LOCAL = "localhost"
"""What the panel tells people to type into a viewer."""


def catching_variable(environment: Mapping[str, str]) -> str:
    """Return the variable whose proxy would catch requests to the local port; empty where none does."""
    name = next((each for each in PROXIES if environment.get(each)), "")
    excepted = ",".join(environment.get(each, "") for each in EXCEPTIONS)
    names = {part.strip().lower().lstrip(".") for part in excepted.replace(" ", ",").split(",")}
    return "" if names & {"*", LOCAL} else name


def advice(variable: str) -> str:
    """Return what to do about the variable."""
    return f"Start the viewer with no_proxy=localhost,127.0.0.1 in its environment, or without {variable}."


def warning(variable: str) -> str:
    """Return the sentence about the variable, with what to do."""
    return (
        f"{variable} is set and no_proxy does not except localhost: what viewers send to the local port would go to "
        f"that proxy. {advice(variable)}"
    )
