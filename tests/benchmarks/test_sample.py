from xmask3d.benchmarks.case import Request
from xmask3d.benchmarks.sample import cases, compare, prepare, table


def test_the_variants_see_the_same_points():
    """Only that all of it runs and agrees; times are for a quiet machine."""
    results = compare(count=20_000, repeats=2)
    assert [result.variant for result in results] == ["plain", "ours", "kept"]
    assert len({result.points for result in results}) == 1 and results[0].points > 1000
    assert all(result.seconds > 0 and result.voxels > 500 for result in results)
    assert table(results).count("\n") == 4


def test_the_200_classes_too():
    assert len(compare(count=20_000, repeats=1, layout="scannet200")) == 3


def test_cases_of_the_benchmark_command():
    listed = cases(Request(against=("plain", "minkowski"), repeats=1))
    names = [(case.name, case.contender) for case in listed]
    assert len(set(names)) == 6 and ("sample scannet200", "plain") in names
    assert len(cases(Request())) == 4
    job = prepare(next(case for case in listed if case.contender == "xmask3d-kept"))
    for _ in range(2):
        (points, voxels), _folder = job.run()
        assert points > voxels > 10_000
