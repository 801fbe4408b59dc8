"""Model downloads: what is here already is used without a word to the network, and no retry comes before the reason."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_PATIENCE = 5.0


@contextmanager
def hub(*, offline: bool) -> Iterator[None]:
    """Let Hugging Face's libraries use the network, or not, and keep their log lines out of the user's terminal."""
    import huggingface_hub.constants as constants

    before, environment = constants.HF_HUB_OFFLINE, os.environ.get("HF_HUB_OFFLINE")
    quiet = logging.root.manager.disable
    constants.HF_HUB_OFFLINE = offline  # read at import, so that the variable alone may come too late
    os.environ["HF_HUB_OFFLINE"] = "1" if offline else "0"
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(quiet)
        constants.HF_HUB_OFFLINE = before
        if environment is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = environment


def may_download() -> bool:
    """Whether the user allows it and the model hub answers, found out in seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "on", "yes", "true"):
        return False
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        with socket.create_connection((address.hostname or "", address.port or 443), timeout=_PATIENCE):
            return True
    except OSError:
        # A proxy answers in the hub's place; whether it can reach it, only trying tells.
        return bool(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"))
