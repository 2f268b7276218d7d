"""One training run of ``benchmarks/sft.py`` with our trainer or TRL's, in its own process.

That script starts it as ``python sft_workers.py ENGINE FOLDER``. It reads the job in FOLDER, trains on its batches and
writes time, memory and losses to ``result.json`` there. Each trainer is used through its public interface.
"""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Time of each optimiser step, and the peak memory of the process since training began (Linux)."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.losses: list[float] = []
        self.targets: list[int] = []

    def begin(self) -> None:
        """Start; to be called with model, data and optimiser loaded."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        # getrusage's maximum would include loading, and the memory of the parent process.
        Path("/proc/self/clear_refs").write_text("5")
        self.before = status("VmRSS")
        self._stamp()

    def forward(self, loss: Tensor, labels: Tensor) -> None:
        """Record a loss and its number of tokens; labels are (batch, seq)."""
        self.losses.append(float(loss.detach()))
        self.targets.append(int((labels[:, 1:] != -100).sum()))

    def step(self) -> None:
        """Record the end of an optimiser step."""
        self._stamp()

    def write(self, folder: Path) -> None:
        """Write ``result.json``."""
        result = vars(self) | {"peak": status("VmHWM"), "threads": torch.get_num_threads(), "torch": torch.__version__}
        (folder / "result.json").write_text(json.dumps(result))

    def _stamp(self) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())


def status(key: str) -> int:
    """A memory figure of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def train_ours(folder: Path, job: dict[str, Any], meter: Meter) -> None:
    """``rod fit`` without its command line."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from lightning.pytorch import Callback, Trainer
    from lightning.pytorch.loggers import CSVLogger

    from datamodules.training.instruction_data import InstructionData
    from llm_modules.causal_lm import CausalLM
    from llm_modules.optim.schedules import WarmupConstant

    class Measure(Callback):
        def on_train_start(self, *_: Any) -> None:
            meter.begin()

        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
            batch.mean_targets = None  # the mean over each batch, as in the other engines: losses can be compared

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            meter.forward(outputs["loss"], batch.labels)
            meter.step()

    module = CausalLM(
        str(folder / "model"),
        adapter=str(folder / "adapter"),
        optimizer=partial(torch.optim.AdamW, lr=job["rate"], weight_decay=0.0),
        schedule=partial(WarmupConstant, warmup=0.0),
    )
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        gradient_clip_val=1.0,
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=CSVLogger(folder / "logs"),
        log_every_n_steps=10,
        callbacks=[Measure()],
    )
    trainer.fit(module, InstructionData(folder / "data.jsonl", batch_size=job["batch_size"]))


def train_trl(folder: Path, job: dict[str, Any], meter: Meter, all_logits: bool = False, **settings: Any) -> None:
    """``SFTTrainer``, or the ``Trainer`` below it with the model's own loss, on the same tokens in the same batches."""
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    base: Any = Trainer if all_logits else SFTTrainer

    class Measure(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            meter.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step()

    class Measured(base):
        def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
            labels = inputs["labels"]
            loss = super().training_step(model, inputs, *args, **kwargs)
            meter.forward(loss, labels)
            return loss

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=job["batch_size"],
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        max_length=None,
        learning_rate=job["rate"],
        weight_decay=0.0,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )
    trainer = Measured(
        model=PeftModel.from_pretrained(model, folder / "adapter", is_trainable=True),
        args=config,
        train_dataset=Dataset.from_list(json.loads((folder / "rows.json").read_text())),
        processing_class=tokenizer,
        data_collator=DataCollatorForLanguageModeling(tokenizer.pad_token_id) if all_logits else None,
        callbacks=[Measure()],
    )
    trainer.train()


ENGINES: dict[str, Callable[[Path, dict[str, Any], Meter], None]] = {
    "ours": train_ours,
    "trl": train_trl,
    "trl_padding_free": partial(train_trl, padding_free=True),
    "all_logits": partial(train_trl, all_logits=True),
}


def main() -> None:
    engine, folder = sys.argv[1], Path(sys.argv[2])
    job = json.loads((folder / "job.json").read_text())
    torch.set_num_threads(job["threads"])
    meter = Meter()
    ENGINES[engine](folder, job, meter)
    meter.write(folder)


if __name__ == "__main__":
    main()
