"""Names for what pictures show: a general list of nouns, and the terms of a collection's own words."""

from mmsearch.vocabulary.nouns import general_nouns
from mmsearch.vocabulary.terms import collection_terms, terms_of

__all__ = ["collection_terms", "general_nouns", "terms_of"]
