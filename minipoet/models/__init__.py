"""Models: what turns token ids into the probabilities of the next one.

base         the contract of every family              attention    who sees whom, and what is taken
gpt2         GPT-2, ruGPT3, poet-tiny                  cache        keys and values of what was read
qwen2        Qwen2, Qwen2.5, dense Qwen3               rotary       a place as an angle
decoder      the way through a transformer's blocks
rnn          RNN, GRU, LSTM                            cells        a step of each, forward and back
recurrence   the steps through a text, and back        recurrent_cache    the state of what was read
window       the last few tokens, side by side         inputs       how a recurrent model reads an id
ngram        counting: the baseline                    word2vec     vectors of words from their neighbours
checkpoint   a model from a folder, and back           weights      the tensors in a folder's files
names        published names <-> ours                  families     which class reads which model_type
memory       counting parameters and memory            layers       small shared formulae
linear       the matrix product, fast                  packed       weights laid out for writing only
"""

from minipoet.models.base import LanguageModel
from minipoet.models.checkpoint import load_model, save_model
from minipoet.models.memory import (
    Counts,
    MemoryEstimate,
    available_memory,
    count_parameters,
    peak_memory,
    training_memory,
)
from minipoet.models.packed import pack_weights
from minipoet.models.weights import CheckpointError

__all__ = [
    "CheckpointError",
    "Counts",
    "LanguageModel",
    "MemoryEstimate",
    "available_memory",
    "count_parameters",
    "load_model",
    "pack_weights",
    "peak_memory",
    "save_model",
    "training_memory",
]
