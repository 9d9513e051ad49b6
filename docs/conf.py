"""Sphinx settings. Nothing here needs the network, so the documentation builds anywhere."""

import os
from importlib import metadata

os.environ["METRICSLIB_PURE"] = "1"  # the Python implementation has the annotations

project = "metricslib"
author = "metricslib contributors"
project_copyright = author
release = metadata.version("metricslib")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"metricslib {release}"
