"""Layer sets mean what they say, and say what is wrong."""

import pytest
import torch

from datamodules.errors import InputError
from llm_modules.s3cot.direction import Direction
from llm_modules.s3cot.layers import layer_indicator, select_layers

SEPARATION = (1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 3.0, 0.5)
DIRECTION = Direction(vectors=torch.diag(torch.tensor(SEPARATION)), anchor=3)


@pytest.mark.parametrize(
    ("layer_set", "layers"),
    [
        ("anchor:3", (3, 4, 5)),
        ("anchor:5", (3, 4, 5, 6, 7)),
        ("deepest:2", (6, 7)),
        ("separated:3", (1, 3, 5)),
        ("separated:4", (1, 3, 4, 5)),
        ("all", tuple(range(8))),
        ("5", (5,)),
        ("3,5-7", (3, 5, 6, 7)),
        (" 7 , 0 - 1, 1", (0, 1, 7)),
    ],
)
def test_forms(layer_set: str, layers: tuple[int, ...]) -> None:
    assert select_layers(layer_set, DIRECTION) == layers


@pytest.mark.parametrize(
    ("layer_set", "says"),
    [
        ("anchor:6", "'anchor:6' asks for 6; the direction has 1 to 5 layers from its anchor, layer 3, on"),
        ("anchor:0", "asks for 0"),
        ("deepest:9", "1 to 8 layers"),
        ("8", "names layer 8; the model has layers 0-7"),
        ("2-11", "names layer 11"),
        ("5-3", "'5-3' in '5-3' is empty"),
        ("", "is not a set of layers; write 'anchor:k'"),
        ("-1", "is not a set of layers"),
        ("1,,2", "is not a set of layers"),
        ("anchor", "is not a set of layers"),
        ("top:3", "is not a set of layers"),
        ("1.5", "is not a set of layers"),
    ],
)
def test_refusals(layer_set: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        select_layers(layer_set, DIRECTION)


def test_an_imported_direction_has_no_anchor() -> None:
    imported = Direction(vectors=torch.eye(4), source="imported.gguf")
    with pytest.raises(InputError, match=r"'anchor:2' needs an anchor, and imported.gguf has none"):
        select_layers("anchor:2", imported)
    assert select_layers("deepest:1", imported) == (3,)


def test_indicator_has_a_row_a_set() -> None:
    indicator = layer_indicator(["deepest:1", "", "0,2", "deepest:1"], DIRECTION)
    assert indicator.tolist() == [[0.0] * 7 + [1.0], [0.0] * 8, [1.0, 0.0, 1.0] + [0.0] * 5, [0.0] * 7 + [1.0]]
