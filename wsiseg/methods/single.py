"""Methods that have one stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from wsiseg.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wsiseg.methods.base import Stage, TrainingFacts

OptionsT = TypeVar("OptionsT", bound=Config)
StageT = TypeVar("StageT", bound="Stage")


@dataclass(frozen=True, slots=True, kw_only=True)
class SingleStageMethod(Generic[OptionsT, StageT]):
    """A method of one stage; see `Method`.

    Parameters
    ----------
    name, summary
        Its name on the command line, and what it needs and does in one line.
    options
        Type of its options.
    stage
        Makes the stage of ``options=``.
    usual, usual_of_volumes
        Return the settings of a training on images and on volumes that are the method's own; None where the usual ones
        suit it.
    resolve
        Returns options in which the data have decided what was left open; None where nothing is.
    unlabelled_weight
        Returns the weight of what is learnt from images without labels; None where nothing ever is.
    """

    name: str
    summary: str
    options: type[OptionsT]
    stage: Callable[..., StageT]
    usual: Callable[[OptionsT], Mapping[str, Any]] | None = None
    usual_of_volumes: Callable[[OptionsT], Mapping[str, Any]] | None = None
    resolve: Callable[[OptionsT, TrainingFacts], OptionsT] | None = None
    unlabelled_weight: Callable[[OptionsT], float] | None = None

    @property
    def takes_unlabelled(self) -> bool:
        """Tell whether it can learn from images without labels."""
        return self.unlabelled_weight is not None

    def sees_unlabelled(self, options: Config) -> bool:
        """Tell whether it learns from images without labels, which it does unless they weigh nothing."""
        return self.unlabelled_weight is not None and self.unlabelled_weight(self._own(options)) > 0

    def resolved(self, options: Config, facts: TrainingFacts) -> OptionsT:
        """Return options in which the data have decided what was left open."""
        own = self._own(options)
        return own if self.resolve is None else self.resolve(own, facts)

    def stages(self, options: Config) -> tuple[StageT, ...]:
        """Return the only stage."""
        return (self.stage(options=self._own(options)),)

    def training(self, options: Config, *, of_volumes: bool = False) -> Mapping[str, Any]:
        """Return the settings that are the method's own."""
        usual = self.usual_of_volumes if of_volumes else self.usual
        return {} if usual is None else usual(self._own(options))

    def _own(self, options: Config) -> OptionsT:
        if not isinstance(options, self.options):
            raise TypeError(f"options of another method: {type(options).__name__}")
        return options
