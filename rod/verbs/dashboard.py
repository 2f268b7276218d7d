"""``rod dashboard``: the workspace of a method in Weights & Biases."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datamodules.errors import InputError

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

Method = Literal["s3cot", "mllr", "mogu"]

_Panels = list[tuple[str, str]]
_TESTS: _Panels = [
    ("accuracy", r"test/.*/accuracy"),
    ("tokens", r"test/.*/tokens"),
    ("attack success rate", r"test/.*/asr/.*"),
    ("refused", r"test/.*/refusal_rate/.*"),
    ("complied", r"test/.*/compliance/.*"),
    ("AES", r"test/.*/aes"),
    ("cut off", r"test/.*/truncation"),
    ("in a loop", r"test/.*/repetition"),
    ("latency", r"test/(first|next)_token_ms"),
]
SECTIONS: dict[Method, dict[str, _Panels]] = {
    "s3cot": {
        "Curriculum": [
            ("accuracy", r"(base|val)/system[12]_accuracy"),
            ("tokens", r"(base|val)/system[12]_tokens"),
            ("AES", r"(base|val)/(system[12]_)?aes"),
            ("cut off", r"(base|val)/system[12]_truncation"),
            ("in a loop", r"(base|val)/system[12]_repetition"),
        ],
    },
    "mllr": {"SafetyWatch": [("shares of requests", r"safety/.*")]},
    "mogu": {
        "Routers": [
            ("glad gate", r"(train|val)/glad_on_.*"),
            ("unwilling gate", r"(train|val)/unwilling_on_.*"),
            ("gate penalty", r"(train|val)/penalty"),
            ("over-refusal", r"val/over_refusal.*"),
        ],
        "Responders": [("cross-entropy", r"(train|val)/ce.*")],
    },
}
"""Method -> section -> panels: title, and a pattern of the metrics in it."""
_TRAINING: _Panels = [
    ("loss", r"(train|val)/loss"),
    ("learning rates", r"lr-.*"),
    ("gradient norms", r"grad_norm/.*"),
    ("tokens of a step", r"train/tokens"),
]
_FIGURES: dict[Method, list[str]] = {
    "s3cot": ["direction", "strength_sweep", "stages"],
    "mllr": ["robustness", "search"],
    "mogu": ["gates", "gates_tokens"],
}


def run(
    method: Method,
    /,
    project: str = "lightning-rod",
    entity: str = "",
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Build the workspace of a method in Weights & Biases: panels of its metrics, its figures, its tests.

    The runs themselves come from ``--config logger/wandb``, offline ones by ``wandb sync``; the runs of one pipeline
    are one group. Needs ``pip install 'lightning-rod[dashboard]'``, and to save an account (``wandb login``).

    Args:
        method: Whose workspace.
        project: Project of the runs.
        entity: User or team; the account's default by default.
        output: Write the workspace's specification to this JSON file, and save nothing; needs no account.
        overwrite: Replace that file.
    """
    from rod.files import require_new

    if output is not None:
        require_new([output], overwrite)
    made = workspace(method, project, entity)
    if output is not None:
        from datamodules.writing import replacing

        with replacing(output) as file:
            file.write(made._to_model().model_dump_json(indent=2).encode())
        print(f"wrote {output}")
        return
    import wandb

    try:
        made.entity = entity or wandb.Api().default_entity or ""
        made.save()
    except Exception as error:  # its client has many kinds, for accounts, projects and networks
        raise InputError(f"dashboard: Weights & Biases cannot save it: {error}; have you run 'wandb login'?") from error
    print(made.url)


def workspace(method: Method, project: str, entity: str) -> "Workspace":
    """The workspace, not yet saved."""
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise InputError("dashboard: needs wandb-workspaces: pip install 'lightning-rod[dashboard]'") from error

    sections = {**SECTIONS[method], "Tests": _TESTS, "Training": _TRAINING}
    panels: dict[str, list[Any]] = {
        name: [wr.LinePlot(title=title, metric_regex=pattern) for title, pattern in listed]
        for name, listed in sections.items()
    }
    panels["Figures"] = [wr.MediaBrowser(title=key.replace("_", " "), media_keys=[key]) for key in _FIGURES[method]]
    panels["Samples"] = [wr.MediaBrowser(title=key, media_keys=[key]) for key in ("val/samples", "test/samples")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"Lightning Rod: {method}",
        sections=[ws.Section(name=name, panels=listed, is_open=True) for name, listed in panels.items()],
    )
