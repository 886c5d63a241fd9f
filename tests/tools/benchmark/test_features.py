import torch

from tests.helpers.diffusion import SMALL_UNET_1, SMALL_VAE, recorded_networks
from tools.benchmark.case import Case, Request
from tools.benchmark.features import cases, prepare, whole_maps
from xmask3d.models.diffusion import DiffusionFeatures


def test_whole_and_truncated_networks_give_the_same_maps() -> None:
    vae, unet = recorded_networks()
    torch.manual_seed(0)
    arguments = torch.rand(2, 3, 32, 64), torch.randn(2, 5, 64), torch.randn(2, 128)
    with torch.no_grad():
        expected = whole_maps(vae, unet)(*arguments)
        features = DiffusionFeatures(vae, unet)
        actual = features(features.encode(arguments[0]), *arguments[1:])
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)


def test_every_contender_gives_the_maps_of_the_whole_graph() -> None:
    results = {}
    for case in cases(Request(against=("plain",))):
        small = Case(case.part, case.name, case.contender, case.options | {"size": 64})
        job = prepare(small, SMALL_VAE, SMALL_UNET_1)
        results[case.options["step"], case.options["kind"], case.contender] = job.run()
    assert len(results) == 12
    expected = results["forward", "float32", "plain"]
    for (step, kind, _), maps in results.items():
        if step == "forward":
            near = {"rtol": 1e-3, "atol": 1e-4} if kind == "float32" else {"rtol": 0.1, "atol": 0.05}
            torch.testing.assert_close(maps, expected, **near)


def test_only_the_plain_step_makes_gradients_of_weights() -> None:
    options: dict[str, str | int | float] = {"step": "step", "kind": "float32", "size": 64}
    for contender in ("xmask3d", "plain"):
        job = prepare(Case("features", "a", contender, options), SMALL_VAE, SMALL_UNET_1)
        weights = leaves_of(job.run()[0])
        assert (len(weights) > 10) == (contender == "plain")


def leaves_of(tensor: torch.Tensor) -> set[int]:
    """Parameters that a gradient of the tensor reaches."""
    found, todo, seen = set(), [tensor.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None:
            found.add(id(variable))
        todo += [following for following, _ in node.next_functions]
    return found
