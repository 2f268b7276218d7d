"""The miniature's tokenizer: byte-level BPE trained on the world's text. Every number up to 99 is one token."""

from collections.abc import Iterator
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.world import chat, maths

EOS_TOKEN = "<|im_end|>"
START_TOKEN = "<|im_start|>"
PAD_TOKEN = "<|pad|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML. A system turn is optional. The generation block marks the assistant's words, including the end of turn."""

# A word or up to two digits, each with the space before it; a run of other signs; other white space.
_PIECES = r" ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s"


def train_tokenizer(vocab_size: int = 1200, *, seed: int = 0) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same arguments give the same bytes. The world's words need about 600 tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD_TOKEN, START_TOKEN, EOS_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(Random(seed)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )


def _text(rng: Random) -> Iterator[str]:
    """Yield every number and every wording, often enough to become tokens, and a sample of answers."""
    numbers = " ".join(str(n) for n in range(100))
    wordings = [wording for grade in maths.GRADES for wording in grade.wordings]
    requests = [*chat.all_requests("train", forbidden=False), *chat.all_requests("train", forbidden=True)]
    for _ in range(200):
        yield from (numbers, numbers.replace(" ", "{"))
        yield from ("system\n", "user\n", "assistant\n", SYSTEM1_SUFFIX, SYSTEM2_SUFFIX)
        yield from wordings
        yield from (chat.ATTACK_TEMPLATES[index].format("How") for index in range(len(chat.ATTACK_TEMPLATES)))
        problem = maths.draw_problem(rng, "train")
        yield from (problem.question, maths.write_answer(rng, problem, rng.random()))
        for request in rng.sample(requests, 50):
            yield from (request.prompt, request.answer, chat.refuse(rng, request))
