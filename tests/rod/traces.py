"""Lines of trace files, as another command would have written them."""


def answer_line(question: str, completion: str, **changes: object) -> dict[str, object]:
    """An answer to a question, whole and not steered."""
    texts = dict.fromkeys(("id", "question_id", "question", "prompt"), question)
    return {
        **texts,
        "completion": completion,
        "gold": None,
        "system": "plain",
        "alpha": 0.0,
        "layers": [],
        "sample": 0,
        "seed": 0,
        "n_tokens": 3,
        "finish_reason": "stop",
        "answer": None,
        "correct": None,
        "model": "m",
        **changes,
    }
