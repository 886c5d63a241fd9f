"""Hand-written catalogue: the class of each model of the furniture library.

It is written by hand, model by model, because names alone mislead ("Desk lamp" is no desk, "Table tennis" no table,
"Toilet brush" no toilet). Models that are not listed are not used.
"""

CLASS_NAMES = ("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture",
               "counter", "desk", "curtain", "refrigerator", "shower curtain", "toilet", "sink", "bathtub",
               "otherfurniture")  # fmt: skip
"""The 20 class names of the ScanNet benchmark; a class id is an index into this list."""

CLASS_IDS = {name: index for index, name in enumerate(CLASS_NAMES)}

_KINDS_OF_CLASS = {
    "cabinet": "wardrobe, cupboard, dresser, filing cabinet, kitchen cabinet, wall cabinet, tall cabinet",
    "bed": "bed, bunk bed",
    "chair": "chair, armchair, office chair, bar chair",
    "sofa": "sofa, corner sofa",
    "table": "dining table, coffee table, side table",
    "door": "door",
    "window": "window",
    "bookshelf": "bookshelf",
    "picture": "picture",
    "counter": "counter, kitchen island",
    "desk": "desk",
    "curtain": "curtain",
    "refrigerator": "refrigerator",
    "shower curtain": "shower curtain",
    "toilet": "toilet",
    "sink": "sink, wall sink, counter sink",
    "bathtub": "bathtub",
    "otherfurniture": "nightstand, plant, lamp, stove, washing machine, tv stand, low tv stand, trash can, bench, "
    "stool, piano, mirror",
}

CLASS_OF_KIND = {kind: name for name, kinds in _KINDS_OF_CLASS.items() for kind in kinds.split(", ")}
"""Class of each kind of furniture; the kind determines its place in a room and the words that describe it."""

_KINDS = {
    "wardrobe": "wardrobe wardrobe1 wardrobe2 wardrobeWithSlidingDoors",
    "cupboard": "cupboard",
    "dresser": "chest dresserWithDrawers",
    "filing cabinet": "filing-cabinet",
    "kitchen cabinet": "lowerCabinet kitchenLowerCabinet kitchenSmallLowerCabinet drawersCabinet kitchenDrawersCabinet",
    "wall cabinet": "kitchenUpperCabinet upperCabinet smallUpperCabinet kitchenSmallUpperCabinet glassDoorCabinet "
    "kitchenGlassDoorCabinet",
    "tall cabinet": "highCabinet",
    "bed": "bed1 bed2 bed3 bedWithTexture lettoCloud captains-bed juniorBed children_bed iron_bed hospital-bed "
    "day_bed_frame",
    "bunk bed": "bunkBed",
    "chair": "cc0/chair ccby/chair scopia/chair chair2 chair3 chair4 plaidChair dining-chair white_kitchen_chair "
    "kitchenChair plasticChair plastic_chair ella_chair_f cafe_set_tonon_chair antiqueChair sillaBlanca "
    "tubular_chair thonet cafe_set_mota_chair chairWithCushion oakChair osakaChair cafe-chair silla_teca "
    "ccby/foldingChair classSeat",
    "armchair": "ccby/armchair1 scopia/armchair1 armchair2 armchair3 fotel mid-century-chair modernArmchair "
    "scopia/armchair modern_armchair armChair2 winchesterArmchair rattanArmchair designChair leaf_chair",
    "office chair": "cc0/armchair office_chair office-chair kids_desk_chair",
    "bar chair": "bar_chair bar-stool",
    "sofa": "burlap_sofa clear_sofa couch couch3 convertible-sofa-BZ-closed futon-couch rattanSofa beige_sofa_2seats "
    "beige_sofa sofa2 sofa_white_beige simple_sofa leather_sofa mid-century-sofa mid-century-bench-sofa sofa3 "
    "winchesterSofa",
    "corner sofa": "L_shaped_sofa cc0/sofa cornerSofa couch2",
    "dining table": "black_table folding-table metal_glass_table glass-dining-table oakTable round-table table4 "
    "cc0/table ccby/table white_kitchen_table table-with-leaning-feet tableWithTablecloth "
    "table-on-trestles wooden_office_pear_table wooden_office_teak_table cafe-table",
    "coffee table": "coffeeTable table_wood_and_iron coffee-table2 saloon_table coffee_table rattanTable "
    "living_room_table",
    "side table": "cafe_set_mota_table cafe_set_tonon_table",
    "desk": "biurko3 cc0/desk simpleDesk lbDesk officeTable kids_desk_table kids_wooden_desk desk_table "
    "glass_table_office wooden_office_alder_table wooden_table_office wooden_office_pear_table_rect",
    "door": "puerta door exterior-door-01 exterior-door-02 exterior-door-03 exterior-door-05 exterior-door-07 "
    "screen-door",
    "window": "window-01 window-08 window-08-02",
    "bookshelf": "ccby/bookcase dining_room full-bookcase utility-shelving shelves verticalShelves kids_shelves",
    "kitchen island": "kitchenIsland",
    "curtain": "curtain",
    "refrigerator": "fridge largeFridge refrigerator",
    "shower curtain": "showerCurtain",
    "toilet": "toiletsUnit toilets_unit_jay_hardy modernToilet",
    "sink": "washbasin washbasin_jay_hardy modernVanity",
    "wall sink": "bathroom3 bathroom4 small_lavatory",
    "bathtub": "bath_jay_hardy islandBath corner_bathtub",
    "nightstand": "bedsideTable bedsideTable2",
    "plant": "decorativePlant cc0/plant mediumIndoorPlant yuccaPlant ficus maceta",
    "lamp": "living_lamp living_room_lamp1 little_lamp3 pedestal-vase-lamp",
    "stove": "largeStove propane-stove",
    "washing machine": "washing_machine clothes_washing_machine dryer_machine",
    "tv stand": "tvStand",
    "trash can": "bullet-trash-can dustbin",
    "bench": "kator/bench pianoBench",
    "stool": "green_stool silla2 stool2",
    "piano": "ccby/piano",
}

KIND_OF_MODEL = {name: kind for kind, names in _KINDS.items() for name in names.split()}
"""Library id, with "library/" before it where two libraries use the same id for different things -> kind."""

LIBRARIES = {"Blend Swap CC-0": "cc0", "Blend Swap CC-BY": "ccby", "Kator Legaz": "kator", "Scopia": "scopia"}
"""Prefix of the catalogues' ids -> short name used in keys. Reallusion has people only."""

LICENCES = {"cc0": "CC0 1.0", "ccby": "CC BY 3.0", "kator": "CC BY 3.0 US", "scopia": "CC BY 3.0"}
