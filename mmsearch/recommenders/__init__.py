"""Recommenders: one file a model, each learning from a ``Behaviour``."""
