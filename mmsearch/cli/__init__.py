"""The command line: argument parsing and printing, nothing else.

Exit codes: 0 done; 1 nothing was found, or a check failed; 2 wrong usage or input; 3 the store cannot be used;
4 a model or an optional package is missing; 130 interrupted.
"""

from __future__ import annotations

import sys

FOUND_NOTHING, WRONG_INPUT, STORE_FAILED, MISSING, INTERRUPTED = 1, 2, 3, 4, 130


def run() -> None:
    """Run the command line; every error that mmsearch raises on purpose becomes one message and an exit code."""
    from mmsearch.cli.app import app
    from mmsearch.errors import MMSearchError

    for stream in (sys.stdout, sys.stderr):
        # File names need not be valid in the terminal's encoding; showing them must not end the program.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        app()
    except MMSearchError as error:
        sys.stderr.write(f"mmsearch: {error}\n")
        sys.exit(exit_code(error))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        # The disk is full, a folder is where a file should go, and the like: facts about the machine, not bugs.
        name = error.filename2 or error.filename
        place = f"{name}: " if isinstance(name, str) else ""
        sys.stderr.write(f"mmsearch: {place}{error.strerror or error}\n")
        sys.exit(WRONG_INPUT)
    except (KeyboardInterrupt, SystemExit) as end:
        # Within a command, typer turns an interruption into this exit code.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        sys.stderr.write("mmsearch: interrupted; what was stored stays, and the same command goes on from there\n")
        sys.exit(INTERRUPTED)


def exit_code(error: Exception) -> int:
    """The exit code of an error."""
    from mmsearch import errors

    if isinstance(error, errors.StoreError | errors.EncoderMismatch):
        return STORE_FAILED
    if isinstance(
        error, errors.ModelUnavailable | errors.ModelBroken | errors.MissingDependency | errors.LicenceRefused
    ):
        return MISSING
    return WRONG_INPUT
