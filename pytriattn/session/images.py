"""Prompts with images: their parts, and reading them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.errors import ImageError
from pytriattn.gguf.projector import ProjectorFile

__all__ = ["Images", "PartedPrompt", "open_images", "text_of"]


@dataclass(frozen=True)
class PartedPrompt:
    """A prompt with images.

    Attributes:
        parts: texts and images, in their order. The last one is a text.
        tokens: what stands at each position, int32 [n_positions]: a token of a text, or a negative number of an image.
            Two images have the same numbers only if they are the same.
        n_tokens: keys that the prompt takes in the cache.
        projector: what the images are read by.
    """

    parts: tuple[core.PromptPart, ...]
    tokens: npt.NDArray[np.int32]
    n_tokens: int
    projector: core.Projector

    def whole_parts(self, n: int) -> int:
        """Return `n`, or where the image begins in which position `n` lies: images are read as a whole."""
        begin = 0
        for part in self.parts:
            if part.is_image and begin < n < begin + part.n_positions:
                return begin
            begin += part.n_positions
        return n

    def check(self, context: core.Context) -> None:
        """Check that the images fit a context.

        Raises:
            ContextError: one has to be read in a larger step than the context can take.
        """
        for part in self.parts:
            if part.is_image:
                context.check_image(part)

    def read(self, context: core.Context, n_kept: int, n_protected: int) -> None:
        """Read what comes behind the first `n_kept` positions into sequence 0; errors as `core.Context.read`."""
        begin = 0
        for part in self.parts:
            end = begin + part.n_positions
            if end > n_kept and part.is_image:
                context.read_image(0, self.projector, part, n_protected)
            elif end > n_kept:
                first = max(begin, n_kept)
                context.read(0, self.tokens[first:end], n_protected, goes_on=end < len(self.tokens))
            begin = end


class Images:
    """The projector of a model, and what it makes of prompts.

    Attributes:
        projector: llama.cpp's.
        sha256: which file it comes from, as `ModelIdentity.sha256`.
    """

    def __init__(self, projector: core.Projector, sha256: str) -> None:
        """Take a projector that has been loaded."""
        self.projector = projector
        self.sha256 = sha256

    def split(self, prompt: bytes, files: Sequence[bytes]) -> PartedPrompt:
        """Return the parts of a prompt, in which a marker stands for each of these image files.

        Raises:
            ImageError: a file is no image, or the prompt cannot be read.
        """
        parts = self.projector.split(prompt, list(files))
        if not parts or parts[-1].is_image or parts[-1].n_tokens == 0:
            raise ImageError(
                "the prompt ends with an image, so there is nothing that the model could go on from; end the messages "
                "with a text, or give a chat_template that puts one behind them"
            )
        seen: Counter[str] = Counter()  # an image may be divided into tiles
        tokens = []
        for part in parts:
            tokens.append(part.tokens if not part.is_image else self._numbers(part, seen[part.identity]))
            seen[part.identity] += part.is_image
        return PartedPrompt(tuple(parts), np.concatenate(tokens), sum(part.n_tokens for part in parts), self.projector)

    def _numbers(self, part: core.PromptPart, ordinal: int) -> npt.NDArray[np.int32]:
        """Return negative numbers that stand for an image, int32 [n_positions]."""
        text = f"{self.sha256} {part.identity} {ordinal} {part.n_tokens}"
        data = hashlib.shake_128(text.encode()).digest(4 * part.n_positions)
        return (-1 - (np.frombuffer(data, dtype="<u4") >> 1).astype(np.int64)).astype(np.int32)


def text_of(tokens: Iterable[int]) -> list[int]:
    """Return the tokens without the numbers that stand for images."""
    return [int(token) for token in tokens if token >= 0]


def open_images(
    file: ProjectorFile | None, model: core.Model, context: core.Context, *, n_threads: int, use_gpu: bool
) -> Images | None:
    """Load the projector of a model; None: no images.

    Args:
        file: what `check_projector` has found.
        model: the model.
        context: of the model.
        n_threads: CPU threads.
        use_gpu: whether a GPU computes images, if there is one.

    Raises:
        ModelLoadError: it does not belong to the model, or has no encoder of images.
        UnsupportedModelError: the keys of its images cannot be evicted.
    """
    if file is None:
        return None
    context.check_images()
    projector = core.Projector(model, file.path, n_threads=n_threads, use_gpu=use_gpu)
    return Images(projector, file.sha256)
