"""Segments images without any contrast, which a network can't normalise."""

from __future__ import annotations

from collections.abc import Sequence

from dls.server.volume import Bool, Box, Mask, Prompt


class ConstantSegmentation:
    """The segmentation of an image whose voxels are all equal; its mask is what the user draws.

    nnInteractive would divide by the standard deviation, which is 0, and return an empty mask.
    """

    def __init__(self, mask: Mask) -> None:
        self.mask: Mask = mask

    def add(self, prompt: Prompt) -> Box | None:
        """Copy the drawing into the mask."""
        drawing: Bool = prompt.mask
        self.mask[prompt.box][drawing] = prompt.foreground
        return prompt.box

    def replay(self, prompts: Sequence[Prompt]) -> None:
        """Copy all drawings into the mask."""
        for prompt in prompts:
            self.add(prompt)

    def restore(self, mask: Mask) -> None:
        """Copy the mask."""
        self.mask[:] = mask

    def reset(self) -> None:
        """Empty the mask."""
        self.mask[:] = 0

    def close(self) -> None:
        """Do nothing: there is no memory to free."""
