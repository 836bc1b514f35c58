"""What the methods of a study would train: found out before anything is trained, so that they can have one head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wsiseg.methods.label_efficient import NAME as LABEL_EFFICIENT
from wsiseg.methods.predictor import NetPredictor
from wsiseg.methods.registry import get_method
from wsiseg.nets.maskrcnn import MASKRCNN
from wsiseg.tasks.budget_words import errors_of
from wsiseg.tasks.train import prepared
from wsiseg.tasks.train_job import TrainJob
from wsiseg.training.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.checkpoint import HeadSpec, ModelCard
    from wsiseg.tasks.train_job import TrainConfig


def cards_of(stores: Sequence[Path], output: Path, trainings: Mapping[str, TrainConfig]) -> dict[str, ModelCard]:
    """Return what the models of each method will be, by building them untrained; of those that have one stage.

    Parameters
    ----------
    stores, output
        Of the study.
    trainings
        Settings of the trainings of each method.

    Raises
    ------
    ConfigError, MethodError, DataError
        If settings of a method make no network, or it does not suit the data.
    """
    cards = {}
    for name, config in trainings.items():
        if config.method == LABEL_EFFICIENT:
            continue
        all_of_it = config.model_copy(update={"labelled": "100%", "split_seed": 0})
        with errors_of(name):
            learner = prepared(TrainJob(stores=tuple(stores), output=output, config=all_of_it), Ranks()).learner
        predictor = learner.predictor(learner.module)
        if isinstance(predictor, NetPredictor):
            cards[name] = predictor.card
    return cards


def shared_head(cards: Mapping[str, ModelCard], trainings: Mapping[str, TrainConfig]) -> HeadSpec | None:
    """Return the head of the first method that learns from images without labels; None without objects, or such one.

    Such methods have few heads to choose from, those that learn from labels alone have all.
    """
    return next((card.head for name, card in cards.items() if _takes_unlabelled(trainings[name])), None)


def with_head(config: TrainConfig, head: HeadSpec | None) -> TrainConfig:
    """Return the settings of a method that learns from labels alone with a head, where it was left to be chosen."""
    if head is None or not takes_head(config.method, config.options):
        return config
    return config.model_copy(update={"options": {**config.options, "head": head.kind, "head_options": head.options}})


def takes_head(name: str, options: Mapping[str, Any]) -> bool:
    """Tell whether a method learns from labels alone, and leaves its head to be chosen."""
    method = get_method(name)
    is_open = options.get("head", "auto") == "auto" and "head_options" not in options
    can_be_set = "head" in method.options.model_fields and options.get("arch") != MASKRCNN
    return is_open and can_be_set and not method.takes_unlabelled


def heads_told(cards: Mapping[str, ModelCard], trainings: Mapping[str, TrainConfig]) -> str:
    """Return in words how the heads of the methods differ; nothing where they do not."""
    heads = {}
    for name, card in cards.items():
        if card.head is not None:
            asked = trainings[name].options.get("head", "auto")
            heads[name] = card.head.kind if asked == "auto" else str(asked)
    if len(set(heads.values())) < 2:  # noqa: PLR2004 - one head is the same for all
        return ""
    told = ", ".join(f"{name} {head}" for name, head in heads.items())
    return f"methods have different heads ({told}), which may be a part of what they differ by"


def _takes_unlabelled(config: TrainConfig) -> bool:
    return get_method(config.method).takes_unlabelled
