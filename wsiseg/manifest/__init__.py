"""Which slides to work on: files, folders, globs, URLs and manifests; and which of them fall to this job."""

from wsiseg.manifest.entry import SPLITS, SlideEntry
from wsiseg.manifest.search import find_slides
from wsiseg.manifest.sharding import shard, which_shard

__all__ = ["SPLITS", "SlideEntry", "find_slides", "shard", "which_shard"]
