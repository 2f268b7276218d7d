"""Prompts: rendered with a chat template, encoded, and as the rows of a generation run."""

from datamodules.prompts.chat_template import (
    PLAIN_TEMPLATE,
    SYSTEM1_SUFFIX,
    SYSTEM2_SUFFIX,
    ChatTemplate,
    decode_completion,
    encode_pair,
    encode_prompt,
    render_prompt,
    render_turns,
    user_turn,
)
from datamodules.prompts.conversation import ConversationEncoder
from datamodules.prompts.instruction_span import InstructionFinder
from datamodules.prompts.rows import PromptBatches, build_rows

__all__ = [
    "PLAIN_TEMPLATE",
    "SYSTEM1_SUFFIX",
    "SYSTEM2_SUFFIX",
    "ChatTemplate",
    "ConversationEncoder",
    "InstructionFinder",
    "PromptBatches",
    "build_rows",
    "decode_completion",
    "encode_pair",
    "encode_prompt",
    "render_prompt",
    "render_turns",
    "user_turn",
]
