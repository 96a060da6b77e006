"""The public texts that the quality benchmarks read: from ``texts/``, ``PYTRIATTN_TEXTS_DIR``, or the network."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TextSource:
    """A public text: its file name here, where it comes from, and its sha256."""

    file: str
    url: str
    sha256: str


TEXTS = {
    "wikitext2": TextSource(
        "wikitext2-test.txt",
        "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/test.txt",
        "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
    ),
    "shakespeare": TextSource(
        "tinyshakespeare.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}


def load_text(name: str) -> str:
    """Return the text called `name`, fetching it if it is not there.

    Raises:
        SystemExit: it cannot be had, or is not the text that the figures were measured on.
    """
    source = TEXTS[name]
    folder = Path(os.environ.get("PYTRIATTN_TEXTS_DIR", ROOT / "texts"))
    path = folder / source.file
    if path.is_file():
        data = path.read_bytes()
    else:
        try:
            with urllib.request.urlopen(source.url, timeout=60) as response:
                data = response.read()
        except (urllib.error.URLError, OSError) as error:
            raise SystemExit(f"cannot fetch {source.url} ({error}); put the file at {path}") from error
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise SystemExit(f"{path} is not the text that the figures were measured on: its sha256 is not {source.sha256}")
    return data.decode("utf-8")
