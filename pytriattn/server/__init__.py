"""llama.cpp's server within a budget: `Server` here, ``pytriattn-server`` on the command line.

``import pytriattn`` does not load it.
"""

from pytriattn.server.process import Server

__all__ = ["Server"]
