"""Scores of class maps and of objects, from arrays alone."""

from wsiseg.metrics.bootstrap import percentile_interval, resample_images, resampled_means
from wsiseg.metrics.boundaries import BoundaryTally, hausdorff95, tally_boundaries
from wsiseg.metrics.calibration import CalibrationTally, count_calibration
from wsiseg.metrics.confusion import ConfusionMatrix, count_confusion
from wsiseg.metrics.hausdorff import HausdorffTally, tally_hausdorff
from wsiseg.metrics.instances import IOU_THRESHOLDS, InstanceTally, match_one_to_one, tally_instances
from wsiseg.metrics.overlaps import Overlaps, count_overlaps
from wsiseg.metrics.surfaces import SURFACE_DISTANCES, SURFACE_SCORES, surface_scores
from wsiseg.metrics.tally import Tally

__all__ = [
    "IOU_THRESHOLDS",
    "SURFACE_DISTANCES",
    "SURFACE_SCORES",
    "BoundaryTally",
    "CalibrationTally",
    "ConfusionMatrix",
    "HausdorffTally",
    "InstanceTally",
    "Overlaps",
    "Tally",
    "count_calibration",
    "count_confusion",
    "count_overlaps",
    "hausdorff95",
    "match_one_to_one",
    "percentile_interval",
    "resample_images",
    "resampled_means",
    "surface_scores",
    "tally_boundaries",
    "tally_hausdorff",
    "tally_instances",
]
