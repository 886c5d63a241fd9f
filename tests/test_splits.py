"""Class lists, splits and lookup tables."""

from pathlib import Path

import numpy as np
import pytest

from xmask3d.errors import UserError
from xmask3d.splits import load_benchmark


def test_scannet20_split_and_tables() -> None:
    benchmark = load_benchmark("scannet20/B15N4")
    assert (benchmark.num_classes, benchmark.num_base) == (19, 15)
    assert benchmark.novel == (5, 9, 12, 16)
    assert [benchmark.class_names[i] for i in benchmark.novel] == ["sofa", "bookshelf", "desk", "toilet"]
    classes = benchmark.classes_of_points(np.array([0.0, 5, 18, 19, 20, 255, -100, 1000]))
    assert classes.tolist() == [0, 5, 18, 19, 19, 19, 19, 19]
    assert benchmark.classes_of_pixels(np.array([1, 6, 36, 0, 39, 13, 40], np.uint8)).tolist() == [
        0,
        5,
        18,
        19,
        19,
        19,
        19,
    ]
    assert benchmark.training_labels(np.array([0, 4, 5, 6, 18, 19])).tolist() == [0, 4, 15, 5, 14, 15]
    assert benchmark.binary_labels(np.array([0, 5, 19])).tolist() == [1, 0, -1]
    assert np.flatnonzero(benchmark.novel_mask).tolist() == [5, 9, 12, 16]


@pytest.mark.parametrize(
    "name, novel",
    [
        ("scannet20/B12N7", (3, 4, 6, 9, 10, 17, 18)),
        ("scannet20/B10N9", (9, 10, 11, 12, 14, 15, 16, 17, 18)),
        ("s3dis/B8N4", (5, 7, 9, 10)),
        ("s3dis/B6N6", (1, 5, 6, 7, 10, 11)),
        (
            "scannet200/B170N30",
            (11, 22, 27, 30, 31, 39, 41, 43, 47, 56, 62, 64, 81, 87, 93, 95, 99, 102, 112, 114, 133, 134, 135, 144, 161,
             170, 176, 179, 192, 199),
        ),
        (
            "scannet200/B150N50",
            (5, 14, 16, 21, 25, 27, 30, 37, 40, 41, 43, 51, 53, 56, 60, 64, 69, 73, 80, 81, 84, 86, 88, 89, 91,
             100, 102, 104, 105, 108, 115, 120, 123, 135, 139, 142, 148, 149, 151, 152, 154, 162, 165, 173,
             177, 178, 180, 190, 195, 196),
        ),
    ],
)  # fmt: skip
def test_published_splits(name: str, novel: tuple[int, ...]) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.novel == novel
    assert sorted((*benchmark.base, *benchmark.novel)) == list(range(benchmark.num_classes))


def test_scannet200_ids() -> None:
    benchmark = load_benchmark("scannet200/B170N30")
    assert benchmark.num_classes == 200
    assert benchmark.classes_of_points(np.array([1, 13, 1191, 12, 0, 5000])).tolist() == [0, 11, 199, 200, 200, 200]
    assert benchmark.class_names[11] == "pillow" and benchmark.class_names[199] == "mattress"


def test_prompts() -> None:
    benchmark = load_benchmark("scannet20/B10N9")
    assert benchmark.test_prompts() == list(benchmark.class_names)
    sentences = benchmark.test_prompts("sentences")
    assert sentences[10] == "a picture on the wall" and sentences[13] == "curtain"
    with pytest.raises(UserError, match=r"no prompt list 'poems'.*sentences"):
        benchmark.test_prompts("poems")


def test_unknown_list_and_split() -> None:
    with pytest.raises(UserError, match=r"no class list.*scannet20, scannet200"):
        load_benchmark("scannet21/B15N4")
    with pytest.raises(UserError, match=r"no such split.*B12N7"):
        load_benchmark("scannet20/B16N3")


def test_a_split_that_does_not_match_its_class_list(tmp_path: Path) -> None:
    text = "classes:\n  - {name: wall, label_3d: 0, label_2d: 1}\n  - {name: sofa, label_3d: 1, label_2d: 2}\n"
    (tmp_path / "mine.yaml").write_text(text + "splits:\n  bad: {novel: [sofas]}\n")
    with pytest.raises(UserError, match=r"mine.yaml: split bad names 'sofas'.*did you mean 'sofa'"):
        load_benchmark("mine/bad", tmp_path)


