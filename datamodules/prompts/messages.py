"""Turns as chat templates read them."""

from typing import Any

from datamodules.completions.thoughts import split_response
from datamodules.prompts.renderer import Renderer, thought_keys
from datamodules.records.turns import Turn

Message = dict[str, Any]


def message_of(turn: Turn, render: Renderer, earlier: bool = False) -> Message:
    """A turn as templates read it; its thought is in the content if the template looks for it nowhere else."""
    message: Message = {"role": turn.role, "content": turn.content}
    thought, content = parts_of(turn)
    if thought and render.reads_thoughts:
        message |= {"content": content, **thought_keys(thought)}
    elif earlier and not render.keeps_thoughts:
        message["content"] = content
    elif turn.thought:
        message["content"] = f"<think>\n{turn.thought}\n</think>\n\n{turn.content}"
    if turn.tool_calls:
        message["tool_calls"] = [dict(call) for call in turn.tool_calls]
    return (
        message | ({"name": turn.tool} if turn.tool else {}) | ({"tool_call_id": turn.call_id} if turn.call_id else {})
    )


def parts_of(turn: Turn) -> tuple[str, str]:
    """Thought and content of a turn, also if the content holds the thought."""
    if turn.thought or turn.role != "assistant":
        return turn.thought, turn.content
    thought, answer = split_response(turn.content)
    return (thought, answer) if thought and answer is not None else ("", turn.content)
