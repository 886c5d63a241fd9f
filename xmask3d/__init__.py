"""Open-vocabulary 3D segmentation with cross-modal mask reasoning (XMask3D, arXiv 2411.13243)."""

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    """Support `from xmask3d import Segmenter` without importing torch for users who need no networks."""
    if name == "Segmenter":
        from xmask3d.segment.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module 'xmask3d' has no attribute '{name}'")
