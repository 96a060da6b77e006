# The compiled module is used through the typed classes of this package; its own interface may change.
from typing import Any

def __getattr__(name: str) -> Any: ...
