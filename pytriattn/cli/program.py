"""How a command-line program runs and ends: exit codes, errors of one line, Ctrl-C, pipes that close."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from pytriattn._util.text import printable
from pytriattn.errors import TriAttnError

__all__ = ["EXIT_ERROR", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_OK", "run"]

EXIT_OK = 0
EXIT_FAILED = 1  # of programs that do something: it was not done
EXIT_ERROR = 2  # of programs whose 1 is an answer: there is none
EXIT_INTERRUPTED = 130


def run(
    program: str, body: Callable[[], int], *, exit_error: int = EXIT_ERROR, interrupted: str = "interrupted"
) -> int:
    """Return the exit code of `body`.

    An error that a user can cause becomes one line on standard error and the code `exit_error`.
    """
    try:
        code = body()
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader (head, less) has seen enough; the interpreter must not flush once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except (TriAttnError, OSError, ImportError) as error:
        message = " ".join(str(error).splitlines())
        print(f"{program}: {printable(message)}", file=sys.stderr)
        return exit_error
    except KeyboardInterrupt:
        print(f"{program}: {interrupted}", file=sys.stderr)
        return EXIT_INTERRUPTED
    return code
