"""``rod world``: the questions and requests of the miniature's world, as files like anybody's."""

from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str]) -> None:
    """Parse the options and write."""
    from rod.parser import Parser

    parser = Parser(prog="rod world", description=str(world.__doc__))
    parser.add_function_arguments(world)
    options = parser.parse_args(list(args))
    print(f"wrote {world(**options.as_dict())}")


def world(
    output: Path = Path("runs/world"), n_train: int = 2000, n_dev: int = 500, n_test: int = 1000, seed: int = 0
) -> Path:
    """Write problems and how-to requests of the synthetic world; train, dev and test hold no problem in common.

    Also forbidden requests with benign twins, and two tasks for benign fine-tuning.

    Args:
        output: The folder to write.
        n_train: Problems to sample traces from.
        n_dev: Problems to choose settings and checkpoints on.
        n_test: Problems to report on.
        seed: Of the draw.
    """
    from datamodules.world.attacks import write_attacks
    from datamodules.world.files import write_world
    from datamodules.world.tuning import write_tuning

    write_tuning(output, seed=seed)
    write_world(output, n_train=n_train, n_dev=n_dev, n_test=n_test, seed=seed)
    write_attacks(output, seed=seed)
    return output
