"""Open-vocabulary 3D segmentation with cross-modal mask reasoning (XMask3D, arXiv 2411.13243)."""

__version__ = "0.1.0"
