"""The list of models that the client shows."""

from __future__ import annotations

from typing import Any

from dls.server.engines.base import Model

STAND_IN_NAME = "nnInteractive"
"""The only model name that ITK-SNAP's lasso asks for."""


def list_models(models: tuple[Model, ...], stand_in: bool) -> tuple[Model, ...]:
    """Return the models that the client may choose; with `stand_in`, the first one also under nnInteractive's name."""
    if not stand_in or any(model.id == STAND_IN_NAME for model in models):
        return models
    return (*models, Model(STAND_IN_NAME, models[0].interactions, models[0].channels, models[0].dimensions))


def describe_model(model: Model) -> dict[str, Any]:
    """Return a model's entry in the list, with its keys in upstream's order."""
    return {
        "id": model.id,
        "channels": list(model.channels),
        "dimensions": model.dimensions,
        "interactions": list(model.interactions),
    }
