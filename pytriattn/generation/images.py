"""Images in chat messages, in OpenAI's form."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from pytriattn.errors import ImageError

__all__ = ["has_images", "last_text", "take_images"]

_DATA_URL = re.compile(r"data:[^,]*?(?P<base64>;base64)?,", re.IGNORECASE)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image_url"


def _parts(message: object) -> list[Any]:
    content = message.get("content") if isinstance(message, Mapping) else None
    return content if isinstance(content, list) else []


def has_images(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether a message has an ``image_url`` part."""
    return any(_is_image(part) for message in messages for part in _parts(message))


def last_text(message: Mapping[str, Any]) -> str | None:
    """Return the text of a message, of parts the last one; None: it has none."""
    content = message.get("content")
    texts = [part.get("text") for part in _parts(message) if isinstance(part, Mapping) and part.get("type") == "text"]
    found = texts[-1] if texts else content
    return found if isinstance(found, str) else None


def take_images(messages: Sequence[Mapping[str, Any]], marker: str) -> tuple[list[Mapping[str, Any]], list[bytes]]:
    """Return the messages with a marker in the place of each image, and the images' files.

    Args:
        messages: dictionaries in OpenAI's form.
        marker: stands for an image.

    Raises:
        ImageError: an image cannot be read.
    """
    taken: list[Mapping[str, Any]] = []
    files: list[bytes] = []
    for message in messages:
        if not any(map(_is_image, _parts(message))):
            taken.append(message)
            continue
        content = []
        for part in _parts(message):
            if _is_image(part):
                files.append(_read(part.get("image_url"), f"image {len(files) + 1}"))
                content.append({"type": "media_marker", "text": marker})
            else:
                content.append(part)
        taken.append({**message, "content": content})
    return taken, files


def _read(image: object, name: str) -> bytes:
    """Return an image's file; `name` is for messages."""
    source = image.get("url") if isinstance(image, Mapping) else image
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, str):
        return _from_url(source, name)
    if isinstance(source, os.PathLike):
        try:
            return Path(source).expanduser().read_bytes()
        except OSError as error:
            raise ImageError(f"{name}: '{source}' cannot be read: {error.strerror}") from error
    raise ImageError(
        f"{name} is {type(source).__name__}; give {{'type': 'image_url', 'image_url': {{'url': ...}}}} with a data: "
        "URL, the bytes of an image file, or a pathlib.Path"
    )


def _from_url(url: str, name: str) -> bytes:
    match = _DATA_URL.match(url)
    if match is None:
        shown = url if len(url) < 60 else url[:57] + "..."
        raise ImageError(
            f"{name} is at {shown!r}, and a text in messages is never fetched or opened, since whoever wrote the "
            "messages may have chosen it; give a data: URL, a pathlib.Path, or the bytes of an image file"
        )
    data = unquote_to_bytes(url[match.end() :])
    if match["base64"] is None:
        return data
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ImageError(f"{name}: its data: URL is not base64: {error}") from error
