"""Pictures, coloured clouds and the viewer."""
