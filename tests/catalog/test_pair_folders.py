"""Which files of other people's folders belong together."""

from __future__ import annotations

import pytest

from catalog.pair_folders import PairFolderError, find_pairs, list_pairs, match_globs, read_list


def touched(root, *names):
    """Empty files: recognising pairs looks at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(listing):
    return [
        (p.pair, p.gt.relative_to(listing.root).as_posix(), p.lq.relative_to(listing.root).as_posix())
        for p in listing.pairs
    ]


def test_foundirs_layout_is_recognised_whatever_the_suffix(tmp_path):
    """Numbers run over all classes and suffixes differ in case and between the sides."""
    root = touched(
        tmp_path,
        "01Blur/GT/0001.png",
        "01Blur/LQ/0001.png",
        "14Lowlight/GT/1101.JPG",
        "14Lowlight/LQ/1101.jpg",
        "readme.txt",
    )

    assert names(find_pairs(root)) == [
        ("01Blur/0001", "01Blur/GT/0001.png", "01Blur/LQ/0001.png"),
        ("14Lowlight/1101", "14Lowlight/GT/1101.JPG", "14Lowlight/LQ/1101.jpg"),
    ]


@pytest.mark.parametrize(
    ("gt", "lq"),
    [
        ("gt", "lq"),
        ("HQ", "LQ"),
        ("target", "input"),
        ("HR_sub", "LR_x4"),
        ("high", "low"),
        ("sharp", "blur"),
        ("groundtruth", "rain"),
        ("clean_crops", "noisy_crops"),
    ],
)
def test_folders_that_others_use_are_recognised(tmp_path, gt, lq):
    root = touched(tmp_path, f"train/{gt}/a.png", f"train/{lq}/a.png")

    assert names(find_pairs(root)) == [("train/a", f"train/{gt}/a.png", f"train/{lq}/a.png")]


def test_sides_may_hold_the_classes(tmp_path):
    root = touched(tmp_path, "gt/rain/1.png", "lq/rain/1.png", "gt/haze/1.png", "lq/haze/1.png")

    assert [p for p, _, _ in names(find_pairs(root))] == ["haze/1", "rain/1"]


def test_names_may_carry_the_side_or_the_scale(tmp_path):
    root = touched(tmp_path, "gt/bird_clean.png", "lq/bird_noisy.png", "gt/cat.png", "lq/catx4.png")

    assert [p for p, _, _ in names(find_pairs(root))] == ["bird", "cat"]


def test_one_folder_with_endings_is_recognised(tmp_path):
    root = touched(tmp_path, "1006_GT.png", "1006_LQ.png", "1118-gt.png", "1118-lq.jpg", "notes.png")

    assert names(find_pairs(root)) == [
        ("1006", "1006_GT.png", "1006_LQ.png"),
        ("1118", "1118-gt.png", "1118-lq.jpg"),
    ]


def test_files_without_a_partner_and_doubles_are_listed(tmp_path):
    root = touched(
        tmp_path, "gt/a.png", "lq/a.png", "gt/b.png", "gt/c.png", "lq/c.png", "lq/c.jpg", "lq/d.png"
    )

    listing = find_pairs(root)

    assert [p.pair for p in listing.pairs] == ["a"]
    assert [(o.name, o.problem) for o in listing.odd] == [
        ("b", "no_partner"),
        ("c", "ambiguous"),
        ("d", "no_partner"),
    ]


def test_two_folders_that_may_be_one_side_are_refused(tmp_path):
    root = touched(tmp_path, "gt/a.png", "lq/a.png", "input/a.png")

    with pytest.raises(PairFolderError, match=r"may be the degraded side: input, lq.*--gt GLOB --lq GLOB"):
        find_pairs(root)


def test_a_folder_without_pairs_is_refused_with_what_was_looked_for(tmp_path):
    with pytest.raises(PairFolderError, match="GT and LQ beside each other"):
        find_pairs(touched(tmp_path, "holiday/beach.png"))


def test_a_list_of_foundirs_form_names_pairs_and_classes(tmp_path):
    root = touched(tmp_path, "Test/01Blur/GT/0001.png", "Test/01Blur/LQ/0001.png")
    (root / "meta.txt").write_text(
        "Test/01Blur/GT/0001.png, Test/01Blur/LQ/0001.png\nTest/x/GT/2.png,Test/x/LQ/2.png\n"
    )

    listing = read_list(root, root / "meta.txt")

    assert [p.pair for p in listing.pairs] == ["Test/01Blur/0001", "Test/x/2"]


@pytest.mark.parametrize("line", ["/etc/a.png, lq/a.png", "../a.png, lq/a.png", "gt/a.png", "a, b, c"])
def test_lines_that_lead_out_of_the_folder_are_not_followed(tmp_path, line):
    (tmp_path / "meta.txt").write_text(f"gt/b.png, lq/b.png\n{line}\n")

    listing = read_list(tmp_path, tmp_path / "meta.txt")

    assert [p.name for p in listing.pairs] == ["b"]
    assert [o.name for o in listing.odd] == ["line-2"]


def test_globs_pair_by_what_the_wildcards_stand_for(tmp_path):
    touched(tmp_path, "mean/bag_mean.jpg", "mean/toy_mean.jpg", "shot/bag_noisy.png", "shot/desk_noisy.png")

    listing = match_globs(f"{tmp_path}/mean/*_mean.*", f"{tmp_path}/shot/*_noisy.*")

    assert [p.pair for p in listing.pairs] == ["bag"]
    assert [o.name for o in listing.odd] == ["desk", "toy"]


def test_one_ground_truth_may_serve_many(tmp_path):
    touched(tmp_path, *(f"img{k}.png" for k in range(1, 5)))

    listing = match_globs(f"{tmp_path}/img1.png", f"{tmp_path}/img[2-4].png")

    assert [(p.gt.name, p.lq.name) for p in listing.pairs] == [("img1.png", f"img{k}.png") for k in (2, 3, 4)]


def test_patterns_that_match_nothing_are_refused(tmp_path):
    touched(tmp_path, "a/1.png", "b/2.png")

    with pytest.raises(PairFolderError, match="no picture matches"):
        match_globs(f"{tmp_path}/none/*.png", f"{tmp_path}/b/*.png")
    with pytest.raises(PairFolderError, match="same part for the wildcards"):
        match_globs(f"{tmp_path}/a/*.png", f"{tmp_path}/b/*.png")
    with pytest.raises(PairFolderError, match="no picture matches"):
        match_globs(f"{tmp_path}/a/[", f"{tmp_path}/b/*.png")
    with pytest.raises(PairFolderError, match="not a pattern"):
        match_globs(f"{tmp_path}/a/[z-a].png", f"{tmp_path}/b/*.png")


@pytest.mark.parametrize("given", [{}, {"gt": "*.png"}, {"folder": True, "gt": "*", "lq": "*"}])
def test_exactly_one_way_to_name_pairs_must_be_given(tmp_path, given):
    folder = tmp_path if given.pop("folder", False) else None

    with pytest.raises(PairFolderError, match="which pairs is not clear"):
        list_pairs(folder, **given)
