"""Slides are found by file, folder, glob and manifest; mistakes are told by row and column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsiseg.errors import ConfigError, NothingMatchedError
from wsiseg.manifest import find_slides, shard
from wsiseg.urls import url_of

if TYPE_CHECKING:
    from pathlib import Path


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def manifest(folder: Path, text: str) -> Path:
    path = folder / "slides.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_files_folders_and_globs_name_slides_once(tmp_path: Path) -> None:
    touch(
        tmp_path / "b.svs", tmp_path / "in" / "a.tiff", tmp_path / "in" / "deep" / "c.ndpi", tmp_path / "in" / "n.txt"
    )
    touch(tmp_path / "in" / "thumb.png", tmp_path / "in" / ".hidden.svs", tmp_path / "in" / "s.zarr" / "x.tif")

    entries = find_slides([str(tmp_path / "b.svs"), str(tmp_path / "in"), str(tmp_path / "*.svs")])

    assert [entry.slide_id for entry in entries] == ["b", "a", "c"]
    assert entries[0].mpp is None


def test_images_count_where_there_are_no_slides(tmp_path: Path) -> None:
    touch(tmp_path / "b.png", tmp_path / "a.JPG")

    assert [entry.path.name for entry in find_slides([], slide_dir=tmp_path)] == ["a.JPG", "b.png"]


def write_dicom(path: Path, series: bytes, size: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\0" * 128 + b"DICM" + b"\x20\x00\x0e\x00UI" + len(series).to_bytes(2, "little") + series + b"\0" * size
    )


def test_a_folder_of_one_dicom_series_is_one_slide(tmp_path: Path) -> None:
    for index in range(3):
        write_dicom(tmp_path / "case 1" / f"{index}.dcm", b"1.2.3")

    (entry,) = find_slides([str(tmp_path)])

    assert entry.path == tmp_path / "case 1"
    assert entry.slide_id == "case 1"


def test_dicom_series_side_by_side_are_slides_of_their_own(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", b"1.2.3", size=9)
    write_dicom(tmp_path / "b.dcm", b"1.2.3", size=99)
    write_dicom(tmp_path / "c.dcm", b"1.2.4")
    touch(tmp_path / "d.dcm")

    assert [entry.slide_id for entry in find_slides([str(tmp_path)])] == ["b", "c", "d"]


def test_the_slides_of_the_data_folder(data_dir: Path) -> None:
    ids = [entry.slide_id for entry in find_slides([str(data_dir / "slides")])]

    assert ids[:4] == ["CMU-1-Small-Region", "camelyon-jpeg", "cmu1-dicom", "dapi-fluorescence"]


def test_only_colliding_stems_get_a_hash(tmp_path: Path) -> None:
    touch(tmp_path / "x" / "s.svs", tmp_path / "y" / "S.svs", tmp_path / "y" / "t.svs")

    ids = [entry.slide_id for entry in find_slides([str(tmp_path)])]

    assert ids[0].startswith("s-")
    assert ids[1].startswith("S-")
    assert ids[2] == "t"
    assert len(set(ids)) == 3
    assert ids == [entry.slide_id for entry in find_slides([str(tmp_path)])]


def test_odd_names_are_taken_as_they_are(tmp_path: Path) -> None:
    touch(tmp_path / "Größe [1] α.svs", tmp_path / "two words.svs")

    entries = find_slides([str(tmp_path / "Größe [1] α.svs"), str(tmp_path / "two*.svs")])

    assert [entry.slide_id for entry in entries] == ["Größe [1] α", "two words"]


def test_nothing_matched_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    for inputs in ([], [str(tmp_path / "gone.svs")], [str(tmp_path / "empty")], [str(tmp_path / "*.svs")]):
        with pytest.raises(NothingMatchedError):
            find_slides(inputs)


def test_a_missing_file_beside_others_is_kept_to_fail_alone(tmp_path: Path) -> None:
    touch(tmp_path / "a.svs")

    entries = find_slides([str(tmp_path / "gone.svs"), str(tmp_path / "a.svs")])

    assert [entry.slide_id for entry in entries] == ["gone", "a"]


def test_a_full_manifest_is_read(tmp_path: Path) -> None:
    path = manifest(
        tmp_path,
        "path,slide_id,mpp,split,patient_id,mask_path,label_path,image_label,exclude,note\n"
        'a.svs,one,0.25,validation,p1,m.png,l.png,"[1,0,1]",,"x, y"\n'
        "\n"
        "b.svs,,,unlabeled,,,,,no,\n"
        "c.svs,,,,,,,,yes,\n",
    )

    first, second = find_slides([], manifest=path)

    assert first.path == tmp_path / "a.svs"
    assert (first.slide_id, first.mpp, first.split, first.patient_id) == ("one", 0.25, "val", "p1")
    assert (first.mask_path, first.label_path) == (tmp_path / "m.png", tmp_path / "l.png")
    assert first.image_label == (1, 0, 1)
    assert (second.slide_id, second.mpp, second.split, second.image_label) == ("b", None, "unlabelled", None)


@pytest.mark.parametrize(
    "text",
    ["wsi,mpp\nx.svs,0.5\n", "path,slide_mpp,magnification\nx.svs,0.5,20\n", "\ufeffSlide;Spacing\r\nx.svs;0.5\r\n"],
    ids=["TRIDENT", "CellViT++", "spreadsheet"],
)
def test_manifests_of_other_tools_are_read(tmp_path: Path, text: str) -> None:
    (entry,) = find_slides([], manifest=manifest(tmp_path, text), slide_dir=tmp_path / "slides")

    assert entry.path == tmp_path / "slides" / "x.svs"
    assert entry.mpp == 0.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file\nx.svs\n", "no column path"),
        ("", "no column path"),
        ("path,wsi\na,b\n", "several columns mean path"),
        ("path,mpp\na.svs,0.5\nb.svs,fine\n", "row 3, column mpp: 'fine'"),
        ("path,mpp\na.svs,-1\n", "row 2, column mpp"),
        ("path,mpp\na.svs,nan\n", "row 2, column mpp"),
        ("path,split\na.svs,trian\n", "row 2, column split: 'trian'"),
        ("path,exclude\na.svs,maybe\n", "row 2, column exclude"),
        ("path,image_label\na.svs,1 2\n", "row 2, column image_label"),
        ("path,mpp\n,0.5\n", "row 2, column path: is empty"),
        ("path,slide_id\na.svs,../x\n", "row 2, column slide_id"),
        ("path\na.svs\na.svs\n", "row 3, column path: the same slide as in row 2"),
        ("path,slide_id\na.svs,x\nb.svs,x\n", "row 3, column slide_id: the same slide_id as in row 2"),
        ("path\na.svs,0.5\n", "row 2 has 2 cells"),
        ('path\n"a.svs\n', "row 2"),
    ],
)
def test_mistakes_are_told_by_row_and_column(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=r".") as caught:
        find_slides([], manifest=manifest(tmp_path, text))

    assert told in str(caught.value)


def test_manifests_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")

    with pytest.raises(ConfigError, match="no such manifest"):
        find_slides([], manifest=tmp_path / "gone.csv")
    with pytest.raises(ConfigError, match="UTF-8"):
        find_slides([], manifest=tmp_path / "binary.csv")
    with pytest.raises(NothingMatchedError, match="names no slide"):
        find_slides([], manifest=manifest(tmp_path, "path\n"))


@given(st.lists(st.integers(), max_size=50), st.integers(1, 9))
def test_shards_share_everything_out(entries: list[int], num_shards: int) -> None:
    parts = [shard(entries, num_shards, index) for index in range(num_shards)]

    assert sorted(entry for part in parts for entry in part) == sorted(entries)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_slurm_array_gives_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shard([1, 2, 3]) == [1, 2, 3]
    for name, value in (("ID", "5"), ("COUNT", "3"), ("MIN", "3")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)

    assert shard(range(7)) == [2, 5]
    assert shard(range(4), 2, 0) == [0, 2]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")
    with pytest.raises(ConfigError, match="without gaps"):
        shard([1])


def test_wrong_shards_are_refused() -> None:
    with pytest.raises(ConfigError, match="both, or neither"):
        shard([1], 3, None)
    with pytest.raises(ConfigError, match="counted from 0"):
        shard([1], 3, 3)


def test_urls_are_slides_as_they_stand(tmp_path: Path) -> None:
    url = "s3://bucket/a?.svs"

    (named,) = find_slides([url])
    (listed,) = find_slides([], manifest=manifest(tmp_path, f"path\n{url}\n"))

    assert url_of(named.path) == url_of(listed.path) == url
    assert named.slide_id == "a?"
    touch(tmp_path / "b.svs")
    assert find_slides([f"file://{tmp_path}/b.svs"])[0].path == tmp_path / "b.svs"
