"""Pixel decoder and mask decoder at the published sizes, on random feature pyramids."""

import torch
from torch import Tensor

from tools.benchmark.case import Case, Job, Request
from tools.benchmark.plain import class_logits, decode_masks
from xmask3d.models.mask_decoder import MaskDecoder
from xmask3d.models.pixel_decoder import PixelDecoder
from xmask3d.models.similarity import cosine_logits

CONTENDERS = ("plain",)
SIZE, CLASSES = 512, 200


def cases(request: Request) -> list[Case]:
    """List forward at test time, and forward and backward with all auxiliary predictions; `plain` in float32."""
    found = []
    for views in request.views or (1,):
        for step in ("forward", "step"):
            for kind in request.types:
                options: dict[str, str | int | float] = {"step": step, "kind": kind, "views": views, "size": SIZE}
                name = f"decoders {SIZE}x{SIZE}, {views} view(s), {step}, {kind}"
                for contender in ("xmask3d", *(request.against if kind == "float32" else ())):
                    found.append(
                        Case("decoder", name, contender, options, request.device, request.threads, request.repeats)
                    )
    return found


def prepare(case: Case) -> Job:
    """Prepare decoders with random weights; the pyramid is random too, and takes gradients in a step."""
    torch.manual_seed(0)
    size, views, training = int(case.options["size"]), int(case.options["views"]), case.options["step"] == "step"
    pixel_decoder, mask_decoder = PixelDecoder().to(case.device), MaskDecoder().to(case.device)
    pyramid = [
        torch.randn(views, 512, size // stride, size // stride, device=case.device, requires_grad=training)
        for stride in (4, 8, 16, 32)
    ]
    embeddings = torch.randn(CLASSES + 1, 768, device=case.device)
    low = case.options["kind"] == "bfloat16"

    def forward() -> list[Tensor]:
        with torch.autocast(torch.device(case.device).type, torch.bfloat16, enabled=low):
            pixels = pixel_decoder(pyramid)
            if case.contender == "plain":
                masks = decode_masks(mask_decoder, pixels.mask_features, pixels.memories)
                logits = [class_logits(prediction, embeddings) for prediction in masks]
            else:
                masks = mask_decoder(pixels.mask_features, pixels.memories, auxiliary=training)
                logits = [cosine_logits(p.embeddings.float(), embeddings, p.temperature) for p in masks]
        return [*logits, *(prediction.mask_logits for prediction in masks)]

    if not training:
        # Not by no_grad: torch's counter of operations wants graphs where weights have gradients.
        pixel_decoder.requires_grad_(False)
        mask_decoder.requires_grad_(False)
        return Job(forward, count=True)

    def step() -> list[Tensor]:
        results = forward()
        torch.autograd.backward(results, [torch.ones_like(x) for x in results])
        return results

    return Job(step, count=True)
