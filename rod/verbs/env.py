"""``rod env``: what a report of a problem needs to say about the machine."""

from pathlib import Path


def run(run: Path | None = None) -> None:
    """Print versions, devices and, of a run, its command and configuration, to paste into an issue.

    Args:
        run: A run folder.
    """
    import platform

    import torch

    from datamodules.errors import InputError
    from rod.run_folder import CONFIG
    from rod.run_record import device, starts_of, versions

    if run is not None and not (run / CONFIG).is_file():
        raise InputError(f"--run: '{run}' has no {CONFIG}; give the folder of a run")
    rows = {"system": platform.platform(), "devices": device()}
    rows["threads"] = str(torch.get_num_threads())
    if torch.cuda.is_available():
        rows["CUDA"] = str(torch.version.cuda)
    for name, value in (versions() | rows).items():
        print(f"{name:<15}{value}")
    if run is not None:
        for start in starts_of(run):
            print(f"\n{start.get('command')}")
        print(f"\n{(run / CONFIG).read_text(encoding='utf-8')}")
