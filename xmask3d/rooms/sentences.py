"""Sentences about pictures, with the various words that people use for the same objects."""

from collections.abc import Sequence

import numpy as np

from xmask3d.rooms.catalogue import CLASS_OF_KIND

WORDS: dict[str, tuple[str, ...]] = {
    "wardrobe": ("wardrobe", "closet", "cabinet", "tall cabinet"),
    "cupboard": ("cupboard", "cabinet"),
    "dresser": ("dresser", "chest of drawers", "cabinet", "sideboard"),
    "filing cabinet": ("filing cabinet", "file cabinet", "cabinet"),
    "kitchen cabinet": ("kitchen cabinet", "cabinet", "base cabinet"),
    "wall cabinet": ("wall cabinet", "cabinet", "kitchen cabinet"),
    "tall cabinet": ("tall cabinet", "cabinet", "pantry cabinet"),
    "bed": ("bed", "bed with pillows", "made bed"),
    "bunk bed": ("bunk bed", "bed"),
    "chair": ("chair", "wooden chair", "seat"),
    "armchair": ("armchair", "chair", "easy chair"),
    "office chair": ("office chair", "desk chair", "swivel chair", "chair"),
    "bar chair": ("bar chair", "bar stool", "chair"),
    "sofa": ("sofa", "couch", "settee"),
    "corner sofa": ("corner sofa", "sofa", "sectional couch", "couch"),
    "dining table": ("table", "dining table"),
    "coffee table": ("coffee table", "table", "low table"),
    "side table": ("side table", "table", "small table"),
    "door": ("door", "closed door"),
    "window": ("window", "window with a view"),
    "bookshelf": ("bookshelf", "bookcase", "shelf full of books", "book shelf"),
    "picture": ("picture", "painting", "framed picture", "picture on the wall"),
    "counter": ("counter", "kitchen counter", "countertop", "worktop"),
    "kitchen island": ("counter", "kitchen island", "kitchen counter", "bar counter"),
    "desk": ("desk", "office desk", "writing desk"),
    "curtain": ("curtain", "window curtain", "drape"),
    "refrigerator": ("refrigerator", "fridge"),
    "shower curtain": ("shower curtain",),
    "toilet": ("toilet", "white toilet"),
    "sink": ("sink", "wash basin", "bathroom sink"),
    "wall sink": ("sink", "wash basin", "bathroom sink"),
    "counter sink": ("sink", "kitchen sink"),
    "bathtub": ("bathtub", "bath tub", "bath"),
    "nightstand": ("nightstand", "bedside table"),
    "plant": ("plant", "potted plant", "house plant"),
    "lamp": ("lamp", "floor lamp"),
    "stove": ("stove", "oven", "cooker"),
    "washing machine": ("washing machine", "washer"),
    "tv stand": ("tv stand",),
    "low tv stand": ("tv stand", "low tv stand", "media console"),
    "trash can": ("trash can", "bin"),
    "bench": ("bench",),
    "stool": ("stool",),
    "piano": ("piano",),
    "mirror": ("mirror",),
    "rug": ("rug",),
    "wall": ("wall",),
    "floor": ("floor",),
}
"""Kind -> words; the class's own name or the most common word is among the first."""

_WITH_ROOM = (
    "a {room} with {things}",
    "a photo of a {room} with {things}",
    "{things} in a {room}",
    "a {room} that has {things}",
    "a view of a {room} with {things}",
    "there {are} {things} in the {room}",
    "the {room} is furnished with {things}",
)
_WITHOUT_ROOM = (
    "a photo of {things}",
    "{things}",
    "there {are} {things} in the room",
    "a room with {things}",
    "an indoor scene with {things}",
    "a picture of a room with {things}",
)
_FLOORS = (" on the floor", " on a floor", " next to a wall", " against the wall")
_ROOM_WORDS = {
    "office": ("office", "study", "home office"),
    "living room": ("living room", "lounge"),
    "dining room": ("dining room",),
    "bedroom": ("bedroom",),
    "kitchen": ("kitchen",),
    "bathroom": ("bathroom",),
}


def word_for(kind: str, rng: np.random.Generator) -> str:
    """Choose one of the words for a kind; the class's own name in almost half of the cases."""
    if kind in CLASS_OF_KIND and CLASS_OF_KIND[kind] != "otherfurniture" and rng.random() < 0.45:
        return CLASS_OF_KIND[kind]
    return str(rng.choice(WORDS[kind]))


def describe(
    kinds: Sequence[str], shares: Sequence[float], room: str, rng: np.random.Generator, at_most: int = 5
) -> str:
    """Compose a sentence about a picture.

    Args:
        kinds: kind of every instance in the picture.
        shares: share of the picture that each fills, in [0, 1].
        room: kind of room.
        at_most: largest number of different objects to name.
    """
    total: dict[str, float] = {}
    number: dict[str, int] = {}
    for kind, share in zip(kinds, shares, strict=True):
        if share >= 0.008 and kind in WORDS and kind not in ("wall", "floor"):
            total[kind] = total.get(kind, 0) + share
            number[kind] = number.get(kind, 0) + 1
    biggest = sorted(total, key=lambda kind: -total[kind])[:at_most]
    words: dict[str, int] = {}
    for kind in biggest:
        word = word_for(kind, rng)
        words[word] = words.get(word, 0) + number[kind]
    if not words:
        return str(
            rng.choice(
                ["an empty room with a wall and a floor", "a wall and a floor", "the wall and the floor of a room"]
            )
        )
    phrases = [_phrase(word, count, rng) for word, count in words.items()]
    parts = {"things": _join(phrases), "are": "is" if phrases[0].startswith(("a ", "an ")) else "are"}
    if rng.random() < 0.5:
        sentence = str(rng.choice(_WITH_ROOM)).format(room=rng.choice(_ROOM_WORDS[room]), **parts)
        return sentence.replace("a office", "an office")
    sentence = str(rng.choice(_WITHOUT_ROOM)).format(**parts)
    return sentence + (str(rng.choice(_FLOORS)) if rng.random() < 0.2 else "")


def _phrase(word: str, number: int, rng: np.random.Generator) -> str:
    if number == 1 or " with " in word or " on " in word or "full of" in word:
        return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
    many = {2: "two", 3: "three", 4: "four"}.get(number, "several") if rng.random() < 0.6 else "some"
    plural = word[:-1] + "ves" if word.endswith("shelf") else word + ("es" if word.endswith(("ch", "sh")) else "s")
    return f"{many} {plural}"


def _join(phrases: Sequence[str]) -> str:
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
