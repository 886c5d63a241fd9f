import numpy as np

from tools.pretraining.vocabulary import (
    BENCHMARK_CLASSES,
    CONCEPTS,
    all_texts,
    concept_of,
    names_of,
    sample_concept_texts,
    sample_region_caption,
    sample_view_caption,
)
from xmask3d.rooms.catalogue import CLASS_OF_KIND
from xmask3d.splits import load_benchmark


def test_the_first_concepts_are_the_benchmarks_classes() -> None:
    benchmark = load_benchmark("scannet20/B15N4")
    assert tuple(benchmark.class_names) == BENCHMARK_CLASSES


def test_every_kind_of_furniture_has_names() -> None:
    for kind, class_name in CLASS_OF_KIND.items():
        concept = concept_of(class_name, kind)
        assert concept in CONCEPTS
        assert names_of(concept, kind)[0] == concept


def test_no_name_stands_for_two_concepts() -> None:
    owner: dict[str, str] = {}
    for concept, others in CONCEPTS.items():
        for name in (concept, *others):
            assert owner.setdefault(name, concept) == concept, name


def test_captions_name_the_things_and_are_repeatable() -> None:
    things = [("sofa", "sofa"), ("chair", "office chair"), ("chair", "office chair"), ("wall", "wall")]
    captions = [sample_view_caption(np.random.default_rng(seed), things) for seed in range(30)]
    assert captions == [sample_view_caption(np.random.default_rng(seed), things) for seed in range(30)]
    assert all("two " in caption for caption in captions)
    assert all(any(name in caption for name in names_of("sofa", "sofa")) for caption in captions)
    assert not any("wall" in caption for caption in captions)


def test_articles_fit() -> None:
    captions = {sample_region_caption(np.random.default_rng(seed), "chair", "office chair") for seed in range(60)}
    assert "an office chair" in captions and not any("a office" in caption for caption in captions)


def test_every_concept_has_one_text() -> None:
    texts = sample_concept_texts(np.random.default_rng(0), bare=1.0)
    assert len(texts) == len(CONCEPTS)
    assert sum(text == concept for text, concept in zip(texts, CONCEPTS, strict=True)) > len(CONCEPTS) / 3
    assert set(CONCEPTS) <= set(all_texts()) and "" in all_texts()
