"""Records of JSONL files: their kinds, and how to read and write them."""

from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.questions import read_questions
from datamodules.records.reader import extract_gold, read_records, to_json

__all__ = ["Instruction", "Question", "Trace", "extract_gold", "read_questions", "read_records", "to_json"]
