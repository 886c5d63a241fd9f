"""From outputs of views to labels of a scene: class scores, base/novel gate, votes, fill (paper section 3.5)."""
