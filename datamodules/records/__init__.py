"""Records of JSONL files: their kinds, and how to read and write them."""

from datamodules.records.conversations import Conversation, read_conversations
from datamodules.records.files import HubData, read_file
from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.questions import read_questions
from datamodules.records.reader import extract_gold, read_records, to_json
from datamodules.records.turns import Turn

__all__ = [
    "Conversation",
    "HubData",
    "Instruction",
    "Question",
    "Trace",
    "Turn",
    "extract_gold",
    "read_conversations",
    "read_file",
    "read_questions",
    "read_records",
    "to_json",
]
