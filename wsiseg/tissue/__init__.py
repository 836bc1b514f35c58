"""Where on a slide there is tissue."""

from wsiseg.tissue.search import Thumbnail, TissueMask, TissueSettings, find_tissue, read_thumbnail

__all__ = ["Thumbnail", "TissueMask", "TissueSettings", "find_tissue", "read_thumbnail"]
