"""``wsiseg predict`` with a model of volumes writes labels where each volume lies, and a broken one fails alone."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.tiny_models import save_tiny_model
from tests.volume_makers import make_case, write_nifti
from wsiseg.checkpoint import ModelCard
from wsiseg.cli.app import app
from wsiseg.errors import (
    ConfigError,
    DataError,
    NothingMatchedError,
    SomeFailedError,
    StoppedError,
    StoreError,
    WsisegError,
)
from wsiseg.inference.settings import PredictSettings
from wsiseg.inference.volumes import largest_components
from wsiseg.labels import LabelMap
from wsiseg.lock import locked
from wsiseg.methods.predictor import NetPredictor, build_network, load_predictor
from wsiseg.methods.windows import window_means
from wsiseg.progress import Silent
from wsiseg.stopping import Stop
from wsiseg.tasks.predict import PredictJob, predict
from wsiseg.volumes import IntensityRule, VolumeInput, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wsiseg.progress import Advance

PATCH = (8, 8, 8)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model of volumes with random but fixed weights."""
    torch.manual_seed(1)
    card = ModelCard(
        name="tiny",
        task="semantic",
        labels=LabelMap.from_names(("background", "head", "tail")),
        tile_px=8,
        halo_px=0,
        net={"arch": "unet3d", "widths": [2, 4]},
        volume=VolumeInput(patch=PATCH, spacing_mm=(1.0, 1.0, 1.0)),
    )
    folder = tmp_path_factory.mktemp("models") / "tiny"
    NetPredictor(card, build_network(card)).save(folder, metrics={})
    return folder


