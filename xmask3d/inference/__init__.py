"""Inference from outputs of views to labels of a scene: class scores, base/novel gate, votes (paper section 3.5)."""