def test_class_groups() -> None:
    benchmark = load_benchmark("scannet200/B170N30")
    groups = benchmark.groups
    assert {name: len(ids) for name, ids in groups.items()} == {
        "base": 170, "novel": 30, "head": 66, "common": 68, "tail": 66, "instances": 198, "foreground": 197,
        "foreground_regionplc": 186,
    }  # fmt: skip
    assert sorted((*groups["head"], *groups["common"], *groups["tail"])) == list(range(200))
    assert set(range(200)) - set(groups["foreground"]) == {0, 2, 35}
    assert [benchmark.class_names[groups[name][0]] for name in ("head", "common", "tail")] == [
        "wall", "cushion", "paper",
    ]  # fmt: skip
    names = load_benchmark("scannet20/B15N4").class_names
    assert [names[i] for i in load_benchmark("scannet20/B15N4").groups["foreground"]] == list(names[2:])


@pytest.mark.parametrize(
    "group, message",
    [("[wal]", r"group mine names 'wal'.*'wall'"), ("{but: [wall]}", r"group mine: expected a list")],
)
def test_a_class_group_that_cannot_be_read(tmp_path: Path, group: str, message: str) -> None:
    text = "classes:\n  - {name: wall, label_3d: 0, label_2d: 1}\n"
    (tmp_path / "mine.yaml").write_text(f"{text}groups:\n  mine: {group}\nsplits:\n  all: {{novel: []}}\n")
    with pytest.raises(UserError, match=message):
        load_benchmark("mine/all", tmp_path)


def test_a_list_of_ones_own_is_found_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "mine.yaml").write_text(
        "classes: [{name: a, label_3d: 4, label_2d: 4}, {name: b, label_3d: 7, label_2d: 1}]\n"
        "splits: {S: {novel: [b]}}\n"
    )
    for name in (f"{tmp_path}/lists/mine/S", "lists/mine/S"):
        monkeypatch.chdir(tmp_path)
        benchmark = load_benchmark(name)
        assert benchmark.name == "mine/S" and benchmark.base_names == ["a"] and benchmark.file_ids_3d == (4, 7)
    with pytest.raises(UserError, match="no such split"):
        load_benchmark("lists/mine/T")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "splits: {S: {novel: []}}\n",
        "classes: [{name: a, label_3d: 0}]\nsplits: {S: {novel: []}}\n",
        "classes: [{name: a, label_3d: -1, label_2d: 0}]\nsplits: {S: {novel: []}}\n",
        "classes: [{name: a, label_3d: 0, label_2d: 0}, {name: a, label_3d: 1, label_2d: 1}]\nsplits: {S: {}}\n",
        "classes: [{name: a, label_3d: 0, label_2d: 0}]\nsplits: {S: []}\n",
        "classes: []\nsplits: {S: {novel: []}}\n",
        *(
            f"classes: [{one}, {{name: b, label_3d: 1, label_2d: 1}}]\nsplits: {{S: {{novel: []}}}}\n{more}"
            for one, more in [
                ("{name: no, label_3d: 0, label_2d: 0}", ""),  # false
                ("{name: 5, label_3d: 0, label_2d: 0}", ""),
                ("{name: ' ', label_3d: 0, label_2d: 0}", ""),
                ('{name: "a\\e[2J", label_3d: 0, label_2d: 0}', ""),
                ("{name: a, label_3d: 1, label_2d: 0}", ""),  # the id of b
                ("{name: a, label_3d: 0, label_2d: 1}", ""),
                ("{name: a, label_3d: 1000000000000, label_2d: 0}", ""),
                ("{name: a, label_3d: 0, label_2d: 0}", "prompts: {sentences: {a: 5}}\n"),
                ("{name: a, label_3d: 0, label_2d: 0}", "groups: {base: [a]}\n"),
            ]
        ),
    ],
)
def test_a_file_that_is_no_class_list_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=r"mine\.yaml: not a class list"):
        load_benchmark("mine/S", tmp_path)


def test_a_name_in_place_of_a_list_of_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("classes: [{name: a, label_3d: 0, label_2d: 0}]\nsplits: {S: {novel: a}}\n")
    with pytest.raises(UserError, match=r"mine\.yaml: split S: expected a list of class names"):
        load_benchmark("mine/S", tmp_path)
