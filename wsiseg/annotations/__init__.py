"""What people have drawn on a slide or an image, in GeoJSON as QuPath exports it."""

from wsiseg.annotations.chosen import check_slide
from wsiseg.annotations.drawing import Drawing, place_drawing
from wsiseg.annotations.features import FeatureFile, read_features
from wsiseg.annotations.nesting import check_objects
from wsiseg.annotations.occurring import Annotations, read_annotations

__all__ = [
    "Annotations",
    "Drawing",
    "FeatureFile",
    "check_objects",
    "check_slide",
    "place_drawing",
    "read_annotations",
    "read_features",
]
