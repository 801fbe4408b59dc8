"""Curation arithmetic: odd items, suspect labels, samples that cover a collection, and what is measured of pixels."""
