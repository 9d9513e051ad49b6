"""Sphinx settings. Nothing here needs the network, so the documentation builds anywhere."""

from importlib import metadata

project = "metricslib"
author = "metricslib contributors"
project_copyright = author
release = metadata.version("metricslib")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"metricslib {release}"
