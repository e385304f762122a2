"""Sphinx settings: Markdown pages, the Python reference, everything strict and offline."""

import importlib.metadata

project = "retrodistill"
author = "The retrodistill developers"
release = importlib.metadata.version("retrodistill")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"retrodistill {release}"
html_copy_source = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
default_role = "code"
