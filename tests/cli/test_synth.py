"""`wsiseg synth fit` trains GANs of patches, and `wsiseg synth sample` makes pairs that only training uses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.nuclei_makers import ellipses
from tests.synthesis_makers import stained
from wsiseg.errors import MethodError
from wsiseg.lock import locked
from wsiseg.stores.patch_store import PatchStore
from wsiseg.synthesis.gan_files import read_gan
from wsiseg.synthesis.gan_fit import fit
from wsiseg.synthesis.layouts import layouts
from wsiseg.synthesis.nucleus_bank import bank_of
from wsiseg.synthesis.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Result
    from tests.conftest import MakePatchStore

TINY = [
    part
    for setting in ("smallest_px=16", "largest_px=32", "widths=[4,4]", "steps=3", "critic_steps=1", "masks=3")
    for part in ("--set", setting)
]


@pytest.fixture
def store(tmp_path: Path, make_patch_store: MakePatchStore) -> Path:
    """Return a store of four patches with nuclei: two of slide s, and one each of a and b."""
    labels = np.stack([ellipses(9, 40, seed=seed, radii=(3.2, 4.5)) for seed in range(4)])
    images = np.stack([stained(one, seed=at) for at, one in enumerate(labels)])
    make_patch_store(
        tmp_path / "real.zarr",
        images,
        labels,
        layer="labels",
        kind="instances",
        names=("background", "nucleus"),
        parents=["s", "s", "a", "b"],
        positions=[(0, 0), (40, 0), (0, 0), (0, 0)],
    )
    return tmp_path / "real.zarr"


def test_from_patches_to_pairs_to_train_on(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    fitted = run("synth", "fit", store, "--patch", "a", "--patch", "s-40-0", "-o", tmp_path / "gan", *TINY)

    assert fitted.code == 0, fitted.err
    assert "2 GANs" in fitted.out
    # So short a training does not find the colours, and says so.
    lines = fitted.out.splitlines()
    assert [line.partition(": colours ")[0] for line in lines[1:-1]] == ["a", "s-40-0"]
    assert lines[-1].startswith("quality: ")
    assert "2 of 2 GANs paint unlike their patches: " in fitted.err
    assert "s-40-0 (nuclei are " in fitted.err
    figures = json.loads((tmp_path / "gan" / "quality.json").read_text())
    assert set(figures) == {"a", "s-40-0"}
    assert {"colour_error_nuclei", "adherence", "diversity", "copies", "ssim"} <= set(figures["a"])
    page = (tmp_path / "gan" / "quality.html").read_text()
    assert page.count("data:image/png") == 2
    assert page.count("<strong>Unlike its patch:</strong> nuclei are ") == 2
    for name in figures:
        assert {path.name for path in (tmp_path / "gan" / name).iterdir()} >= {
            "gan.json",
            "pairs.png",
            "sheets",
            "log.csv",
        }

    sampled = run("synth", "sample", tmp_path / "gan", "-n", 3, "-o", tmp_path / "made.zarr")

    assert sampled.code == 0, sampled.err
    assert "6 synthetic patches" in sampled.out
    made = PatchStore.open(tmp_path / "made.zarr")
    real = PatchStore.open(store)
    assert made.meta.origin == "synthetic"
    assert set(made.splits) == {"synthetic"}
    assert made.layers == real.layers
    assert made.mpp == real.mpp
    assert made.parents.tolist() == ["a"] * 3 + ["s"] * 3
    labels = made.read_labels("labels", range(6))
    assert all(labels[at].max() > 0 for at in range(6))
    assert made.read_images(range(6)).shape == (6, 32, 32, 3)
    assert len({image.tobytes() for image in made.read_images(range(6))}) == 6

    trained = run(
        "train", "--method", "supervised", store, tmp_path / "made.zarr", "-o", tmp_path / "run",
        "--steps", 2, "--batch-size", 2, "--crop-px", 32, "--device", "cpu", "--set", "options.arch=unet-gn",
    )  # fmt: skip

    assert trained.code == 0, trained.err


def test_of_a_selection_its_own_gans_are_sampled(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    gans, table = tmp_path / "gans", tmp_path / "selection.csv"
    assert run("synth", "fit", store, "--patch", "a", "--patch", "b", "-o", gans, *TINY).code == 0

    def sampled(name: str, rows: str) -> Result:
        table.write_text(rows)
        return run("synth", "sample", gans, "--selection", table, "-n", 2, "-o", tmp_path / f"{name}.zarr")

    # Where rows tell places, names may be those of another pool; of some patches there may be no GAN.
    by_place = sampled("place", "patch,slide,x,y,rank\na,b,0,0,1\na,c,0,0,1\ns-40-0,s,40,0,1\na,a,0,0,2\n")
    by_name = sampled("name", "patch\nb\n")
    # A table may tell the slide alone, and spreadsheets write numbers in their own way.
    by_slide = sampled("slide", "patch,slide\nb,b\n")
    rewritten = sampled("rewritten", "patch,slide,x,y\nb,b,0.0,0.0\n")
    none = sampled("none", "patch\nc\n")

    assert [one.code for one in (by_place, by_name, by_slide, rewritten, none)] == [0, 0, 0, 0, 4]
    stores = [PatchStore.open(tmp_path / f"{name}.zarr") for name in ("place", "name", "slide", "rewritten")]
    assert [made.parents.tolist() for made in stores] == [["b", "b"]] * 4
    assert len({made.fingerprint for made in stores}) == 1
    assert "no GAN of a patch that is chosen" in none.err
    assert "selection.csv: 2 of 3 chosen patches have no GAN: a, s-40-0. Unless they could not" in by_place.err
    assert "have no GAN" not in by_name.err


def test_a_spreadsheet_that_renames_a_slide_loses_no_gan(
    tmp_path: Path, run: Callable[..., Result], make_patch_store: MakePatchStore
) -> None:
    labels = np.stack([ellipses(9, 40, seed=seed, radii=(3.2, 4.5)) for seed in range(3)])
    images = np.stack([stained(one) for one in labels])
    path = make_patch_store(
        tmp_path / "numbered.zarr", images, labels, kind="instances", names=("background", "nucleus"),
        parents=["001", "001", "b"], positions=[(0, 0), (40, 0), (0, 0)],
    ).path  # fmt: skip
    table = tmp_path / "selection.csv"
    # It was 001, which spreadsheets take for a number.
    table.write_text("patch,slide,x,y,rank\n001-40-0,1,40,0,1\nb,b,0,0,1\n")

    fitted = run("synth", "fit", path, "--selection", table, "-o", tmp_path / "gan", *TINY)
    sampled = run("synth", "sample", tmp_path / "gan", "--selection", table, "-n", 2, "-o", tmp_path / "made.zarr")

    assert "2 GANs in" in fitted.out
    assert sampled.code == 0, sampled.err
    assert "of 2 GANs in" in sampled.out
    assert "have no GAN" not in sampled.err


def test_samples_depend_on_seed_and_number_alone(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    run("synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY)
    stores = []
    for name, count, seed in (("one", 2, 0), ("two", 4, 0), ("three", 2, 5)):
        assert run("synth", "sample", tmp_path / "gan", "-n", count, "--seed", seed, "-o", tmp_path / name).code == 0
        stores.append(PatchStore.open(tmp_path / name))

    one, two, three = (store.read_images([0, 1]) for store in stores)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, three)
    assert stores[0].fingerprint != stores[2].fingerprint


def test_stored_labels_are_the_masks_that_their_images_were_painted_from(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    run("synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY)
    assert run("synth", "sample", tmp_path / "gan", "-n", 3, "--seed", 2, "-o", tmp_path / "made.zarr").code == 0

    made, gan = PatchStore.open(tmp_path / "made.zarr"), read_gan(tmp_path / "gan" / "a", torch.device("cpu"))

    bank = bank_of(gan.example.labels)
    masks = layouts(bank, gan.card.settings.layout, gan.card.density, range(3), patch="a", seed=2)
    np.testing.assert_array_equal(made.read_labels("labels", range(3)), masks)
    # The images are those of these masks, and of no other ones.
    for image, mask, number in zip(made.read_images(range(3)), masks, range(3), strict=True):
        np.testing.assert_array_equal(image, sample(gan, mask, seed=2, index=number))
        assert not np.array_equal(image, sample(gan, mask[::-1].copy(), seed=2, index=number))


def test_a_selection_names_patches_by_their_places(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    table = tmp_path / "selection.csv"
    table.write_text("patch,slide,x,y,cluster,rank\nwhatever,s,40,0,0,1\nb,b,0,0,1,1\na,a,0,0,1,2\n")

    result = run("synth", "fit", store, "--selection", table, "-o", tmp_path / "gan", *TINY)

    assert result.code == 0, result.err
    assert set(json.loads((tmp_path / "gan" / "quality.json").read_text())) == {"s-40-0", "b"}


def test_a_selection_may_choose_from_several_stores(
    tmp_path: Path, run: Callable[..., Result], store: Path, make_patch_store: MakePatchStore
) -> None:
    labels = ellipses(9, 40, seed=2, radii=(3.2, 4.5))[None]
    names = ("background", "nucleus")
    images = stained(labels[0])[None]
    other = make_patch_store(
        tmp_path / "c.zarr", images, labels, layer="labels", kind="instances", names=names, parents=["c"]
    ).path
    table = tmp_path / "selection.csv"
    table.write_text("patch,slide,x,y,rank\nc,c,0,0,1\na,a,0,0,1\n")

    both = run("synth", "fit", store, other, "--selection", table, "-o", tmp_path / "gan", *TINY)
    one = run("synth", "fit", store, "--selection", table, "-o", tmp_path / "gan", *TINY)

    assert both.code == 0, both.err
    assert set(json.loads((tmp_path / "gan" / "quality.json").read_text())) == {"a", "c"}
    assert one.code == 5
    assert "selection.csv: no patch is named 'c'. Pass all stores that it chose from" in one.err
    assert "--patch" not in one.err


def test_a_store_of_synthetic_patches_beside_changes_no_names(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    folder, gan = tmp_path / "stores", tmp_path / "gan"
    folder.mkdir()
    store.rename(folder / "real.zarr")
    table = tmp_path / "selection.csv"
    table.write_text("patch,slide,x,y,rank\na,a,0,0,1\ns-40-0,s,40,0,1\n")
    assert run("synth", "fit", folder, "--selection", table, "-o", gan, *TINY).code == 0
    assert run("synth", "sample", gan, "-n", 2, "-o", folder / "made.zarr").code == 0

    by_table = run("synth", "fit", folder, "--selection", table, "-o", gan, *TINY)
    by_name = run("synth", "fit", folder, "--patch", "b", "-o", tmp_path / "other", *TINY)

    assert by_table.code == 0, by_table.err
    assert by_name.code == 0, by_name.err
    assert {path.name for path in gan.iterdir() if path.is_dir()} == {"a", "s-40-0"}


def test_a_second_run_does_nothing_and_other_settings_are_refused(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    command = ["synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY]
    run(*command)
    file = tmp_path / "gan" / "a" / "scale-1.safetensors"
    files = [path for path in (tmp_path / "gan").rglob("*") if path.is_file() and path.name != "config.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    figures = tmp_path / "gan" / "quality.json"

    again = run(*command)
    other = run(*command, "--seed", 3)
    is_untouched = {path: path.stat().st_mtime_ns for path in files} == before
    assert "already done" not in run(*command, "--patch", "b").out
    of_both = json.loads(figures.read_text())
    assert "already done" in run(*command, "--patch", "b").out
    anew = run(*command, "--seed", 3, "--overwrite")

    assert (again.code, other.code, anew.code) == (0, 5, 0)
    assert "already done" in again.out
    assert is_untouched
    assert "--overwrite" in other.err
    assert file.stat().st_mtime_ns > before[file]
    # A run for some GANs tells of all that there are, and measures those that have changed.
    assert set(of_both) == {"a", "b"}
    told = json.loads(figures.read_text())
    assert told["b"] == of_both["b"]
    assert told["a"]["fingerprint"] != of_both["a"]["fingerprint"]
    assert (tmp_path / "gan" / "quality.html").read_text().count("data:image/png") == 2


def test_more_patches_and_refused_settings_leave_a_gan_as_it_is(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    gan = tmp_path / "gan"

    def fit(*arguments: object) -> Result:
        return run("synth", "fit", store, "-o", gan, *TINY, *arguments)

    # Of one alone none is denser than the others, and of three one is.
    names = ("a", "b", "s-40-0")
    assert [fit("--patch", name).code for name in names[1:]] == [0] * 2
    patches = [part for name in names for part in ("--patch", name)]
    config = gan / "config.json"
    before = config.read_bytes()

    refused = fit(*patches, "--seed", 7)
    # Not even one that is named before those that are there is begun.
    is_begun = (gan / "a").exists()
    alone = fit("--patch", "a")
    more = fit(*patches)

    assert refused.code == 5
    assert "other settings" in refused.err
    assert not is_begun
    assert alone.code == 0, alone.err
    assert config.read_bytes() == before
    assert more.code == 0, more.err
    assert {json.loads((gan / name / "gan.json").read_text())["density"] for name in names} == {"normal"}


def test_a_patch_that_is_annotated_anew_gets_a_gan_anew(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    gan, made = tmp_path / "gan", tmp_path / "made.zarr"
    command = ["synth", "fit", store, "--patch", "a", "--patch", "b", "-o", gan, *TINY]
    sampling = ["synth", "sample", gan, "-n", 2, "-o", made]
    assert run(*command).code == 0
    assert run(*sampling).code == 0
    before = {name: (gan / name / "scale-1.safetensors").read_bytes() for name in ("a", "b")}
    again = run(*sampling)
    patches = PatchStore.open(store)
    labels = patches.read_labels("labels", [2])
    labels[labels == 1] = 0

    patches.write_labels("labels", [2], list(labels))
    anew = run(*command)
    refused = run(*sampling)

    assert again.code == 0
    assert again.out.rstrip().endswith("already done")
    assert anew.code == 0, anew.err
    assert " ".join(anew.err.split()).count("a: the patch has other labels now, and its GAN begins anew") == 1
    assert (gan / "a" / "scale-1.safetensors").read_bytes() != before["a"]
    assert (gan / "b" / "scale-1.safetensors").read_bytes() == before["b"]
    assert refused.code == 5
    assert "what is there is another store, of other GANs or otherwise made" in refused.err
    assert "already done" not in run(*sampling, "--overwrite").out
    # What is the same is not made again; other layers of the store do not matter.
    PatchStore.open(made).add_layer("more", "classes", patches.layers["labels"].labels)
    assert "already done" in run(*sampling, "--overwrite").out


def test_a_patch_of_the_same_name_with_other_pixels_is_another(
    tmp_path: Path, run: Callable[..., Result], store: Path, make_patch_store: MakePatchStore
) -> None:
    command = ["synth", "fit", "--patch", "a", "-o", tmp_path / "gan", *TINY]
    assert run(*command[:2], store, *command[2:]).code == 0
    before = (tmp_path / "gan" / "a" / "scale-1.safetensors").read_bytes()
    patches = PatchStore.open(store)
    other = make_patch_store(
        tmp_path / "other.zarr", 255 - patches.read_images([2]), patches.read_labels("labels", [2]), layer="labels",
        kind="instances", names=("background", "nucleus"), parents=["a"],
    )  # fmt: skip

    refused = run(*command[:2], other.path, *command[2:])

    assert refused.code == 5
    assert "the GAN was begun with other source" in refused.err
    assert (tmp_path / "gan" / "a" / "scale-1.safetensors").read_bytes() == before


def test_the_gan_of_a_patch_that_is_set_aside_is_removed(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    gan, table = tmp_path / "gan", tmp_path / "selection.csv"
    table.write_text("patch\na\nb\n")
    command = ["synth", "fit", store, "--selection", table, "-o", gan, *TINY]
    assert run(*command).code == 0
    patches = PatchStore.open(store)

    patches.write_labels("labels", [2], [np.full((40, 40), -1)])
    result = run(*command)

    assert result.code == 3
    assert "a: the patch has other labels now, and its GAN is removed" in result.err
    assert not (gan / "a").exists()
    assert (gan / "b" / "scale-1.safetensors").exists()
    # Settings that a patch is too small for say nothing of its labels.
    assert run(*command, "--set", "smallest_px=200", "--set", "largest_px=400").code == 5
    assert (gan / "b" / "scale-1.safetensors").exists()
    # Also where nothing is left to learn from.
    patches.write_labels("labels", [3], [np.full((40, 40), -1)])
    assert run(*command).code == 4
    assert not (gan / "b").exists()


def test_the_gan_of_another_patch_of_the_name_of_one_that_is_set_aside_stays(
    tmp_path: Path, run: Callable[..., Result], store: Path, make_patch_store: MakePatchStore
) -> None:
    gan, table = tmp_path / "gan", tmp_path / "selection.csv"
    table.write_text("patch\na\nb\n")
    command = ["--selection", table, "-o", gan, *TINY]
    assert run("synth", "fit", store, "--patch", "a", "-o", gan, *TINY).code == 0
    patches = PatchStore.open(store)
    images, labels = 255 - patches.read_images([2, 3]), patches.read_labels("labels", [2, 3])
    labels[0] = -1
    other = make_patch_store(
        tmp_path / "other.zarr", images, labels, layer="labels", kind="instances", names=("background", "nucleus"),
        parents=["a", "b"],
    )  # fmt: skip

    result = run("synth", "fit", other.path, *command)

    assert result.code == 3
    assert "its GAN is removed" not in result.err
    assert (gan / "a" / "scale-1.safetensors").exists()
    assert (gan / "b" / "scale-1.safetensors").exists()
    # That of a patch that another process is at does not keep others from theirs.
    patches.write_labels("labels", [2], [np.full((40, 40), -1)])
    with locked(gan / ".a.lock"):
        beside = run("synth", "fit", store, *command, "--overwrite")
    assert beside.code == 3, beside.err
    assert (gan / "a" / "scale-1.safetensors").exists()


@pytest.mark.parametrize("name", ["a/model.safetensors", "a/polygons.geojson", "a", "config.json"])
def test_what_is_no_gan_is_not_removed(tmp_path: Path, run: Callable[..., Result], store: Path, name: str) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    command = ["synth", "fit", store, "--patch", "b", "--patch", "a", "-o", tmp_path / "out", *TINY]

    refused = run(*command, "--overwrite")

    assert refused.code == 5
    assert "Choose another --output" in " ".join(refused.err.split())
    assert theirs.read_text() == "theirs"
    assert not (tmp_path / "out" / "b").exists()


def test_what_lies_beside_the_files_of_a_gan_is_kept(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    theirs = tmp_path / "gan" / "a" / "notes.txt"
    command = ["synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY]
    assert run(*command).code == 0
    theirs.write_text("theirs")
    before = (theirs.parent / "scale-0.safetensors").stat().st_mtime_ns

    assert run(*command, "--overwrite").code == 0

    assert theirs.read_text() == "theirs"
    assert (theirs.parent / "scale-0.safetensors").stat().st_mtime_ns > before


def test_what_is_left_of_a_gan_is_no_obstacle(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    command = ["synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY]
    assert run(*command).code == 0
    # As where a removal was killed.
    (tmp_path / "gan" / "a" / "gan.json").unlink()
    (tmp_path / "gan" / "quality.json").write_text("[]")

    again = run(*command)

    assert again.code == 0, again.err
    assert (tmp_path / "gan" / "a" / "gan.json").exists()


def test_one_that_diverges_or_is_busy_does_not_keep_others_from_their_training(
    tmp_path: Path, run: Callable[..., Result], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gan = tmp_path / "gan"
    command = ["synth", "fit", store, "-o", gan, *TINY, "--patch", "a"]
    sampling = ["synth", "sample", gan, "-n", 2, "-o"]

    def diverging(folder: Path, *arguments: Any, **others: Any) -> None:  # noqa: ANN401 - passed on
        if folder.name == "a":
            raise MethodError("the training of scale 1 diverges", where=folder)
        fit(folder, *arguments, **others)

    with monkeypatch.context() as patch:
        patch.setattr("wsiseg.tasks.synth_fit.fit", diverging)
        alone, beside = run(*command), run(*command, "--patch", "b")
    sampled = run(*sampling, tmp_path / "some.zarr")
    with locked(gan / ".a.lock"):
        busy = run(*command, "--patch", "b", "--patch", "s-40-0")
        all_busy = run(*command)
    named = run(*sampling[:2], gan / "a", "-o", tmp_path / "none.zarr")

    assert alone.code == 2
    assert beside.code == 3
    assert "1 of 2 patches cannot be learnt from" in beside.err
    assert "the training of scale 1 diverges" in beside.err
    assert sampled.code == 3
    assert "1 of 2 GANs are not trained to their end and left out: a" in sampled.err
    assert PatchStore.open(tmp_path / "some.zarr").parents.tolist() == ["b", "b"]
    assert (all_busy.code, all_busy.out) == (75, "")
    assert busy.code == 75
    assert "another process trains the GANs of 1 of 3 patches: a" in busy.err
    assert (gan / "s-40-0" / "scale-1.safetensors").exists()
    assert named.code == 5
    assert "not trained to its end" in named.err


def test_a_time_limit_ends_it_with_its_state_saved(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    command = ["synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY]

    stopped = run(*command, "--time-limit", 0)
    finished = run(*command)

    assert (stopped.code, finished.code) == (75, 0)


def test_a_patch_with_one_nucleus_gives_pairs_that_all_have_some(
    tmp_path: Path, run: Callable[..., Result], make_patch_store: MakePatchStore
) -> None:
    labels = np.zeros((2, 32, 32), np.int32)
    labels[:, 12:19, 12:19] = 1
    # On the other one nothing is to be seen, nor to be told of its contrast.
    images = np.stack([stained(labels[0]), np.full((32, 32, 3), 200, np.uint8)])
    path = tmp_path / "sparse.zarr"
    make_patch_store(path, images, labels, kind="instances", names=("background", "nucleus"))

    fitted = run("synth", "fit", path, "--patch", "image0", "--patch", "image1", "-o", tmp_path / "gan", *TINY)
    sampled = run("synth", "sample", tmp_path / "gan", "-n", 12, "-o", tmp_path / "made.zarr")

    assert fitted.code == 0, fitted.err
    assert sampled.code == 0, sampled.err
    assert PatchStore.open(tmp_path / "made.zarr").read_labels("truth", range(24)).max(axis=(1, 2)).min() > 0
    figures = json.loads((tmp_path / "gan" / "quality.json").read_text())
    assert [figures[name]["contrast"] is None for name in ("image0", "image1")] == [False, True]
    assert "<td>–</td>" in (tmp_path / "gan" / "quality.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "code_and_words"),
    [
        ([], (2, "--patch")),
        (["--patch", "a", "--selection", "x.csv"], (2, "--patch")),
        (["--selection", "missing.csv"], (5, "cannot be read")),
        (["--patch", "s"], (5, "s-0-0")),
        (["--patch", "a", "--layer", "none"], (5, "none")),
        (["--patch", "a", "--set", "smallest_px=500"], (2, "smallest_px")),
        (["--patch", "a", "--preset", "huge"], (2, "huge")),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, run: Callable[..., Result], store: Path, arguments: list[str], code_and_words: tuple[int, str]
) -> None:
    result = run("synth", "fit", store, "-o", tmp_path / "gan", *arguments)

    code, words = code_and_words
    assert result.code == code
    assert words in result.err


def test_a_selection_in_another_encoding_is_told_as_that(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    table = tmp_path / "selection.csv"
    table.write_bytes("patch;slide;x;y;rank\nMüller;Müller;0;0;1\n".encode("cp1252"))

    fitted = run("synth", "fit", store, "--selection", table, "-o", tmp_path / "gan")

    assert fitted.code == 5
    assert "selection.csv: the file is not in UTF-8. Save it as UTF-8" in fitted.err


def test_of_a_selection_the_patches_that_can_be_learnt_from_are(
    tmp_path: Path, run: Callable[..., Result], make_patch_store: MakePatchStore
) -> None:
    whole = ellipses(9, 40, seed=1, radii=(3.2, 4.5))
    labels = np.stack([np.zeros_like(whole), whole, whole])
    labels[1, :10] = -1
    images = np.stack([stained(one) for one in labels])
    path = make_patch_store(tmp_path / "u.zarr", images, labels, kind="instances", names=("background", "nucleus")).path
    table, command = tmp_path / "selection.csv", ["synth", "fit", path, "-o", tmp_path / "gan", *TINY]

    table.write_text("patch\nimage0\nimage1\nimage2\n")
    some = run(*command, "--selection", table)
    table.write_text("patch\nimage0\nimage1\n")
    none = run(*command, "--selection", table)

    assert some.code == 3
    assert "1 GAN in" in some.out
    assert "2 of 3 patches cannot be learnt from: image0: no nucleus" in some.err
    assert "image1: 25% of the patch are marked as unknown" in some.err
    assert (tmp_path / "gan" / "image2" / "pairs.png").exists()
    assert none.code == 4
    assert "none of 2 patches can be learnt from" in none.err


def test_patches_on_which_critics_would_see_nothing_are_refused(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    # The patch has 40 pixels, and its lowest scale as many of them as smallest_px of 64.
    command = ["synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY, "--set", "largest_px=64"]

    small = run(*command, "--set", "smallest_px=16")
    enough = run(*command, "--set", "smallest_px=17")

    assert small.code == 5
    assert "a patch of 40 px is too small: its lowest scale would have 10 px, and at least 11 are" in small.err
    assert enough.code == 0, enough.err


def test_patches_must_be_real_annotated_and_known_to_their_border(
    tmp_path: Path, run: Callable[..., Result], make_patch_store: MakePatchStore
) -> None:
    labels = np.stack([ellipses(9, 40, seed=seed, radii=(3.2, 4.5)) for seed in range(2)])
    images = np.stack([stained(one) for one in labels])
    labels[0, :10] = -1
    unsure = make_patch_store(tmp_path / "u.zarr", images, labels, kind="instances", names=("background", "nucleus"))
    made = make_patch_store(
        tmp_path / "m.zarr", images, labels, kind="instances", names=("background", "nucleus"), origin="synthetic"
    )
    classes = make_patch_store(tmp_path / "c.zarr", images, np.maximum(labels, 0).clip(0, 1))

    for path, told in ((unsure.path, "unknown"), (made.path, "synthetic"), (classes.path, "classes")):
        result = run("synth", "fit", path, "--patch", "image0", "-o", tmp_path / "gan", *TINY)
        assert result.code == 5
        assert told in result.err


def test_gans_go_together_whatever_their_colours_and_one_alone_does_too(
    tmp_path: Path, run: Callable[..., Result], store: Path
) -> None:
    gan = tmp_path / "gan"
    run("synth", "fit", store, "--patch", "a", "--patch", "b", "-o", gan, *TINY)
    card = gan / "b" / "gan.json"
    before = json.loads(card.read_text())

    def sampled(name: str, folder: Path, **changes: object) -> Result:
        card.write_text(json.dumps({**before, **changes}))
        return run("synth", "sample", folder, "-n", 2, "-o", tmp_path / f"{name}.zarr")

    shades = [{**label, "colour": [1, 2, label["index"]]} for label in before["labels"]["labels"]]
    alike = sampled("alike", gan, mpp=0.504, labels={**before["labels"], "labels": shades})
    coarser = sampled("coarser", gan, mpp=0.6)
    named = [{**label, "name": f"other {label['index']}"} for label in before["labels"]["labels"]]
    other = sampled("other", gan, labels={**before["labels"], "labels": named})
    alone = sampled("alone", gan / "a")

    assert alike.code == 0, alike.err
    assert PatchStore.open(tmp_path / "alike.zarr").mpp == pytest.approx(0.502)
    assert (coarser.code, other.code) == (5, 5)
    assert "other resolutions (0.5, 0.6 µm/px)" in coarser.err
    assert "other layers or classes" in other.err
    assert alone.code == 0, alone.err
    assert PatchStore.open(tmp_path / "alone.zarr").parents.tolist() == ["a", "a"]


def test_stores_and_gans_that_are_not_there_are_told(tmp_path: Path, run: Callable[..., Result], store: Path) -> None:
    nothing = run("synth", "sample", tmp_path, "-o", tmp_path / "made.zarr")
    run("synth", "fit", store, "--patch", "a", "-o", tmp_path / "gan", *TINY)
    there = run("synth", "sample", tmp_path / "gan", "-o", store)

    assert (nothing.code, there.code) == (4, 5)
    assert "no GAN" in nothing.err
    assert "--overwrite" in there.err
    assert not (tmp_path / "made.zarr").exists()
