"""The files that a MoGU is built from, read and checked before any weights are loaded."""

from pathlib import Path

from datamodules.errors import InputError
from llm_modules.backbone import loading
from llm_modules.mogu.adapters import LoRAAdapter, read_adapter
from llm_modules.mogu.folder import read_settings
from llm_modules.mogu.probes import LayerProbe, read_probes


class MoGUParts:
    """Two responders, optionally with probes; or a whole MoGU folder.

    After `read`, ``adapters`` holds glad and unwilling (empty with a folder) and ``layer_probes`` the probes.
    """

    def __init__(
        self, glad: str | None, unwilling: str | None, folder: str | None, probes: Path | None, allow_other_base: bool
    ) -> None:
        """Arguments as of `llm_modules.mogu.module.MoGU`; InputError if one is missing or two exclude each other."""
        if folder is not None and (glad or unwilling or probes):
            raise InputError("model.folder: it holds responders and routers; leave glad, unwilling and probes out")
        if folder is None and (glad is None or unwilling is None):
            raise InputError("model: give model.glad and model.unwilling, two PEFT folders, or model.folder, a MoGU")
        if glad is not None and unwilling is not None and Path(glad).resolve() == Path(unwilling).resolve():
            raise InputError(f"model.unwilling: '{unwilling}' is the glad responder, too; give the other one")
        self.glad, self.unwilling, self.folder, self.probes = glad, unwilling, folder, probes
        self.allow_other_base = allow_other_base
        self.adapters: list[LoRAAdapter] = []
        self.layer_probes: list[LayerProbe] | None = None

    def identity(self) -> dict[str, str]:
        """Absolute path of each part, for the record of a run."""
        parts = {"glad": self.glad, "unwilling": self.unwilling, "folder": self.folder}
        return {name: str(Path(part).resolve()) for name, part in parts.items() if part}

    def read(self, backbone: str) -> None:
        """Read the small files; InputError if one is missing or broken, or belongs to another base."""
        if self.folder is not None:
            self._check_base("folder", self.folder, read_settings(Path(self.folder)).base, backbone)
        else:
            for key, path in (("glad", str(self.glad)), ("unwilling", str(self.unwilling))):
                adapter = read_adapter(path, f"model.{key}")
                self._check_base(key, path, adapter.base, backbone)
                self.adapters.append(adapter)
        self.layer_probes = None if self.probes is None else read_probes(self.probes, "model.probes")

    def _check_base(self, key: str, path: str, base: str, backbone: str) -> None:
        if self.allow_other_base or not base or loading.same_checkpoint(base, backbone):
            return
        raise InputError(
            f"model.{key}: '{path}' was trained on '{base}', not on '{backbone}'; set model.backbone to its own base, "
            "or model.allow_other_base: true if they are the same weights"
        )
