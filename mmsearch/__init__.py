"""mmsearch: find pictures and texts by what they show and say.

>>> import mmsearch
>>> "Engine" in mmsearch.__all__
True
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Nothing phones home: these libraries report their use unless they are told not to before they are imported.
for _variable in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_variable, "1")

if TYPE_CHECKING:
    from mmsearch.atlas import Map
    from mmsearch.cascade import Cascade, Step
    from mmsearch.clusters import Cluster, Clustering
    from mmsearch.encoders import load_encoder
    from mmsearch.engine import Engine
    from mmsearch.errors import (
        EncoderMismatch,
        InvalidInput,
        ItemNotFound,
        LicenceRefused,
        MissingDependency,
        MMSearchError,
        ModelUnavailable,
        PictureError,
        StoreBusy,
        StoreError,
    )
    from mmsearch.findings import DuplicateGroup, Flaw, Leak, Outlier, Suspect
    from mmsearch.types import AddReport, Hit, Interaction, Item, Query, Reason

_HOME = {
    "AddReport": "types",
    "Cascade": "cascade",
    "Cluster": "clusters",
    "Clustering": "clusters",
    "DuplicateGroup": "findings",
    "EncoderMismatch": "errors",
    "Engine": "engine",
    "Flaw": "findings",
    "Hit": "types",
    "Interaction": "types",
    "InvalidInput": "errors",
    "Item": "types",
    "ItemNotFound": "errors",
    "Leak": "findings",
    "LicenceRefused": "errors",
    "MMSearchError": "errors",
    "Map": "atlas",
    "MissingDependency": "errors",
    "ModelUnavailable": "errors",
    "Outlier": "findings",
    "PictureError": "errors",
    "Query": "types",
    "Reason": "types",
    "Step": "cascade",
    "StoreBusy": "errors",
    "StoreError": "errors",
    "Suspect": "findings",
    "load_encoder": "encoders",
}

__version__ = "0.1.0"
__all__ = [
    "AddReport",
    "Cascade",
    "Cluster",
    "Clustering",
    "DuplicateGroup",
    "EncoderMismatch",
    "Engine",
    "Flaw",
    "Hit",
    "Interaction",
    "InvalidInput",
    "Item",
    "ItemNotFound",
    "Leak",
    "LicenceRefused",
    "MMSearchError",
    "Map",
    "MissingDependency",
    "ModelUnavailable",
    "Outlier",
    "PictureError",
    "Query",
    "Reason",
    "Step",
    "StoreBusy",
    "StoreError",
    "Suspect",
    "load_encoder",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
    return getattr(import_module(f"mmsearch.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