def run(model: Path, output: Path, *arguments: object) -> str:
    options = ["--progress", "none", "predict", *map(str, arguments), "-o", str(output), "--model", str(model)]
    result = CliRunner().invoke(app, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def fails(model: Path, output: Path, *arguments: object) -> WsisegError:
    with pytest.raises(WsisegError) as caught:
        run(model, output, *arguments)
    return caught.value


def test_labels_lie_where_the_volume_does(model: Path, tmp_path: Path) -> None:
    volume = np.pad(make_case(0, (9, 10, 11))[0], 2)
    affine = np.array([[0, -1.0, 0, 30], [1.0, 0, 0, -20], [0, 0, 1.0, 5], [0, 0, 0, 1]])
    # In this file the first axis runs to the front and the second to the left.
    filed = np.flip(volume, axis=2).transpose(1, 2, 0)
    nibabel.save(nibabel.Nifti1Image(filed, affine), tmp_path / "case_0000.nii.gz")
    predictor = load_predictor(model)
    prepared = prepare(volume, IntensityRule(), where="case")
    stride = VolumeInput(patch=PATCH).stride
    means = window_means(predictor, prepared.voxels, patch=PATCH, stride=stride, device=torch.device("cpu"))

    run(model, tmp_path / "out", tmp_path / "case_0000.nii.gz", "--probability")

    found = nibabel.load(tmp_path / "out" / "case" / "labels.nii.gz")
    labels = np.flip(np.asarray(found.dataobj).transpose(2, 0, 1), axis=2)
    inside = np.zeros(volume.shape, dtype=np.bool_)
    inside[prepared.box] = True
    np.testing.assert_allclose(found.affine, affine)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(labels[prepared.box], means.argmax(axis=0))
    assert not labels[~inside].any()
    assert len(np.unique(labels)) > 1
    prob = nibabel.load(tmp_path / "out" / "case" / "probabilities.nii.gz")
    assert prob.shape == (*filed.shape, 3)
    np.testing.assert_allclose(prob.get_fdata().sum(axis=3), 1, atol=1e-5)
    np.testing.assert_array_equal(prob.get_fdata().argmax(axis=3), np.asarray(found.dataobj))


def test_the_summary_tells_what_was_found_and_done_is_done(model: Path, tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "case0.nii.gz", make_case(0)[0])

    run(model, tmp_path / "out", tmp_path / "in")
    before = (tmp_path / "out" / "case0" / "labels.nii.gz").stat().st_mtime_ns
    again = run(model, tmp_path / "out", tmp_path / "in" / "*.nii.gz")

    summary = json.loads((tmp_path / "out" / "case0" / "summary.json").read_text(encoding="utf-8"))
    labels = np.asarray(nibabel.load(tmp_path / "out" / "case0" / "labels.nii.gz").dataobj)
    assert summary["shape"] == [12, 14, 16]
    assert sum(found["voxels"] for found in summary["classes"].values()) == labels.size
    assert summary["classes"]["head"]["volume_ml"] == pytest.approx((labels == 1).sum() / 1000)
    assert "1 already done" in again
    assert (tmp_path / "out" / "case0" / "labels.nii.gz").stat().st_mtime_ns == before
    other = fails(model, tmp_path / "out", tmp_path / "in", "--set", "largest_component=true")
    assert isinstance(other, StoreError)
    assert "largest_component differ" in str(other)


class Killed(BaseException):
    """What ends a process, but for its test."""


@pytest.fixture(scope="module")
def other(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model that says otherwise."""
    card = load_predictor(model).card
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("models") / "other"
    NetPredictor(card, build_network(card)).save(folder, metrics={})
    return folder


def test_a_kill_between_labels_and_summary_leaves_nothing_that_passes_for_done(
    model: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    path, out = write_nifti(tmp_path / "case.nii.gz", make_case(0)[0]), tmp_path / "out"
    run(model, out, path)
    ours = nibabel.load(out / "case" / "labels.nii.gz").get_fdata()
    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.inference.volumes.write_summary", killed)
        with pytest.raises(Killed):
            run(other, out, path, "--overwrite")
    theirs = nibabel.load(out / "case" / "labels.nii.gz").get_fdata()

    told = run(model, out, path)

    assert not np.array_equal(ours, theirs)
    assert "1 done" in told
    np.testing.assert_array_equal(nibabel.load(out / "case" / "labels.nii.gz").get_fdata(), ours)


def test_nothing_is_left_of_what_is_predicted_anew(model: Path, other: Path, tmp_path: Path) -> None:
    path, out = write_nifti(tmp_path / "case.nii.gz", make_case(0)[0]), tmp_path / "out"
    run(model, out, path, "--probability")
    (out / "case" / ".labels.nii.gz.0.part").write_bytes(b"half")

    run(other, out, path, "--overwrite")

    assert sorted(file.name for file in (out / "case").iterdir()) == ["labels.nii.gz", "summary.json"]


def test_who_waits_for_another_process_finds_its_work_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_nifti(tmp_path / "case.nii.gz", make_case(0)[0])
    settings = PredictSettings(model=str(model))
    job = PredictJob(inputs=(str(path),), output=tmp_path / "out", settings=settings, device="cpu")

    @contextmanager
    def after_another(lock: Path) -> Iterator[None]:
        monkeypatch.setattr("wsiseg.tasks.predict_volumes.locked", locked)
        predict(job)
        with locked(lock):
            yield

    monkeypatch.setattr("wsiseg.tasks.predict_volumes.locked", after_another)

    assert [slide.status for slide in predict(job).slides] == ["already done"]


def test_a_broken_volume_does_not_keep_others_from_being_done(model: Path, tmp_path: Path) -> None:
    write_nifti(tmp_path / "in" / "a.nii.gz", make_case(0)[0])
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"torn")
    write_nifti(tmp_path / "in" / "c.nii.gz", make_case(1)[0])

    error = fails(model, tmp_path / "out", tmp_path / "in")

    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(error, SomeFailedError)
    assert [one["status"] for one in summary["slides"]] == ["done", "failed", "done"]
    assert not (tmp_path / "out" / "b" / "labels.nii.gz").exists()
    alone = fails(model, tmp_path / "alone", tmp_path / "in" / "b.nii.gz")
    assert isinstance(alone, DataError)
    assert "cannot be read as a NIfTI volume" in str(alone)


def test_a_stop_leaves_whole_volumes_or_nothing(model: Path, tmp_path: Path) -> None:
    class Impatient(Silent):
        """Asks for a stop in the middle of the second volume."""

        @contextmanager
        def task(self, what: str, *, total: int | None, unit: str = "") -> Iterator[Advance]:
            with super().task(what, total=total, unit=unit) as advance:
                if what == "b.nii.gz":
                    stop.request("the test says so")
                yield advance

    for name in "abc":
        write_nifti(tmp_path / "in" / f"{name}.nii.gz", make_case(0)[0])
    stop, settings = Stop(), PredictSettings(model=str(model))
    job = PredictJob(inputs=(str(tmp_path / "in"),), output=tmp_path / "out", settings=settings, device="cpu")

    with pytest.raises(StoppedError):
        predict(job, Impatient(), stop)
    report = predict(job)

    assert [slide.status for slide in report.slides] == ["already done", "done", "done"]


def test_options_of_slides_are_refused(model: Path, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii.gz", make_case(0)[0])

    for options in (("--mpp", 0.5), ("--tta", "d4"), ("--label-png",), ("--batch-size", 2), ("--compile",)):
        error = fails(model, tmp_path / "out", path, *options)
        assert isinstance(error, ConfigError)
        assert "this means nothing" in str(error)
    (tmp_path / "empty").mkdir()
    assert isinstance(fails(model, tmp_path / "out", tmp_path / "empty"), NothingMatchedError)
    assert isinstance(fails(model, tmp_path / "out", tmp_path / "missing.nii.gz"), DataError)


def test_slides_keep_all_parts(tmp_path: Path) -> None:
    error = fails(save_tiny_model(tmp_path / "model"), tmp_path / "out", "slide.svs", "--set", "largest_component=true")

    assert isinstance(error, ConfigError)
    assert "only of volumes" in str(error)


def test_a_dry_run_counts_windows(model: Path, tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "case.nii.gz", make_case(0)[0])

    told = run(model, tmp_path / "out", path, "--dry-run", "--overlap", 0)

    assert "1 planned" in told
    assert not (tmp_path / "out").exists()


def test_voxels_of_another_size_are_spoken_of(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    coarse = write_nifti(tmp_path / "coarse.nii.gz", make_case(0)[0], np.diag([1.0, 1.0, 2.0, 1.0]))
    usual = write_nifti(tmp_path / "usual.nii.gz", make_case(0)[0], np.diag([1.0, 1.05, 1.0, 1.0]))

    run(model, tmp_path / "out", usual)
    assert "trained on" not in caplog.text
    run(model, tmp_path / "out", coarse)

    assert "voxels of 2 x 1 x 1 mm, and the model was trained on 1 x 1 x 1 mm" in caplog.text


def test_of_each_class_the_largest_part_may_be_kept() -> None:
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[0, 0, :4], labels[3, 3, 0], labels[4, 4, 1] = 1, 1, 1
    labels[5, 0, 5], labels[5, 5, 3:5] = 2, 2
    expected = labels.copy()
    expected[3, 3, 0] = expected[4, 4, 1] = expected[5, 0, 5] = 0

    np.testing.assert_array_equal(largest_components(labels), expected)
    assert not largest_components(np.zeros((2, 2, 2), dtype=np.uint8)).any()
