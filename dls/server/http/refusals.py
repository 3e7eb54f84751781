"""The bodies of refusals: ITK-SNAP reads the key `error`, and the clients of nnInteractive's own protocol `detail`."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse


def describe(sentence: str) -> dict[str, str]:
    """Return the fields of the body that refuses a request."""
    return {"error": sentence, "detail": sentence}


def refuse(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return the answer that refuses a request."""
    return JSONResponse(describe(sentence), status, headers=headers)
