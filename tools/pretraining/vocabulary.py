"""Vocabulary of the small foundation models: concepts, their names, and sentences about regions and views."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

CONCEPTS: dict[str, tuple[str, ...]] = {
    "wall": ("painted wall", "white wall", "room wall", "plaster wall", "wallpaper"),
    "floor": ("wooden floor", "tiled floor", "carpet", "floor boards", "parquet floor"),
    "cabinet": ("cupboard", "wooden cabinet", "storage cabinet", "cabinet with doors", "closed cabinet"),
    "bed": ("double bed", "single bed", "mattress", "bed with pillows", "bedstead"),
    "chair": ("seat", "wooden chair", "dining chair", "chair with a back", "single chair"),
    "sofa": ("couch", "settee", "upholstered sofa", "long sofa", "studio couch"),
    "table": ("wooden table", "small table", "tabletop on legs", "table with four legs", "low table"),
    "door": ("doorway", "wooden door", "interior door", "closed door", "room door"),
    "window": ("window pane", "glass window", "window frame", "window with a view", "bright window"),
    "bookshelf": ("bookcase", "shelf with books", "book shelf", "shelves", "open shelf"),
    "picture": ("painting", "framed picture", "picture on the wall", "poster", "picture frame"),
    "counter": ("countertop", "kitchen counter", "worktop", "counter top", "kitchen worktop"),
    "desk": ("writing desk", "office desk", "computer desk", "work desk", "desk with drawers"),
    "curtain": ("window curtain", "drapes", "curtains", "drapery", "long curtain"),
    "refrigerator": ("fridge", "freezer", "kitchen refrigerator", "fridge freezer", "tall refrigerator"),
    "shower curtain": (
        "bath curtain",
        "shower drape",
        "bathroom shower curtain",
        "curtain of a shower",
        "thin shower curtain",
    ),
    "toilet": ("toilet bowl", "toilet seat", "lavatory", "water closet", "flush toilet"),
    "sink": ("washbasin", "wash basin", "basin", "sink with a tap", "bathroom sink"),
    "bathtub": ("bath", "tub", "bath tub", "white bathtub", "bathing tub"),
    "ceiling": ("white ceiling", "room ceiling"),
    "nightstand": ("bedside table", "night table"),
    "plant": ("potted plant", "house plant"),
    "lamp": ("floor lamp", "standing lamp"),
    "stove": ("cooker", "oven", "kitchen stove"),
    "washing machine": ("dryer", "washer"),
    "tv stand": ("television stand", "media unit"),
    "trash can": ("bin", "dustbin"),
    "bench": ("wooden bench",),
    "stool": ("small stool",),
    "piano": ("upright piano",),
    "radiator": ("heater",),
    "mirror": ("wall mirror", "looking glass"),
    "television": ("tv", "flat screen"),
    "range hood": ("extractor hood",),
}
"""Concept -> further names; each concept is its own first name. The first 19 are the benchmark's classes in order."""

BENCHMARK_CLASSES = tuple(CONCEPTS)[:19]

KIND_NAMES: dict[str, tuple[str, ...]] = {
    "wardrobe": ("wardrobe", "closet"),
    "dresser": ("dresser", "chest of drawers"),
    "filing cabinet": ("filing cabinet", "file cabinet"),
    "kitchen cabinet": ("kitchen cabinet", "base cabinet"),
    "wall cabinet": ("wall cabinet", "kitchen cabinet", "upper cabinet"),
    "tall cabinet": ("tall cabinet",),
    "cupboard": ("cupboard",),
    "sideboard": ("sideboard",),
    "bunk bed": ("bunk bed",),
    "armchair": ("armchair", "easy chair"),
    "office chair": ("office chair", "swivel chair"),
    "bar chair": ("bar chair", "bar stool"),
    "corner sofa": ("corner sofa", "sectional couch"),
    "dining table": ("dining table", "kitchen table"),
    "coffee table": ("coffee table", "low table"),
    "side table": ("side table", "end table"),
    "kitchen island": ("kitchen island",),
    "wall sink": ("wall sink", "washbasin"),
    "counter sink": ("counter sink", "kitchen sink"),
}
"""Kind of furniture -> words that fit that kind only."""

