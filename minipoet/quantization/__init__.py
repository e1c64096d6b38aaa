"""Quantization: the weights of a model in four bits, or eight, three or two.

grid         which numbers the codes stand for         words        codes side by side in 32-bit words
gptq         rounding that mends what it breaks        nf4          a grid for normal weights, without text
calibrate    a whole model, block by block             readings     what a layer reads of the text
layer        linear layers with packed weights         kernels      multiplying packed numbers at once, on a CPU
checkpoint   GPTQ's files, read and written
whole        of a whole model: its layers, its bytes, and plain weights again
"""

from minipoet.quantization.calibrate import quantize
from minipoet.quantization.checkpoint import is_quantized, load_quantized, quantization_of, save_quantized
from minipoet.quantization.gptq import Hessian, gptq
from minipoet.quantization.grid import Codes, QuantConfig, round_to_nearest
from minipoet.quantization.kernels import pack_for_speed
from minipoet.quantization.layer import FewBitLinear, GPTQLinear
from minipoet.quantization.nf4 import NF4Linear
from minipoet.quantization.whole import dequantize, few_bit_layers, packed_bytes

__all__ = [
    "Codes",
    "FewBitLinear",
    "GPTQLinear",
    "Hessian",
    "NF4Linear",
    "QuantConfig",
    "dequantize",
    "few_bit_layers",
    "gptq",
    "is_quantized",
    "load_quantized",
    "pack_for_speed",
    "packed_bytes",
    "quantization_of",
    "quantize",
    "round_to_nearest",
    "save_quantized",
]
