"""``python -m pytriattn.server``: the same as ``pytriattn-server``."""

import sys

from pytriattn.server.program import main

sys.exit(main())
