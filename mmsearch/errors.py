"""Every error that mmsearch raises on purpose, as one tree.

::

    MMSearchError
    ├── InvalidInput (ValueError)          an argument has the wrong shape, type or value
    ├── ItemNotFound (KeyError)            no item has that id
    ├── PictureError (ValueError)          a picture cannot be opened safely and whole
    ├── MissingDependency (ImportError)    an optional package is not installed
    ├── ModelUnavailable (RuntimeError)    a model's weights are not here and cannot be had
    ├── ModelBroken (RuntimeError)         a model loaded but does not answer as it should
    ├── LicenceRefused (PermissionError)   research-only weights without the user's consent
    ├── EncoderMismatch (ValueError)       the store was made with another encoder
    └── StoreError (OSError)               the store cannot be read or written
        ├── StoreBusy                      somebody else is writing to it
        └── StoreDamaged                   a checksum or an invariant does not hold

Each is also the built-in error that people expect, so ``except ValueError`` works too.
"""


class MMSearchError(Exception):
    """Catch this to catch every error mmsearch raises on purpose."""


class InvalidInput(MMSearchError, ValueError):
    """An argument has the wrong shape, type or value."""


class ItemNotFound(MMSearchError, KeyError):
    """No item has that id."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; people should read the sentence.
        return str(self.args[0]) if self.args else ""


class PictureError(MMSearchError, ValueError):
    """A picture cannot be opened safely and whole."""


class MissingDependency(MMSearchError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class ModelUnavailable(MMSearchError, RuntimeError):
    """A model's weights are not on this machine and cannot be fetched."""


class ModelBroken(MMSearchError, RuntimeError):
    """A model loaded but does not answer as it should."""


class LicenceRefused(MMSearchError, PermissionError):
    """The weights are for research only and nobody has agreed to that yet."""


class EncoderMismatch(MMSearchError, ValueError):
    """The store was made with another encoder."""


class StoreError(MMSearchError, OSError):
    """The store cannot be read or written."""


class StoreBusy(StoreError):
    """Somebody else is writing to the store."""


class StoreDamaged(StoreError):
    """A checksum or an invariant of the store does not hold."""
