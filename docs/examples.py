"""Shows the examples of docstrings as code on the docs site."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*)*", re.MULTILINE)


class Examples(Extension):
    """Puts each block of ``>>>`` lines and what they print into a fence."""

    def on_instance(self, *, obj: Object, **kwargs: Any) -> None:
        """Rewrite the docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\1```pycon\n\g<0>\n\1```", obj.docstring.value)
