"""Whether the files of a model are whole and belong together."""

import json
from pathlib import Path
from typing import Any

from datamodules.errors import InputError


def check_settings(folder: Path, key: str) -> None:
    """Raise if a settings file of a folder is cut or empty; transformers would go on without some of them."""
    for path in sorted(folder.glob("*config*.json")) if folder.is_dir() else ():
        try:
            values = json.loads(path.read_bytes())
        except ValueError as error:
            raise InputError(f"{key}: '{path}' is cut or damaged ({error}); copy it again") from error
        if not isinstance(values, dict):
            raise InputError(f"{key}: '{path}' holds no settings; copy it again")


def check_weights(found: dict[str, Any], name: str, key: str) -> None:
    """Raise if a model has weights that its files lack, or the other way round; ``found`` is transformers' report."""
    again = "take config.json and weights of the same model"
    unused = f"{again}, or let transformers load and save it, which leaves out what the model does not use"
    differences = [
        ("lack", sorted(found["missing_keys"]), again),
        ("have, and the model does not use,", sorted(found["unexpected_keys"]), unused),
        ("have another size for", sorted(name for name, *_ in found["mismatched_keys"]), again),
    ]
    for what, names, remedy in differences:
        if names:
            number = f" (the first of {len(names)})" if len(names) > 1 else ""
            raise InputError(f"{key}: the weights of '{name}' {what} {names[0]}{number}; {remedy}")
