"""Table of a segmentation result on the console."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xmask3d.segment.result import SegmentationResult


def print_result(result: "SegmentationResult") -> None:
    """Print the table of classes or the best places of a phrase, after notes about words and written files."""
    for note in (*result.about.get("wording", ()), *result.about.get("notes", ())):
        print(note)
    if "corrected" in result.about:
        print(f"{result.about['corrected']:,} points are labelled by clicks (--corrections)")
    if result.about.get("mode") == "phrase":
        regions = result.regions[0]
        print(
            f"\n{result.phrases[0]}: {len(regions)} places fit best"
            if regions
            else f"\n{result.phrases[0]}: no place stands out"
        )
        for number, region in enumerate(regions, 1):
            center, size = region.center + result.origin, region.high - region.low
            print(
                f"  {number}. similarity {region.score:.3f}, {len(region.index):,} points at "
                f"({center[0]:.2f}, {center[1]:.2f}, {center[2]:.2f}), {size[0]:.2f} x {size[1]:.2f} x {size[2]:.2f} m"
            )
        return
    print(f"\n{'class':24} {'points':>10} {'share':>7} {'about m2':>9} {'confidence':>11}")
    for row in result.classes():
        print(f"{row.name[:24]:24} {row.points:>10,} {row.share:>7.1%} {row.area:>9.1f} {row.confidence:>11.2f}")
    left = int((result.labels < 0).sum())
    if left:
        print(f"{'unlabelled':24} {left:>10,} {left / len(result.labels):>7.1%}")
    if result.objects is not None:
        print(f"{len(result.object_names)} objects")
