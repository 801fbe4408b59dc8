"""``ModelScorer``: what joint models from a model hub or a folder share."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from mmsearch.encoders.hub import hub, may_download
from mmsearch.encoders.openclip import PRECISIONS, pick_device
from mmsearch.errors import InvalidInput, MissingDependency, MMSearchError, ModelUnavailable
from mmsearch.files import content_hash
from mmsearch.rerank.pairs import (
    CACHE_SIZE,
    PairScorer,
    folder_stamp,
    one_line,
)

if TYPE_CHECKING:
    import torch

Model = TypeVar("Model")

_PATIENCE = 60.0
"""Seconds after which a model that did not load is tried again."""


class ModelScorer(PairScorer, Generic[Model]):
    """A ``PairScorer`` over a model in a folder or of the Hugging Face hub, loaded when it is first needed.

    What is on the disk is used without a word to the network; only what is missing there is fetched, unless
    ``HF_HUB_OFFLINE`` is set.

    Parameters
    ----------
    model
        A folder that ``save_pretrained`` wrote, or ``organisation/repository``.
    device, precision
        As ``mmsearch.encoders.openclip.pick_device`` takes them; None takes what suits the machine, fp32 on a CPU.
    revision
        Of a repository: a branch, tag or commit; None takes its main branch.

    Raises
    ------
    InvalidInput
        For an empty name of a model, a precision that does not exist, or what ``PairScorer`` refuses.
    MissingDependency
        If the extra ``rerank`` is not installed.
    """

    packages: tuple[str, ...] = ("torch", "transformers")

    def __init__(
        self,
        model: str | Path,
        *,
        name: str = "cross",
        device: str | None = None,
        precision: str | None = None,
        revision: str | None = None,
        batch_size: int = 16,
        cache_size: int = CACHE_SIZE,
    ) -> None:
        super().__init__(name, batch_size=batch_size, cache_size=cache_size)
        if not str(model).strip():
            raise InvalidInput("expected the folder or the name of a model, got an empty one")
        if precision is not None and precision not in PRECISIONS:
            raise InvalidInput(f"expected a precision of {', '.join(PRECISIONS)}, got {precision!r}")
        for package in self.packages:
            if importlib.util.find_spec(package) is None:
                raise MissingDependency(
                    f"the stage {name!r} needs the package {package}, which is not installed: "
                    "pip install 'mmsearch[rerank]'"
                )
        self.model = str(model)
        self.revision = revision
        self._device, self._precision = device, precision
        self._loading = threading.Lock()
        self._model: Model | None = None
        self._failure: MMSearchError | None = None
        self._retry_at = 0.0
        self.fingerprint = self._fingerprint()

    @abstractmethod
    def _load(self, device: str, precision: str, local: bool) -> Model:
        """Load the model, from the disk alone if ``local``."""

    def _fingerprint(self, *settings: object) -> str:
        facts = (self.revision, self._precision, folder_stamp(self.model), settings)
        return f"{type(self).__name__} {self.model} {content_hash(repr(facts).encode()).hex()}"

    def load(self) -> None:
        """Load the model unless it is loaded; one that failed to is tried again after a minute.

        Raises
        ------
        ModelUnavailable
            If the weights are not here and cannot be fetched, or cannot be read.
        ModelBroken
            If they are those of another kind of model.
        MissingDependency
            If the model needs a package that is not installed.
        InvalidInput
            For a device that is not there.
        """
        self._loaded()

    def _loaded(self) -> Model:
        with self._loading:
            if self._model is not None:
                return self._model
            if self._failure is not None and time.monotonic() < self._retry_at:
                raise self._failure.with_traceback(None)
            try:
                self._model = self._load_from(*pick_device(self._device, self._precision), local=True)
            except MMSearchError as error:
                # A copy: the error itself would keep alive all that its frames hold, such as half a model.
                self._failure = type(error)(str(error))
                self._retry_at = time.monotonic() + _PATIENCE
                raise
            return self._model

    def _load_from(self, device: str, precision: str, *, local: bool) -> Model:
        in_folder = Path(self.model).is_dir()
        try:
            with hub(offline=local), _no_bars(local):
                return self._load(device, precision, local)
        except MMSearchError:
            raise
        except ImportError as error:
            raise MissingDependency(
                f"the model {self.model!r} needs a package that is not installed ({one_line(error)}): "
                "pip install 'mmsearch[rerank]' or that package"
            ) from error
        except Exception as error:
            if not local or in_folder or Path(self.model).is_absolute():
                raise self._unavailable(one_line(error)) from error
            if may_download():
                return self._load_from(device, precision, local=False)
            reason = "it is not in the local cache, and the model hub cannot be reached or HF_HUB_OFFLINE is set"
            raise self._unavailable(reason) from error

    def _unavailable(self, reason: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"the model {self.model!r} cannot be loaded: {reason}. Offline: fetch it once on a connected machine and "
            "copy its Hugging Face cache (HF_HOME), or its folder, and name that folder"
        )


def dtype_of(precision: str) -> torch.dtype:
    """Torch's type of fp32, bf16 or fp16."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def _no_bars(local: bool) -> Iterator[None]:
    """Keep transformers' bars off the terminal while weights are read from the disk; downloads show theirs."""
    from transformers.utils import logging

    # Whoever set the variable decides, and is warned if somebody else does.
    switch = local and logging.is_progress_bar_enabled() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ
    if switch:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if switch:
            logging.enable_progress_bar()
