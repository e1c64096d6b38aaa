"""Generation: how a distribution becomes a line.

settings   `SamplingSettings`: all that a poem depends on besides the model and the prompt
sampling   temperature, top-k, top-p, min-p, the repetition penalty, and the draw: pure functions of logits
noise      the luck of a token, computed from seed, step and id
prompts    prompts of ids, until the first new token: checked, put into batches, read
loop       the loop over tokens: prompts of ids -> new ids, one poem or many at a time
beams      the search for the likeliest text: prompts of ids -> the best new ids, with their scores
stops      where a text ends when a stop string comes split over tokens
poems      `generate`, `stream`, `generate_many`: text -> poem
answers    `chat`, `stream_chat`, `chat_many`: a conversation -> its answer
"""

from minipoet.generation.answers import chat, chat_many, stream_chat
from minipoet.generation.beams import search_beams
from minipoet.generation.loop import Token, generate_ids, generate_steps
from minipoet.generation.noise import poem_seed
from minipoet.generation.poems import Generated, generate, generate_many, stream
from minipoet.generation.prompts import Continuation
from minipoet.generation.sampling import filter_logits
from minipoet.generation.settings import SamplingSettings
from minipoet.generation.stops import StopStrings

__all__ = [
    "Continuation",
    "Generated",
    "SamplingSettings",
    "StopStrings",
    "Token",
    "chat",
    "chat_many",
    "filter_logits",
    "generate",
    "generate_ids",
    "generate_many",
    "generate_steps",
    "poem_seed",
    "search_beams",
    "stream",
    "stream_chat",
]
