"""What is done when a GPU runs out of memory at a step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dls.errors import Exhausted

T = TypeVar("T")

log = logging.getLogger("dls.server")


def retry_without_caches(step: Callable[[], T]) -> T:
    """Take the step; if the GPU runs out of memory, free its caches and take it once more. Raises Exhausted.

    A step that fails must leave everything as it was.
    """
    from torch import OutOfMemoryError, cuda

    try:
        return step()
    except OutOfMemoryError:
        log.warning("the GPU ran out of memory; freeing its caches and repeating the prompt")
    cuda.empty_cache()
    try:
        return step()
    except OutOfMemoryError:
        cuda.empty_cache()
        raise Exhausted(
            "The GPU has not enough memory for this step; nothing was changed. Another program may be using it: "
            "try again later."
        ) from None
