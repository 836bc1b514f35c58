"""The job behind ``wsiseg pseudo-label``: masks of patches, from what they show or of the objects on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wsiseg import checkpoint
from wsiseg.config import load
from wsiseg.errors import ConfigError, DataError
from wsiseg.methods.registry import get_patch_method
from wsiseg.methods.stages import LabelStage
from wsiseg.nets.devices import choose_device
from wsiseg.progress import SILENT
from wsiseg.stopping import Stop
from wsiseg.tasks.mask_export import export_masks
from wsiseg.tasks.patch_data import patch_data, validated
from wsiseg.tasks.patch_masks import COVERAGE, balance, layer_names, write_masks
from wsiseg.tasks.patch_run import model_of
from wsiseg.tasks.pseudo_label_objects import finds_objects, label_objects
from wsiseg.tasks.train_data import fingerprints
from wsiseg.tasks.train_job import CONFIG, TrainConfig
from wsiseg.tiling.reading import open_patches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wsiseg.methods.stages import PatchStage
    from wsiseg.progress import Progress
    from wsiseg.tasks.patch_masks import Balance
    from wsiseg.tasks.pseudo_label_objects import ObjectLabelReport

# RUN/STAGE/last/model.json: the run is so far above the model.
_DEPTH: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelJob:
    """What to do.

    Parameters
    ----------
    stores
        Patch stores, or folders of them; get the layers. For a classifier they have image labels, and what was kept of
        single patches in a training is used if these are the stores of the training, in its order.
    checkpoint
        Folder of a run, or of its stage that trained the classifier; or a model of objects, see `label_objects`.
    layer
        Layer of image labels; may be left out where there is only one.
    min_score
        Of objects, the lowest score of those that are believed; None for that of the run.
    device
        ``auto``, ``cpu``, ``cuda:N`` or ``mps``.
    with_val
        Label validation patches too, by the classes in their masks and as training patches are, and say how sure each
        label is, so that `audit` can compare the two.
    export
        Folder that gets the masks of the training patches as palette PNGs, too; None for none.
    overwrite
        Label patches again that have labels of this classifier, and write their PNGs again.
    """

    stores: tuple[Path, ...]
    checkpoint: Path
    layer: str | None = None
    min_score: float | None = None
    device: str = "auto"
    with_val: bool = False
    export: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelReport:
    """What was labelled.

    Parameters
    ----------
    stores
        As they were named.
    names
        Names of the layers in the store, by the layer of the network that made each.
    patches, labelled
        Patches that are labelled now, and those that were not before.
    shares
        Coverage and share of each class, by layer.
    exported
        Folder of the masks as PNGs, and how many of them are new; None where none were asked for.
    """

    stores: tuple[Path, ...]
    names: dict[str, str]
    patches: int
    labelled: int
    shares: Balance
    exported: tuple[Path, int] | None = None

    def __str__(self) -> str:
        done = "already done" if self.labelled == 0 else f"{self.labelled} of them new"
        layers = "\n".join(
            f"labels/{name}: {self.shares[layer][COVERAGE]:.1%} of the pixels" for layer, name in self.names.items()
        )
        files = "" if self.exported is None else f"\n{self.exported[0]}: {self.exported[1]} new masks as PNG"
        return f"{self.patches} patches labelled in {_listed(self.stores)}, {done}\n{layers}{files}"


def pseudo_label(
    job: PseudoLabelJob, progress: Progress = SILENT, stop: Stop | None = None
) -> PseudoLabelReport | ObjectLabelReport:
    """Write the layers that a trained classifier, or a model of objects, makes into stores.

    Raises
    ------
    ConfigError
        If the method of the run labels nothing, or something is asked for that means nothing to the model.
    DataError, StoreError
        If the run, the model or the store cannot be used, they are of different classes, or masks of another classifier
        lie where they are to be exported.
    BusyError
        If another process writes the same layers.
    StoppedError
        If `stop` was requested; what is labelled stays.
    """
    stop = stop or Stop()
    if finds_objects(job.checkpoint):
        _refuse("a model of objects", {"--layer": job.layer, "--val": job.with_val, "--export": job.export})
        return label_objects(
            job.stores,
            job.checkpoint,
            min_score=job.min_score,
            device=job.device,
            overwrite=job.overwrite,
            progress=progress,
            stop=stop,
        )
    run = _run_of(job.checkpoint)
    try:
        config = load(TrainConfig, options=json.loads((run / CONFIG).read_bytes()))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=run / CONFIG) from error
    method = get_patch_method(config.method)
    stages = () if method is None else method.stages(load(method.options, options=config.options))
    trained: list[PatchStage] = []
    for stage in stages:
        if isinstance(stage, LabelStage):
            break
        trained.append(stage)
    else:
        raise ConfigError(f"the method {config.method} makes no pseudo-labels", where=run)
    # Only now is it known to be one: what is not there, or not finished, seems to find no objects either.
    _refuse("a classifier", {"--min-score": job.min_score})
    models = {one.name: model_of(run, one) for one in trained}
    model = models[trained[-1].name]
    prints = fingerprints(job.stores, [open_patches([path]) for path in job.stores])
    data = patch_data(open_patches(job.stores), name=run.name, layer=job.layer, training_data=prints)
    if checkpoint.read_card(model).labels.classes != data.info.labels.classes:
        raise DataError(
            "the classifier knows other classes than the store",
            where=_listed(job.stores),
            mend="Choose another --layer, or the run that was trained on these classes",
        )
    device = choose_device(job.device)
    labeller = stage.labeller(data.facts, models, device)
    names = layer_names(data, model, labeller.layers)
    parts = (data, validated(data)) if job.with_val else (data,)
    labelled = sum(
        write_masks(
            part,
            labeller,
            names,
            device=device,
            # Nothing tells of other patches whether it is deserved.
            with_confidence=part is not data,
            overwrite=job.overwrite,
            progress=progress,
            stop=stop,
        )
        for part in parts
    )
    exported = None
    if job.export is not None:
        labels, known = data.info.labels, data.known
        written = export_masks(known, names, labels, job.export, overwrite=job.overwrite, progress=progress, stop=stop)
        exported = (job.export, written)
    return PseudoLabelReport(
        stores=job.stores,
        names=names,
        patches=sum(len(part.known.indices) for part in parts),
        labelled=labelled,
        shares=balance(data, names, progress, stop),
        exported=exported,
    )


def _refuse(what: str, asked: Mapping[str, object]) -> None:
    """Raise if anything is asked for that means nothing to such a model."""
    if given := [option for option, value in asked.items() if value not in (None, False)]:
        raise ConfigError(f"{what} knows nothing of {' and '.join(given)}", mend="Leave it out")


def _listed(paths: Sequence[Path]) -> str:
    """Return paths as one text."""
    return ", ".join(map(str, paths))


def _run_of(path: Path) -> Path:
    """Return the folder of the run that a folder belongs to."""
    folder = path.resolve()
    # A name that is no folder says nothing of what lies around.
    for candidate in (folder, *folder.parents[: _DEPTH - 1]) if folder.is_dir() else ():
        if (candidate / CONFIG).exists():
            return candidate
    raise DataError(
        "this is no run of wsiseg train, nor a part of one", where=path, mend="Pass RUN, or RUN/classify for mlps"
    )
