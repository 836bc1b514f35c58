"""Settings of a study of annotation budgets, and of its trainings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args, get_origin

from pydantic import Field, field_validator

from wsiseg.config import Config, flattened, load, merged
from wsiseg.errors import ConfigError, MethodError, WsisegError
from wsiseg.methods.registry import get_method, get_patch_method
from wsiseg.tasks.budget_words import errors_of
from wsiseg.tasks.train_job import TrainConfig

if TYPE_CHECKING:
    from wsiseg.methods.base import Method

_DECIDED: Final = frozenset({"method", "labelled", "split_seed", "fit.seed"})
# Of volumes these have usual values of their own, which are the same for all methods.
_OF_VOLUMES: Final = frozenset({"batch_size", "crop_px"})


class BudgetConfig(Config):
    """Settings of a study.

    All trainings have the same settings, so that methods are compared and not their schedules: the defaults of ``wsiseg
    train``, then `train`, then `each`. Of a method's own usual settings only its options and its network apply, not its
    batches, crops, optimiser, and number of updates. Of objects, methods that learn from labels alone take the head of
    the first method of the study that learns from images without labels, where theirs is left to be chosen.

    Parameters
    ----------
    methods
        Methods that learn from labels of pixels, or names of variants that `each` has.
    fractions
        Shares of the images to train on whose labels are used, each above 0 and up to 1.
    counts
        The same as numbers of images; in the place of `fractions`.
    seeds
        Trainings of each method with each share; each draws images of its own.
    train
        Settings of all trainings, as in a configuration of ``wsiseg train``. A network that it names, with its encoder
        and settings, is not for methods that have one of their own, such as ``pgfanet``.
    each
        Settings of the trainings of one method, by its name; they come before those of all. Under any other name they
        make a variant of the ``method`` that they name, such as one that learns from labels alone.
    """

    methods: tuple[str, ...] = Field(default=("supervised", "mean-teacher"), min_length=1)
    fractions: tuple[float, ...] = Field(default=(0.05, 0.1, 0.2, 0.5, 1.0), min_length=1)
    counts: tuple[int, ...] = ()
    seeds: int = Field(default=3, gt=0)
    train: dict[str, Any] = Field(default_factory=dict)
    each: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("methods")
    @classmethod
    def _are_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        # They are names of folders, too.
        if wrong := [value for value in values if not re.fullmatch(r"\w[\w.-]*", value)]:
            raise ValueError(f"{wrong[0]!r} is no name: letters, digits, dots, hyphens and underscores make one")
        if twice := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"{twice[0]} is there twice")
        return values

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < value <= 1 for value in values):
            raise ValueError("shares lie above 0 and up to 1; --counts takes numbers of images")
        return values

    @field_validator("counts")
    @classmethod
    def _are_counts(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [value for value in values if value < 1]:
            raise ValueError(f"{wrong[0]} is no number of images to learn from")
        return values

    @property
    def sizes(self) -> tuple[str, ...]:
        """Return what ``--labelled`` is to be, from the smallest."""
        if self.counts:
            return tuple(str(count) for count in sorted(set(self.counts)))
        return tuple(dict.fromkeys(f"{100 * share:g}%" for share in sorted(self.fractions)))

    def with_all_of(self, known: BudgetConfig) -> Self:
        """Return these settings, with the methods and variants of an earlier call that this one leaves out."""
        methods = tuple(dict.fromkeys((*known.methods, *self.methods)))
        kept = {name: own for name, own in known.each.items() if name not in self.methods}
        return self.model_copy(update={"methods": methods, "each": {**kept, **self.each}})


def training_of(config: BudgetConfig, name: str, *, of_volumes: bool) -> TrainConfig:
    """Return the settings of the trainings of a method, or of a variant.

    Raises
    ------
    ConfigError, MethodError
        If they make no sense.
    """
    chosen, method, own = _chosen(config, name)
    given = merged(_meant_for(method, config.train), own)
    if taken := _DECIDED & set(flattened(given)):
        key = min(taken)
        place = f"each.{name}" if key in flattened(own) else "train"
        raise ConfigError("the study decides about it", where=f"{place}.{key}")
    with errors_of(name):
        resolved = load(TrainConfig, options={**given, "method": chosen})
        options = load(method.options, options=resolved.options)
    if resolved.unlabelled_batch_size is not None and not method.takes_unlabelled:
        raise ConfigError(
            f"{name} does not learn from images without labels",
            where="train.unlabelled_batch_size",
            mend="Set it for the methods that do, as each.METHOD.unlabelled_batch_size",
        )
    defaults = TrainConfig().model_dump()
    usual = set(method.training(options, of_volumes=of_volumes)) - (_OF_VOLUMES if of_volumes else set())
    same = merged({key: defaults[key] for key in usual}, {**given, "method": chosen})
    return load(TrainConfig, options={"name": name, **same})


def check_each(config: BudgetConfig, name: str) -> None:
    """Raise unless a method exists, and its own settings do; those of all trainings may be for others.

    Raises
    ------
    ConfigError, MethodError
        If they do not.
    """
    try:
        chosen, method, own = _chosen(config, name)
        resolved = load(TrainConfig, options={**own, "method": chosen})
        load(method.options, options=resolved.options)
    except WsisegError as error:
        raise type(error)(error.what, where=f"each.{name}", mend=error.mend) from error


def check_network(config: BudgetConfig) -> None:
    """Raise if all trainings are to have a network, and each method has another of its own.

    Raises
    ------
    ConfigError
        If so.
    """
    arch = flattened(config.train).get("options.arch")
    if arch is not None and all(_network(_chosen(config, name)[1]) not in (None, arch) for name in config.methods):
        raise ConfigError(
            f"no method of the study takes the network {arch}, as each has its own", where="--arch", mend="Leave it out"
        )


def _chosen(config: BudgetConfig, name: str) -> tuple[str, Method, dict[str, Any]]:
    """Return the name of a method, or of that of a variant, the method, and settings of its own."""
    own = dict(config.each.get(name, {}))
    # Whatever was typed, such as a number, is the name of some method or of none.
    chosen = str(own.pop("method", name))
    where = "--methods" if chosen == name else f"each.{name}.method"
    if get_patch_method(chosen) is not None:
        raise ConfigError(f"{chosen} learns from what patches show, not from labels of pixels", where=where)
    try:
        return chosen, get_method(chosen), own
    except MethodError as error:
        raise MethodError(error.what, where=where, mend=error.mend) from error


def _network(method: Method) -> str | None:
    """Return the network that a method has of its own, or None where it takes one."""
    arch = method.options.model_fields.get("arch")
    if arch is None or get_origin(arch.annotation) is not Literal:
        return None
    (network,) = get_args(arch.annotation)
    return str(network)


def _meant_for(method: Method, train: dict[str, Any]) -> dict[str, Any]:
    """Return settings of all trainings without a network that a method, which has its own, cannot take."""
    network = _network(method)
    if network is None or flattened(train).get("options.arch", network) == network:
        return train
    options = {key: value for key, value in train["options"].items() if key not in ("arch", "encoder", "net")}
    return {**train, "options": options}
