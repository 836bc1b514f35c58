"""Making a patch store out of folders of images and label images."""

from wsiseg.ingestion.search import IngestSettings, find_images, source_fingerprint
from wsiseg.ingestion.writing import write_images

__all__ = ["IngestSettings", "find_images", "source_fingerprint", "write_images"]
