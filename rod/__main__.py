"""The ``rod`` command: it picks the verb before anything heavy is imported."""

import importlib
import os
import select
import sys
from collections.abc import Sequence

from rod.noise import be_quiet
from rod.peers import await_peers, follow_launcher, forget_launcher

LIGHTNING = "rod.cli"
GROUPS = {
    "train": {
        "fit": (LIGHTNING, "train a model"),
        "plan": ("rod.verbs.plan", "count the memory and speed of a run on a device, before it starts"),
        "train-judge": ("rod.verbs.train_judge", "train the refusal classifier on labelled answers"),
    },
    "sample and filter": {
        "predict": (LIGHTNING, "run a model over data: find a direction, sample traces, probe modules"),
        "filter": ("rod.verbs.filter", "keep the traces that are right, or that agree"),
        "import-traces": ("rod.verbs.import_traces", "turn responses of another tool into traces"),
        "make-twins": ("rod.verbs.make_twins", "swap words of malicious requests to make benign near-twins"),
        "triage": (
            "rod.verbs.triage",
            "drop the samples of a fine-tuning set that look most malicious to the model",
        ),
        "pairs": ("rod.verbs.pairs", "make the training pairs of MoGU's responders and routers"),
    },
    "measure": {
        "verify": ("rod.verify.verb", "check that a model works with every method"),
        "test": (LIGHTNING, "measure a model on any choice of suites"),
        "validate": (LIGHTNING, "measure a model on its validation data"),
        "score": ("rod.verbs.score", "score completions in files, of any project, without a model"),
        "compare": ("rod.verbs.compare", "compare test runs record by record, with paired significance tests"),
        "frontier": ("rod.verbs.frontier", "accuracy against tokens over any runs: Pareto front, AES, budgets, tests"),
        "report": ("rod.report.verb", "one HTML page about any runs: warnings, tables, figures, samples, comparisons"),
        "dashboard": ("rod.verbs.dashboard", "the workspace of a method in Weights & Biases"),
        "play": ("rod.play.verb", "a local page to ask models, steer them and see MoGU's gates"),
        "swap": ("rod.verbs.swap", "restore modules of a fine-tuned model and see which bring its refusals back"),
    },
    "export": {
        "export": ("rod.verbs.export", "write a trained model as a PEFT, merged or MoGU folder"),
        "export-direction": ("rod.verbs.export_direction", "write a direction for llama.cpp, lm-eval and others"),
        "project": ("rod.verbs.project", "project a fine-tune onto what alignment changed (SafeLoRA) and write it"),
    },
    "this repository": {
        "configs": ("rod.verbs.configs", "list the configurations that come along"),
        "env": ("rod.verbs.env", "versions, devices and a run's configuration, to paste into an issue"),
        "world": ("rod.verbs.world", "write the questions and requests of the embedded miniature's world"),
        "miniature": ("rod.verbs.miniature", "train the embedded miniature from scratch"),
        "real-model": ("rod.verbs.real_model", "fetch the small real model of the evidence, SmolLM2-135M-Instruct"),
        "real-problems": (
            "rod.verbs.real_problems",
            "arithmetic problems of published sets: to teach, sample and test",
        ),
        "evidence": ("rod.evidence.verb", "measure every claim on the miniature, with controls and seeds"),
    },
}
"""Heading -> verb -> its module and a line of help."""
VERBS = {verb: module for group in GROUPS.values() for verb, (module, _) in group.items()}


def overview() -> str:
    """The text of ``rod --help``."""
    lines = [
        "usage: rod <verb> [options]",
        "",
        "Post-training that makes an LLM think short, keeps it safe while it is tuned,",
        "and refuses only what should be refused.",
    ]
    for heading, group in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {verb:<18}{text}" for verb, (_, text) in group.items())]
    return "\n".join(
        [
            *lines,
            "",
            "rod <verb> --help              the options of a verb",
            "rod --verbose <verb> ...       with the notices of the libraries, which are hidden otherwise",
            "rod fit --config NAME ...      run a stage; later files and options override earlier ones",
            "rod fit --config NAME --model.backbone FOLDER --print_config",
            "                               print the whole configuration without running it",
        ]
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command with words after ``rod``, by default those of the process.

    Returns:
        The exit status: 0, 2 for wrong input, or another of `rod.failures`.
    """
    words = list(sys.argv[1:] if args is None else args)
    if args is None:
        # A notebook names its own to the commands that it runs, which may not have it. Our figures need none.
        os.environ["MPLBACKEND"] = "agg"
    if words[:1] == ["--verbose"]:
        del words[0]
    else:
        be_quiet()
    if not words or words[0] in {"-h", "--help", "help"}:
        print(overview())
        return 0
    if words[0] == "--version":
        print(_version())
        return 0
    verb = words[0]
    if verb not in VERBS:
        print(f"rod: error: there is no verb '{verb}'; verbs are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    if VERBS[verb] == LIGHTNING:
        follow_launcher()
    try:
        module = importlib.import_module(VERBS[verb])
        if VERBS[verb] == LIGHTNING:
            module.main(words)
            await_peers()
        else:
            from rod.parser import run_verb

            run_verb(module.run, words[1:], verb)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("rod: stopped by Ctrl-C", file=sys.stderr)
        return 128 + 2
    except (Exception, SystemExit) as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            return 1
        from rod.failures import explain_failure

        failure = explain_failure(error, words[1:])
        if failure is None:
            raise
        print(f"rod: {failure[1]}", file=sys.stderr)
        return failure[0]
    finally:
        forget_launcher()
    if args is None and all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID")):
        from rod.next_command import next_command, reads_what_exists

        if (following := next_command(words)) and reads_what_exists(following):
            print(f"next: {following}")
    return 0


def _has_no_reader() -> bool:
    """Whether what reads the output has ended, as in ``rod configs | head``; the rest of it then goes nowhere."""
    output = select.poll()
    try:
        output.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # it is no file, as in a notebook
        return False
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("lightning-rod")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
