"""Requests to a server, with what it answers as JSON."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


def ask(url: str, body: object = None, *, raw: bytes | None = None, timeout: float = 600) -> Any:
    """Return the answer to a GET without a body, to a POST with one; an error's status is put under ``status``."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            text = answer.read().decode()
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.loads(error.read())}
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def metric(url: str, name: str) -> float:
    """Return the value of a metric without labels."""
    for line in str(ask(f"{url}/metrics")).splitlines():
        if line.startswith(f"llamacpp:{name} "):
            return float(line.split()[1])
    raise AssertionError(f"there is no metric {name}")
