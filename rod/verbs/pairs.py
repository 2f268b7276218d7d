"""``rod pairs``: what MoGU learns from, made of a model's own answers, malicious requests and refusals."""

from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str]) -> None:
    """Parse the options and make the pairs."""
    from rod.parser import Parser

    parser = Parser(prog="rod pairs", description=(pairs.__doc__ or "").partition("Args:")[0])
    parser.add_argument("--config", action="config", help="YAML file with these options.")
    parser.add_function_arguments(pairs, as_group=False, skip={"answers"})
    parser.add_argument(
        "--answers", type=str | list[str], required=True, help="A file or glob pattern of traces, or a list of them."
    )
    options = parser.parse_args(list(args)).as_dict()
    options.pop("config")
    answers = options.pop("answers")
    pairs([answers] if isinstance(answers, str) else answers, **options)


def pairs(
    answers: Sequence[str],
    malicious: Path,
    output: Path,
    malicious_fields: dict[str, str] | None = None,
    rejections: Path | None = None,
    refusals: Path | None = None,
    refusal_rule: str = "",
    n_train: int = 300,
    n_val: int = 30,
    seed: int = 0,
    strict: bool = False,
    overwrite: bool = False,
) -> Path:
    """Make the four kinds of pairs, balanced and split, and say what was dropped and why.

    Writes ``pairs.train.jsonl`` and ``pairs.val.jsonl``; the same requests with the right response alone as
    ``sft.train.jsonl`` and ``sft.val.jsonl``; a malicious against a benign request as ``contrast.jsonl``, for a refusal
    direction; malicious requests that are in neither as ``held_out.jsonl``;
    ``dropped.jsonl`` and ``report.json``.

    Args:
        answers: The base model's answers to benign requests: traces of ``rod predict``, files or glob patterns.
            To restore a fine-tuned model, add its answers to prompts of its task.
        malicious: JSONL file of malicious requests, each with an affirmative opening.
        output: Folder to write.
        malicious_fields: Where that file's keys differ, ours to theirs: ``{prompt: goal, target: target}``.
        rejections: The base model's answers to the malicious requests; those that are refusals and come to their end
            are used.
        refusals: Text file, a written refusal a line, which may name the request with ``{prompt}``; ours by default.
        refusal_rule: Regular expression of what a refusal says; ours by default.
        n_train: Requests of each kind to train on (paper: 300).
        n_val: Requests of each kind to choose checkpoints on (ours). With 0 ``pairs.val.jsonl`` stays empty, and fits
            that are to choose their checkpoints on it stop.
        seed: Of the split and of the choice of refusals.
        strict: Stop at the first bad line; otherwise bad lines are set aside and counted.
        overwrite: Replace files that an earlier run left.
    """
    import json

    from rich.console import Console

    from datamodules.errors import InputError
    from datamodules.mogu.pairing import REFUSAL, REFUSALS, contrast, make_pairs
    from datamodules.mogu.records import Attack
    from datamodules.records.kinds import Instruction, Trace
    from datamodules.records.reader import read_records, to_json
    from datamodules.records.shards import write_lines
    from rod.verbs.files import expand, require_new

    names = ["pairs.train", "pairs.val", "sft.train", "sft.val", "contrast", "held_out", "dropped"]
    files = {name: output / f"{name}.jsonl" for name in names}
    report_file = output / "report.json"
    require_new([*files.values(), report_file], overwrite)
    if refusals is not None and not refusals.is_file():
        raise InputError(f"--refusals: there is no file '{refusals}'")
    written = [line.strip() for line in refusals.read_text(encoding="utf-8").splitlines()] if refusals else REFUSALS
    found = make_pairs(
        [trace for path in expand("--answers", answers) for trace in read_records(path, Trace, strict=strict)],
        read_records(malicious, Attack, fields=malicious_fields, strict=strict),
        n_train=n_train,
        n_val=n_val,
        refusals=[line for line in written if line],
        rejections=read_records(rejections, Trace, strict=strict) if rejections is not None else (),
        refusal_rule=refusal_rule or REFUSAL,
        seed=seed,
    )
    for part, records in (("train", found.train), ("val", found.val)):
        write_lines(files[f"pairs.{part}"], map(to_json, records))
        right = (Instruction(p.id, p.prompt, p.reject if p.malicious else p.glad, p.system) for p in records)
        write_lines(files[f"sft.{part}"], map(to_json, right))
    write_lines(files["contrast"], map(to_json, contrast(found.train)))
    write_lines(files["held_out"], map(to_json, found.held_out))
    write_lines(files["dropped"], map(to_json, found.dropped))
    write_lines(report_file, [json.dumps(found.report, indent=2)])
    console = Console()
    console.print(found.report)
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)
    return output
