"""Maps: vectors as points in the plane, where what is alike lies together."""

from mmsearch.projection.maps import FEWEST, METHODS, PACMAP_FROM, project
from mmsearch.projection.values import Projection

__all__ = ["FEWEST", "METHODS", "PACMAP_FROM", "Projection", "project"]
