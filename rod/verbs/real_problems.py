"""``rod real-problems``: arithmetic problems of published sets, to teach, to sample from and to test on."""

from pathlib import Path


def run(data: Path, output: Path = Path("runs/problems"), max_steps: int = 2) -> None:
    """Write teaching chats and questions from GSM8K, MAWPS and SVAMP.

    ``teach.{train,val}.jsonl`` are conversations with long, plain and brief solutions. GSM8K's are its published ones,
    the others are worked out from the numbers. ``questions.{train,dev,val}.jsonl`` and ``test.SET.jsonl`` are
    questions; problems that are worded alike are on one side only.

    Args:
        data: Folder with gsm8k/train.jsonl, mawps/{singleop,addsub,singleeq,multiarith}.jsonl and svamp/test.jsonl.
        output: The folder to write; files of the same names are replaced.
        max_steps: Most steps of a solution that is taught.
    """
    from datamodules.errors import InputError
    from rod.evidence.real.arithmetic import FILES, write_arithmetic

    if max_steps < 1:
        raise InputError(f"--max_steps: is {max_steps}; give 1 or more")
    if missing := [name for name in FILES if not (data / name).is_file()]:
        raise InputError(f"--data: the folder '{data}' has no {', '.join(missing)}")
    for name, lines in write_arithmetic(data, output, max_steps).items():
        print(f"wrote {output / name}: {lines:,} lines")
