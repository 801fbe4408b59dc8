"""Maps for people: a page to explore, a picture, or a table for other tools."""

from mmsearch.atlas.maps import ENDINGS, PAGE_THUMBNAILS, Map
from mmsearch.atlas.page import map_figure_html

__all__ = ["ENDINGS", "PAGE_THUMBNAILS", "Map", "map_figure_html"]
