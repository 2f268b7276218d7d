"""``rod env``: what a report of a problem needs to say about the machine."""

from pathlib import Path


def run(run: str = "", /) -> None:
    """Print versions, devices and, of a run, its command and configuration, to paste into an issue.

    Args:
        run: A run folder. None by default.
    """
    import platform

    import torch

    from datamodules.errors import InputError
    from rod.run_record import CONFIG, device, starts_of, versions

    folder = Path(run)
    if run and not (folder / CONFIG).is_file():
        raise InputError(f"rod env: '{run}' has no {CONFIG}; give the folder of a run")
    rows = {"system": platform.platform(), "devices": device()}
    rows["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        rows["CUDA"] = str(torch.version.cuda)
    for name, value in (versions() | rows).items():
        print(f"{name:<15}{value}")
    if run:
        for start in starts_of(folder):
            print(f"\n{start.get('command')}")
        print(f"\n{(folder / CONFIG).read_text(encoding='utf-8')}")
