from xmask3d.benchmarks.sample import compare, table


def test_the_variants_see_the_same_points():
    """Only that all of it runs and agrees; times are for a quiet machine."""
    results = compare(count=20_000, repeats=2)
    assert [result.variant for result in results] == ["plain", "ours", "kept"]
    assert len({result.points for result in results}) == 1 and results[0].points > 1000
    assert all(result.seconds > 0 and result.voxels > 500 for result in results)
    assert table(results).count("\n") == 4


def test_the_200_classes_too():
    assert len(compare(count=20_000, repeats=1, layout="scannet200")) == 3
