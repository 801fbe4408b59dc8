"""The stages of a cascade: each gives candidates a number, and costs more than the one before.

>>> from mmsearch import rerank
>>> rerank.Regions().name
'regions'
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsearch.rerank.blip import BlipITM
    from mmsearch.rerank.cross import EmbeddedCross
    from mmsearch.rerank.function import FunctionReranker
    from mmsearch.rerank.hubness import Hubness
    from mmsearch.rerank.late import LateInteraction
    from mmsearch.rerank.regions import Regions
    from mmsearch.rerank.second import SecondEncoder
    from mmsearch.rerank.sentence import SentenceCrossEncoder
    from mmsearch.rerank.views import Views
    from mmsearch.rerank.words import WordMatch

_HOME = {
    "BlipITM": "blip",
    "EmbeddedCross": "cross",
    "FunctionReranker": "function",
    "Hubness": "hubness",
    "LateInteraction": "late",
    "Regions": "regions",
    "SecondEncoder": "second",
    "SentenceCrossEncoder": "sentence",
    "Views": "views",
    "WordMatch": "words",
}

__all__ = [
    "BlipITM",
    "EmbeddedCross",
    "FunctionReranker",
    "Hubness",
    "LateInteraction",
    "Regions",
    "SecondEncoder",
    "SentenceCrossEncoder",
    "Views",
    "WordMatch",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'mmsearch.rerank' has no attribute {name!r}")
    return getattr(import_module(f"mmsearch.rerank.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
