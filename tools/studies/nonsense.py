"""Study of places: phrases without sense should find none, and words of what is in a room should lose none."""

import argparse
from pathlib import Path

import numpy as np

from xmask3d.data.files import read_points
from xmask3d.errors import UserError, run_tool
from xmask3d.segment.query import Encoder, query_features, regions_of_places, text_encoder
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.splits import load_benchmark

NONSENSE = ("qwertz", "colorless green idea", "asdf", "submarine", "volcano", "sit", "something",
            "\N{COUCH AND LAMP}", "sofá", "Stuhl", "Tisch", "\u684c\u5b50", "algebra", "elephant",
            "red elephant", "thing", "some", "several", "near the", "small thing on", "helicopter in the room",
            "purple monkey dishwasher", "view", "123", "???")  # fmt: skip
LEAST = 150  # points of a class that is in a room


def places(features: PointFeatures, phrase: str, encode: Encoder) -> tuple[int, int]:
    """Return how many places a phrase finds, and how many it would find if every fit were good enough."""
    result = query_features(features, phrase, encode)
    return len(result.regions[0]), len(regions_of_places(features, result.similarity[:, 0]))


def main() -> None:
    """Parse arguments, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="processed data set, such as data/rooms")
    parser.add_argument("features", type=Path, nargs="+", help="SCENE.safetensors of --save-features")
    options = parser.parse_args()
    benchmark = load_benchmark("scannet20full/all")
    found = dict.fromkeys(NONSENSE, 0)
    asked, lost = 0, []
    for path in options.features:
        features = PointFeatures.load(path)
        _, _, ids = read_points(options.root / "scannet_3d" / "val" / f"{path.stem}_vh_clean_2.pth")
        if ids is None:
            raise UserError(f"{path.stem}: has no labels in {options.root}")
        encode = text_encoder(features)
        for phrase in NONSENSE:
            found[phrase] += places(features, phrase, encode)[0] > 0
        truth = benchmark.classes_of_points(ids)
        counts = np.bincount(truth[truth < benchmark.num_classes], minlength=benchmark.num_classes)
        for name in np.array(benchmark.class_names)[counts >= LEAST]:
            kept, all_places = places(features, str(name), encode)
            asked += all_places > 0
            lost += [f"{path.stem} {name}"] if all_places and not kept else []
    rooms = len(options.features)
    print(f"{rooms} rooms; {sum(found.values())} of {rooms * len(NONSENSE)} questions without sense find places")
    print("\n".join(f"  {phrase}: {count} rooms" for phrase, count in found.items() if count))
    print(f"{len(lost)} of {asked} classes that are in a room lose all their places: {', '.join(lost) or 'none'}")


if __name__ == "__main__":
    run_tool(main)
