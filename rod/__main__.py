"""Entry of the ``rod`` command: picks the verb before anything heavy is imported."""

import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

LIGHTNING_VERBS = {
    "fit": "train a model",
    "validate": "measure a model on its validation data",
    "test": "measure a model on test data",
    "predict": "run a model over data: find a direction, sample traces",
}
OWN_VERBS = {
    "score": ("rod.verbs.score", "score completions without a model, this project's own or anybody's"),
    "compare": ("rod.verbs.compare", "hold test runs against each other, record by record"),
    "filter": ("rod.verbs.filter", "keep the traces that are right, or that agree, and say what was dropped and why"),
    "import-traces": ("rod.verbs.import_traces", "make trace records from responses that another tool wrote"),
    "export": ("rod.verbs.export", "write a trained model as a PEFT folder or a merged Hugging Face folder"),
    "export-direction": (
        "rod.verbs.export_direction",
        "write a direction for lm-evaluation-harness, llama.cpp or others",
    ),
    "evidence": ("rod.evidence.verb", "measure every claim on the embedded miniature, with controls and seeds"),
    "make-twins": ("rod.verbs.make_twins", "make benign near-twins of malicious requests by swapping words"),
    "train-judge": (
        "rod.verbs.train_judge",
        "train the refusal classifier on labelled answers, and estimate how it does",
    ),
    "miniature": ("rod.verbs.miniature", "train the embedded miniature from nothing"),
    "pairs": ("rod.verbs.pairs", "make what MoGU's responders and routers learn from"),
    "project": ("rod.verbs.project", "project a fine-tune onto what alignment changed (SafeLoRA), a control of ML-LR"),
    "swap": ("rod.verbs.swap", "restore modules of a fine-tuned model and see which bring its refusals back"),
    "world": ("rod.verbs.world", "write the questions and requests of the embedded miniature's world"),
}


def overview() -> str:
    """What ``rod --help`` prints."""
    verbs = {**LIGHTNING_VERBS, **{verb: text for verb, (_, text) in OWN_VERBS.items()}}
    lines = [f"  {verb:<18}{text}" for verb, text in verbs.items()]
    return "\n".join(
        [
            "usage: rod <verb> [options]",
            "",
            "Post-training that makes an LLM think short, keeps it safe while it is tuned,",
            "and refuses only what should be refused.",
            "",
            "verbs:",
            *lines,
            "",
            "rod <verb> --help            the options of a verb",
            "rod fit --config FILE ...    run a stage; later files and options override earlier ones",
            "rod fit --print_config ...   the whole configuration, without running",
        ]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        args: Words after ``rod``; those of the process by default.

    Returns:
        The exit status: 0, or 2 for wrong input.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(overview())
        return 0
    if words[0] == "--version":
        try:
            print(version("lightning-rod"))
        except PackageNotFoundError:
            print("not installed")
        return 0
    verb = words[0]
    if verb not in LIGHTNING_VERBS and verb not in OWN_VERBS:
        print(
            f"rod: error: there is no verb '{verb}'; verbs are {', '.join([*LIGHTNING_VERBS, *OWN_VERBS])}",
            file=sys.stderr,
        )
        return 2
    from datamodules.errors import InputError

    try:
        if verb in OWN_VERBS:
            importlib.import_module(OWN_VERBS[verb][0]).main(words[1:])
        else:
            importlib.import_module("rod.cli").main(words)
    except Exception as error:
        wrong = _find(error, InputError)
        if wrong is None:
            raise
        print(f"rod: error: {wrong}", file=sys.stderr)
        return 2
    return 0


def _find(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """The error of a kind among an error and its causes: parsers wrap what a constructor raises."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


if __name__ == "__main__":
    sys.exit(main())
