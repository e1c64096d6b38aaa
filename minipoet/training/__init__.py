"""Training: texts -> batches -> loss -> step, in one explicit loop.

batch       one step's tensors, and what has them       loss        cross-entropy in chunks
packing     texts cut, packed and put into batches
pairs       sources and texts about them, as ids       denoising   span corruption: T5's lesson from plain text
streams     windows that follow one another            carry       the state that goes on with them
mixture     several corpora in phases                  optimizers  AdamW, Adafactor, Muon, the learning rate
settings    all that a run depends on                  precision   bfloat16 where it is fast
loop        `train`                                    state       a checkpoint to resume from
history     what happened, as JSON lines               folder      where a run begins, or goes on
epochs      steps counted as passes over the texts     tracking    TensorBoard and MLflow; telling  who is told
instruction requests and poems as examples             metrics     what a trainer reports, as TRL defines it
space       what a search may draw                     search      candidates tried one by one
"""

from minipoet.training.batch import Batch, BatchSource
from minipoet.training.denoising import Denoising
from minipoet.training.epochs import best_epoch, epoch_ends
from minipoet.training.history import History, read_history
from minipoet.training.loop import TrainingDiverged, train
from minipoet.training.loss import batch_loss, cross_entropy
from minipoet.training.metrics import SFTMetrics, completion_metrics, lab_table, logged
from minipoet.training.mixture import Mixture
from minipoet.training.packing import Batches, cut, pack
from minipoet.training.pairs import Pairs, encode_pairs
from minipoet.training.precision import autocast, has_fast_bf16
from minipoet.training.settings import TrainSettings
from minipoet.training.state import load_last_weights
from minipoet.training.streams import Streams

__all__ = [
    "Batch",
    "BatchSource",
    "Batches",
    "Denoising",
    "History",
    "Mixture",
    "Pairs",
    "SFTMetrics",
    "Streams",
    "TrainSettings",
    "TrainingDiverged",
    "autocast",
    "batch_loss",
    "best_epoch",
    "completion_metrics",
    "cross_entropy",
    "cut",
    "encode_pairs",
    "epoch_ends",
    "has_fast_bf16",
    "lab_table",
    "load_last_weights",
    "logged",
    "pack",
    "read_history",
    "train",
]
