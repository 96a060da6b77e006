# The compiled module is used through the typed classes of this package; its own interface may change.
from typing import Any

__file__: str

def __getattr__(name: str) -> Any: ...
