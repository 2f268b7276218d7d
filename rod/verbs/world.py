"""``rod world``: write the questions and requests of the miniature's world as JSONL files."""

from pathlib import Path


def run(
    output: Path = Path("runs/world"), n_train: int = 2000, n_dev: int = 500, n_test: int = 1000, seed: int = 0
) -> None:
    """Write the data of the miniature's synthetic world as JSONL files.

    The files hold problems, how-to requests, forbidden requests with benign twins, and two tasks for benign
    fine-tuning. No problem is in two of the splits train, dev and test.

    Args:
        output: The folder to write.
        n_train: Problems of the train split, to sample traces from.
        n_dev: Problems of the dev split, to choose settings and checkpoints on.
        n_test: Problems of the test split, to report on.
        seed: Seed of the problems drawn.
    """
    from datamodules.world.attacks import write_attacks
    from datamodules.world.files import write_world
    from datamodules.world.tuning import write_tuning

    write_tuning(output, seed=seed)
    write_world(output, n_train=n_train, n_dev=n_dev, n_test=n_test, seed=seed)
    write_attacks(output, seed=seed)
    print(f"wrote {output}")
