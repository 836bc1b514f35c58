"""The features that patches are chosen by: made, or found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wsiseg.errors import StoreError
from wsiseg.lock import locked
from wsiseg.selection.encoders import EncoderSpec, build_encoder
from wsiseg.selection.features import encode, fingerprint_of
from wsiseg.selection.pool import sizes_of
from wsiseg.stores.feature_store import FeatureMeta, FeatureStore

if TYPE_CHECKING:
    from pathlib import Path

    from wsiseg.nets.devices import Amp
    from wsiseg.progress import Progress
    from wsiseg.stopping import Stop
    from wsiseg.stores.patch_set import PatchSet
    from wsiseg.tasks.select_job import SelectJob

FEATURES: Final = "features.zarr"


def features_of(job: SelectJob, patches: PatchSet, progress: Progress, stop: Stop) -> FeatureStore:
    """Return the features of all patches, made if they are not there.

    Raises
    ------
    MethodError
        If there is no such encoder, or its weights cannot be had.
    DataError
        If weights do not fit, or the encoder gives no numbers.
    StoreError
        If others are there.
    StoppedError
        If `stop` was requested; complete chunks stay.
    """
    from wsiseg.nets.devices import choose_device, choose_dtype

    config = job.config
    spec = EncoderSpec(**{name: getattr(config, name) for name in EncoderSpec.model_fields})
    device = choose_device(job.device)
    amp: Amp = config.amp
    dtype = choose_dtype(amp, device)
    sizes = sizes_of(patches)
    # The smallest that it gets are quadrants.
    encoder = build_encoder(spec, sides_px=(max(1, int(sizes.min()) // 2), int(sizes.max())))
    if spec.init == "none":
        progress.say("features of random weights tell colours and coarse texture, but little of tissue")
    meta = FeatureMeta(
        count=len(patches),
        dimensions=encoder.dimensions,
        encoder=spec.encoder,
        preproc=spec.preproc,
        precision="float32" if dtype is None else str(dtype).removeprefix("torch."),
        weights=encoder.fingerprint(),
        patches=fingerprint_of(patches),
    )
    path = job.features or job.output / FEATURES
    with locked(path.with_name(f".{path.name}.lock")):
        store = FeatureStore.prepare(path, meta, overwrite=job.overwrite and not _is_of(path, meta))
        encode(
            patches,
            encoder,
            store,
            device=device,
            dtype=dtype,
            batch_size=config.batch_size,
            workers=job.num_workers,
            progress=progress,
            stop=stop,
        )
    return store


def _is_of(path: Path, meta: FeatureMeta) -> bool:
    """Tell whether features that are there are those that are asked for."""
    try:
        return FeatureStore(path).meta == meta
    except StoreError:
        return False
