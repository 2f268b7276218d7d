"""``rod pairs``: make MoGU's training pairs of a model's own answers, malicious requests and refusals."""

from pathlib import Path


def run(
    answers: str | list[str],
    malicious: Path,
    output: Path,
    malicious_fields: dict[str, str] | None = None,
    rejections: Path | None = None,
    other_malicious: Path | None = None,
    other_field: str = "question",
    n_other: int | None = None,
    refusals: Path | None = None,
    refusal_rule: str = "",
    n_train: int = 300,
    n_val: int = 30,
    seed: int = 0,
    strict: bool = False,
    overwrite: bool = False,
) -> None:
    """Make MoGU's training pairs, balanced and split, and report what was dropped and why.

    Writes to the output folder: ``pairs.{train,val}.jsonl``; ``sft.{train,val}.jsonl``, the same requests with the
    right response alone; ``contrast.jsonl``, malicious against benign requests, for a refusal direction;
    ``held_out.jsonl``, malicious requests in none of these; ``dropped.jsonl`` and ``report.json``.

    Args:
        answers: The base model's answers to benign requests: files of traces, or glob patterns. To restore a
            fine-tuned model, add its answers to prompts of its task.
        malicious: JSONL file of malicious requests, each with an affirmative opening.
        output: The folder to write.
        malicious_fields: That file's names of the fields, if they differ: ``{prompt: goal, target: target}``.
        rejections: The base model's answers to the malicious requests. Complete refusals among them are used.
        other_malicious: JSONL file of malicious requests of another source, without openings. All are trained on, in
            place of as many of ``malicious``.
        other_field: Name of the request's field in that file.
        n_other: Requests to draw of that file. All by default.
        refusals: Text file of refusals, one on each line. ``{prompt}`` stands for the request. Built-in refusals by
            default.
        refusal_rule: Regular expression that matches a refusal, in the answer after a thought. Built-in by default.
        n_train: Requests of each kind to train on (paper: 300).
        n_val: Requests of each kind to choose checkpoints on (ours). With 0, ``pairs.val.jsonl`` is empty, and fits
            that choose their checkpoint on it stop with an error.
        seed: Seed of the split and of the choice of refusals.
        strict: Stop at the first bad line. By default bad lines are set aside and counted.
        overwrite: Overwrite existing files.
    """
    import json

    from rich.console import Console

    from datamodules.completions.refusals import ANY_REFUSAL
    from datamodules.errors import InputError
    from datamodules.mogu.pairing import REFUSALS, contrast, drawn, make_pairs, right_responses
    from datamodules.mogu.records import Attack
    from datamodules.records import Trace, read_questions, read_records, to_json
    from datamodules.records.shards import write_lines
    from rod.files import expand, require_new

    names = ["pairs.train", "pairs.val", "sft.train", "sft.val", "contrast", "held_out", "dropped"]
    files = {name: output / f"{name}.jsonl" for name in names}
    report_file = output / "report.json"
    require_new([*files.values(), report_file], overwrite)
    if refusals is not None and not refusals.is_file():
        raise InputError(f"--refusals: there is no file '{refusals}'")
    written = [line.strip() for line in refusals.read_text(encoding="utf-8-sig").splitlines()] if refusals else REFUSALS
    others = (
        read_questions(other_malicious, fields={"question": other_field}, strict=strict, key="--other_field")
        if other_malicious
        else ()
    )
    found = make_pairs(
        [trace for path in expand("--answers", answers) for trace in read_records(path, Trace, strict=strict)],
        read_records(malicious, Attack, fields=malicious_fields, strict=strict, key="--malicious_fields"),
        n_train=n_train,
        n_val=n_val,
        refusals=[line for line in written if line],
        rejections=read_records(rejections, Trace, strict=strict) if rejections is not None else (),
        other_malicious=drawn(others, n_other, seed),
        refusal_rule=refusal_rule or ANY_REFUSAL,
        seed=seed,
    )
    for part, records in (("train", found.train), ("val", found.val)):
        write_lines(files[f"pairs.{part}"], map(to_json, records))
        write_lines(files[f"sft.{part}"], map(to_json, right_responses(records)))
    write_lines(files["contrast"], map(to_json, contrast(found.train)))
    write_lines(files["held_out"], map(to_json, found.held_out))
    write_lines(files["dropped"], map(to_json, found.dropped))
    write_lines(report_file, [json.dumps(found.report, indent=2)])
    console = Console()
    console.print(found.report)
    for option, asked, part in (("--n_train", n_train, "train_each"), ("--n_val", n_val, "val_each")):
        if (made := found.report[part]) != asked:
            console.print(
                f"warning: {option}: {made} of each kind, not {asked}: there are no more",
                style="yellow",
                highlight=False,
            )
    console.print(f"wrote {output}", highlight=False, soft_wrap=True)
