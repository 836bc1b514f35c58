"""How good a teacher is while its student learns."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from wsiseg.training.log import CLASS_IOU
from wsiseg.training.ranks import Ranks

if TYPE_CHECKING:
    import torch

    from wsiseg.methods.base import Clock, Predictor
    from wsiseg.training.validation import Validator

logger = logging.getLogger(__name__)

# Young teachers lag behind; judgements of one count from this part of the training on.
_GROWN_UP: Final = 0.25
# Validations in a row after which a bad teacher is spoken of.
_PATIENCE: Final = 3


@runtime_checkable
class Taught(Protocol):
    """A learner that has a teacher."""

    @property
    def module(self) -> torch.nn.Module:
        """Return student and teacher."""
        ...

    def teacher(self, module: torch.nn.Module) -> Predictor:
        """Return the predictor that the teacher makes."""
        ...


class TeacherCheck:
    """Judges the teacher whenever the student is judged, and warns of one that is worse than learning alone.

    Parameters
    ----------
    learner
        Student and teacher.
    validation
        Judges predictors; of its own, since it remembers what went unfound.
    baseline
        What learning from the same labels alone has reached; None where that is not known.
    """

    def __init__(self, learner: Taught, validation: Validator, *, baseline: float | None = None) -> None:
        self._learner, self._validation, self._baseline = learner, validation, baseline
        self._bad = 0

    def measure(self, clock: Clock, device: torch.device) -> dict[str, float]:
        """Return the teacher's metrics over all classes by name, each with ``teacher_`` before it."""
        metrics = self._validation.measure(self._learner.teacher(self._learner.module), Ranks(device=device))
        self._look(metrics[self._validation.metric], clock)
        return {f"teacher_{name}": value for name, value in metrics.items() if not name.startswith(CLASS_IOU)}

    def _look(self, score: float, clock: Clock) -> None:
        if self._baseline is None or clock.progress < _GROWN_UP or score >= self._baseline:
            self._bad = 0
            return
        self._bad += 1
        if self._bad == _PATIENCE:
            logger.warning(
                "the teacher's %s of %.3f is below the %.3f of learning from the same labels alone, %d validations in "
                "a row; a lower weight of the consistency, a longer training or less noise may help",
                self._validation.metric,
                score,
                self._baseline,
                _PATIENCE,
            )