ROOMS = (
    "room",
    "living room",
    "bedroom",
    "kitchen",
    "bathroom",
    "office",
    "dining room",
    "study",
    "hotel room",
    "apartment",
)
COLORS = ("white", "black", "grey", "brown", "red", "blue", "green", "yellow", "beige", "dark", "light", "wooden")
FURTHER_WORDS = (
    "pillow cushion ottoman dresser box book keyboard bag backpack shoe towel clothes monitor computer laptop "
    "printer whiteboard blackboard blanket microwave dishwasher oven toaster kettle bottle cup bowl plate basket "
    "ladder stairs rug mat column pillar rail light clock vase candle fan blinds rack stand suitcase guitar "
    "bicycle speaker telephone bucket cart crate container bulletin board ironing fireplace soap dispenser paper "
    "scale sign projector vacuum cleaner broom toy doll flower tree person man woman cat dog car truck shower "
    "door curtain rod closet vanity faucet tap shelf drawer handle furniture object thing metal wood glass stone "
    "fabric leather plastic round square rectangular small large tall low old modern bright empty cozy next to "
    "near behind in front of on under beside left right above corner middle with and the a an of there is are two "
    "three four some several many photo picture view image scene rendering seen from through window frame board "
    "machine seat dust bin tissue toilet bathroom kitchen living dining bed bath room office mini fridge coffee "
    "maker trash recycling storage organizer coat hat purse switch outlet power strip alarm fire extinguisher "
    "radiator pipe structure ledge divider stall laundry hamper detergent stuffed animal bar tube hood dryer hair "
    "mailbox calendar poster luggage copier water cooler pitcher music piano bench folded chair decoration "
    "display case rope ball cd player headphones mouse tray cutter wardrobe armchair recliner stool loveseat cot "
    "crib cradle hammock swing carpet tile plank brick concrete marble wallpaper paint roof beam arch gate fence"
)
"""More words that the tokenizer keeps and whose place in the text space the text teacher fixes."""

REGION_TEMPLATES = (
    "{}",
    "{}",
    "{}",
    "a {}",
    "a photo of a {}",
    "the {}",
    "a {} in a room",
    "a picture of a {}",
    "there is a {}",
    "a view of a {}",
)
VIEW_TEMPLATES = (
    "a {room} with {things}",
    "a view of a {room} with {things}",
    "{things}",
    "a photo of a {room} with {things}",
    "there is {things} in a {room}",
    "a {room} that has {things}",
)


def concept_of(class_name: str, kind: str) -> str:
    """Return the concept of a piece of furniture: its class, or its kind where the class is only "otherfurniture"."""
    return kind.removeprefix("low ") if class_name == "otherfurniture" else class_name


def names_of(concept: str, kind: str) -> list[str]:
    """Return all names of a thing, the concept first; kind-specific words replace names that might not fit the kind."""
    return [concept, *KIND_NAMES.get(kind, CONCEPTS[concept])]


def sample_concept_texts(rng: np.random.Generator, bare: float = 0.6) -> list[str]:
    """Draw one text for every concept, in order: its own or another name, with probability `bare` without template."""
    texts = []
    for concept, others in CONCEPTS.items():
        name = concept if rng.random() < 0.6 else others[rng.integers(len(others))]
        template = "{}" if rng.random() < bare else REGION_TEMPLATES[rng.integers(len(REGION_TEMPLATES))]
        texts.append(_article(template.format(name)))
    return texts


def sample_region_caption(rng: np.random.Generator, concept: str, kind: str) -> str:
    """Draw a short text about one thing."""
    names = names_of(concept, kind)
    name = names[0] if rng.random() < 0.35 else names[rng.integers(len(names))]
    return _article(REGION_TEMPLATES[rng.integers(len(REGION_TEMPLATES))].format(name))


def sample_view_caption(rng: np.random.Generator, things: Sequence[tuple[str, str]], most: int = 4) -> str:
    """Draw a sentence that names up to `most` of the (concept, kind) pairs in a view, the largest first."""
    counts = Counter(thing for thing in things if thing[0] not in ("wall", "floor", "ceiling"))
    named = []
    for (concept, kind), count in list(counts.items())[:most]:
        names = names_of(concept, kind)
        name = names[0] if rng.random() < 0.6 else names[rng.integers(len(names))]
        named.append(f"{('two', 'three', 'four')[min(count, 4) - 2]} {name}s" if count > 1 else _article(f"a {name}"))
    if not named:
        named = [_article(f"a {concept}") for concept, _ in things[:2]] or ["a wall"]
    listed = named[0] if len(named) == 1 else ", ".join(named[:-1]) + " and " + named[-1]
    room = ROOMS[rng.integers(len(ROOMS))] if rng.random() < 0.5 else "room"
    return (
        VIEW_TEMPLATES[rng.integers(len(VIEW_TEMPLATES))]
        .format(room=room, things=listed)
        .replace("a office", "an office")
    )


def all_texts() -> list[str]:
    """Return every short text that the models may have to place: for the tokenizer and for the text teacher."""
    names = {name for concept, others in CONCEPTS.items() for name in (concept, *others)}
    names |= {name for group in KIND_NAMES.values() for name in group}
    names |= set(ROOMS) | set(COLORS) | set(FURTHER_WORDS.split()) | {f"{name}s" for name in names}
    framed = {_article(template.format(name)) for template in REGION_TEMPLATES for name in names}
    colored = {f"{color} {concept}" for color in COLORS for concept in CONCEPTS}
    placed = {_article(f"a {concept} in a {room}") for concept in CONCEPTS for room in ROOMS}
    return sorted(names | framed | colored | placed | {"", "."})


def _article(text: str) -> str:
    """Insert "an" before a vowel."""
    words = text.split(" ")
    return " ".join(
        "an" if word == "a" and after[:1] in "aeio" else word
        for word, after in zip(words, [*words[1:], "x"], strict=True)
    )
