from typing import Any

# The types have the face of their Python implementation, which is where they are described.
Cell: Any
Samples: Any
Span: Any
