# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Products with 4-bit weights (AWQ, GPTQ) in PyTorch, for processors without AVX-512.

vLLM 0.32 builds its own, _C.cpu_gemm_wna16, for AVX-512 alone: without it a server starts, and its engine dies with the
first request. vLLM calls register() in each of its processes, by the entry point vllm.general_plugins.
"""

from __future__ import annotations

import torch

# An int32 holds the weights of eight neighbouring output channels; vLLM puts blocks of sixteen one after the other.
_PACKED = 8
_BLOCK = 16
_SCHEMA = (
    "cpu_gemm_wna16(Tensor input, Tensor q_weight, Tensor(a!) output, Tensor scales, Tensor? zeros, Tensor? bias, "
    "SymInt pack_factor, str isa_hint) -> ()"
)
_library = None
# Address of a packed weight -> (it, which keeps the address taken; the plain weight): unpacking takes longer than the
# product. It costs the memory of 32 bits for each weight.
_plain = {}


def register():
    """Define the operator where vLLM has none."""
    # An operator lives as long as its library.
    global _library
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    if _library is None and not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        _library = torch.library.Library("_C", "FRAGMENT")
        _library.define(_SCHEMA)
        _library.impl("cpu_gemm_wna16", gemm, "CPU")


def gemm(input, q_weight, output, scales, zeros, bias, pack_factor, isa_hint):
    """Write input [tokens, inputs] times the weight into output [tokens, outputs]."""
    key = q_weight.data_ptr()
    if key not in _plain:
        _plain[key] = (q_weight, unpacked(q_weight, scales, zeros))
    bias = None if bias is None else bias.float()
    output.copy_(torch.nn.functional.linear(input.float(), _plain[key][1], bias))


def unpacked(q_weight, scales, zeros):
    """Return the weight as float32 of [outputs, inputs].

    q_weight: int32 of [outputs / 16, inputs * 2]; scales: [groups, outputs]; zeros: int32 of [groups, outputs / 8], or
    None where the zero point is 8.
    """
    groups, outputs = scales.shape
    inputs = q_weight.numel() * _PACKED // outputs
    blocks = _nibbles(q_weight.view(outputs // _BLOCK, inputs, _BLOCK // _PACKED)).flatten(2)
    weight = blocks.permute(0, 2, 1).reshape(outputs, groups, inputs // groups).float()
    zero = 8.0 if zeros is None else _nibbles(zeros).reshape(groups, outputs).t().unsqueeze(2).float()
    return ((weight - zero) * scales.t().unsqueeze(2).float()).reshape(outputs, inputs)


def _nibbles(packed):
    """Return the eight numbers of four bits in each int32, the lowest first, in a dimension of their own."""
    return (packed.unsqueeze(-1) >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
