"""Pages of the project as a site: the Markdown pages, the configuration reference, and the API from its docstrings."""
