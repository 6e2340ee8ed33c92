"""Tests of the demo's model: the arithmetic of the conversion, and the folders it makes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import demo_model
import gguf
import numpy as np
import pytest
from hub import Hub
from safetensors.numpy import load_file
from tokenizers import Tokenizer, pre_tokenizers

TEXTS = ["The capital of Japan is Tokyo. 12345  x\n", "日本の首都は東京です。😀"]


def weight(rows: int, columns: int) -> np.ndarray:
    return demo_model.random_weight("weight", rows, columns)


def permute(rows: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to q and k."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def test_pack_awq_and_back() -> None:
    codes = np.random.default_rng(1).integers(0, 16, (6, 40)).astype(np.uint8)
    packed = demo_model.pack_awq(codes)
    assert (packed.dtype, packed.shape) == (np.int32, (6, 5))
    assert np.array_equal(demo_model.unpack_awq(packed), codes)


def test_pack_awq_order() -> None:
    assert demo_model.pack_awq(np.arange(8, dtype=np.uint8)[None]).view(np.uint32)[0, 0] == 0x75316420


def test_pack_gptq_and_back() -> None:
    codes = np.random.default_rng(1).integers(0, 16, (40, 6)).astype(np.uint8)
    packed = demo_model.pack_gptq(codes)
    assert (packed.dtype, packed.shape) == (np.int32, (5, 6))
    assert np.array_equal(demo_model.unpack_gptq(packed), codes)


def test_pack_gptq_order() -> None:
    assert demo_model.pack_gptq(np.arange(8, dtype=np.uint8)[:, None]).view(np.uint32)[0, 0] == 0x76543210


def test_gptq_tensors_are_as_autogptq_has_them() -> None:
    tensors = demo_model.gptq_tensors("x", weight(48, 96))
    assert {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()} == {
        "x.qweight": ("int32", (12, 48)),
        "x.qzeros": ("int32", (3, 6)),
        "x.scales": ("float16", (3, 48)),
        "x.g_idx": ("int32", (96,)),
    }
    assert np.all(tensors["x.qzeros"] == 0x77777777)
    assert tensors["x.g_idx"].tolist() == [0] * 32 + [1] * 32 + [2] * 32


def test_unpermute_is_the_inverse() -> None:
    rows = weight(192, 16)
    assert not np.array_equal(permute(rows, 3), rows)
    assert np.array_equal(demo_model.unpermute(permute(rows, 3), 3), rows)


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5], ids=["around zero", "positive", "negative"])
def test_quantisation_error_is_half_a_scale(shift: float) -> None:
    exact = weight(48, 96) + np.float32(shift)
    tensors = demo_model.awq_tensors("x", exact)
    assert tensors["x.qweight"].shape == (96, 6)
    assert tensors["x.qzeros"].shape == (3, 6)
    assert tensors["x.scales"].shape == (3, 48)
    again = demo_model.dequantise(tensors["x.qweight"], tensors["x.qzeros"], tensors["x.scales"])
    scale = np.repeat(tensors["x.scales"].astype(np.float32), 32, axis=0).T
    assert np.all(np.abs(again - exact) <= 0.51 * scale)


@pytest.mark.parametrize("shift", [0.0, 0.5, -0.5], ids=["around zero", "positive", "negative"])
def test_gptq_error_is_half_a_scale(shift: float) -> None:
    exact = weight(48, 96) + np.float32(shift)
    tensors = demo_model.gptq_tensors("x", exact)
    scale = np.repeat(tensors["x.scales"].astype(np.float32), 32, axis=0).T
    assert np.all(scale > 0)
    assert np.all(np.abs(demo_model.dequantise_gptq(*tensors.values()) - exact) <= 0.51 * scale)
    assert np.all(scale <= 1.001 * np.abs(exact).max() / 7.5)


def test_zero_stays_zero() -> None:
    zero = np.zeros((8, 32), dtype=np.float32)
    assert not demo_model.dequantise(*demo_model.awq_tensors("x", zero).values()).any()
    assert not demo_model.dequantise_gptq(*demo_model.gptq_tensors("x", zero).values()).any()


def test_tiny_is_deterministic_and_loads(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert demo_model.main(["--tiny", "--output", str(tmp_path / name)]) == 0
    assert demo_model.listing(tmp_path / "a") == demo_model.listing(tmp_path / "b")
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a").iterdir()} == {0o644}
    assert sum(file.stat().st_size for file in (tmp_path / "a").iterdir()) < 1e6

    config = json.loads((tmp_path / "a/config.json").read_text())
    assert config["quantization_config"]["quant_method"] == "awq"
    tensors = load_file(tmp_path / "a/model.safetensors")
    assert len(tensors) == 2 + config["num_hidden_layers"] * (2 + 7 * 3)
    assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], config["hidden_size"])
    query = tensors["model.layers.1.self_attn.q_proj.qweight"]
    assert query.shape == (config["hidden_size"], config["num_attention_heads"] * config["head_dim"] // 8)

    tokenizer = Tokenizer.from_file(str(tmp_path / "a/tokenizer.json"))
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in TEXTS] == TEXTS


def test_tiny_has_the_same_bytes_everywhere(tmp_path: Path) -> None:
    """Changes only together with demo_model.VERSION."""
    demo_model.build(tmp_path / "tiny", "tiny", demo_model.tiny)
    assert demo_model.VERSION == 1
    assert (
        demo_model.file_sha256(tmp_path / "tiny/model.safetensors")
        == "ae41eabae9ea3c2a9eb7822d1aa0e5f499b86afaabe45753bcc9beda33b4df0b"
    )


def test_second_run_leaves_it_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--tiny", "--output", str(tmp_path / "org/name")]
    assert demo_model.main(command) == 0
    before = (tmp_path / "org/name").stat()
    assert demo_model.main(command) == 0
    assert "up to date" in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "org/name").stat() == before


@pytest.mark.parametrize("damage", ["changed", "missing", "other input", "killed before the note", "killed after it"])
def test_anything_else_is_made_again(tmp_path: Path, damage: str) -> None:
    output = tmp_path / "name"
    demo_model.build(output, "tiny", demo_model.tiny)
    whole = demo_model.listing(output)
    if damage == "changed":
        with (output / "model.safetensors").open("r+b") as stream:
            stream.seek(-1, os.SEEK_END)
            stream.write(b"\x55")
    elif damage == "missing":
        (output / "config.json").unlink()
    elif damage == "killed before the note":
        output.rename(tmp_path / ".name.new")
        (tmp_path / "name.demo_model.json").unlink()
    elif damage == "killed after it":
        output.rename(tmp_path / ".name.old")
    origin = "other" if damage == "other input" else "tiny"
    assert demo_model.build(output, origin, demo_model.tiny)
    assert demo_model.listing(output) == whole
    assert {path.name for path in tmp_path.iterdir()} == {"name", "name.demo_model.json", ".name.lock"}


def test_a_folder_of_someone_else_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("")
    assert demo_model.main(["--tiny", "--output", str(tmp_path)]) == 1
    assert "was not made by this tool" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").exists()


def test_a_failure_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no GGUF at all" * 10)
    assert demo_model.main(["--gguf", str(tmp_path / "bad.gguf"), "--output", str(tmp_path / "name")]) == 1
    assert "cannot be read as GGUF" in capsys.readouterr().err
    assert not (tmp_path / "name").exists()


def write_gguf(file: Path) -> dict[str, np.ndarray]:
    """Writes a llama of one layer as llama.cpp would, and returns the weights as the Hub would have them."""
    hidden, intermediate, heads, kv_heads = 64, 96, 4, 2
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(intermediate)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 257)
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("a template")
    exact = {
        "self_attn.q_proj": weight(hidden, hidden),
        "self_attn.k_proj": weight(hidden // 2, hidden),
        "self_attn.v_proj": weight(hidden // 2, hidden),
        "self_attn.o_proj": weight(hidden, hidden),
        "mlp.gate_proj": weight(intermediate, hidden),
        "mlp.up_proj": weight(intermediate, hidden),
        "mlp.down_proj": weight(hidden, intermediate),
    }
    for name, (stored, permuted) in demo_model.LINEARS.items():
        rows = (
            permute(exact[name], {"head_count": heads, "head_count_kv": kv_heads}[permuted])
            if permuted
            else exact[name]
        )
        data = gguf.quantize(rows, gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(f"blk.0.{stored}.weight", data, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(hidden, dtype=np.float32))
    writer.add_tensor("token_embd.weight", weight(len(tokens), hidden))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return exact


def test_gguf_becomes_the_hubs_llama(tmp_path: Path) -> None:
    exact = write_gguf(tmp_path / "model.gguf")
    assert demo_model.main(["--gguf", str(tmp_path / "model.gguf"), "--output", str(tmp_path / "org/name")]) == 0

    config = json.loads((tmp_path / "org/name/config.json").read_text())
    expected = {
        "rope_theta": 100000,
        "rms_norm_eps": 1e-05,
        "head_dim": 16,
        "num_key_value_heads": 2,
        "eos_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected
    tensors = load_file(tmp_path / "org/name/model.safetensors")
    assert np.allclose(tensors["model.embed_tokens.weight"], weight(260, 64), atol=1e-3)
    for name, weights in exact.items():
        parts = (tensors[f"model.layers.0.{name}.{part}"] for part in ("qweight", "qzeros", "scales"))
        # A step is 1/15 of a group's range; Q4_1 and AWQ each may be off by half of one.
        assert np.abs(demo_model.dequantise(*parts) - weights).max() < np.ptp(weights) / 15

    tokenizer = Tokenizer.from_file(str(tmp_path / "org/name/tokenizer.json"))
    assert tokenizer.encode("a t12<|im_end|>").tokens == ["a", "Ġt", "1", "2", "<|im_end|>"]
    assert [tokenizer.decode(tokenizer.encode(text).ids) for text in TEXTS] == TEXTS
    assert json.loads((tmp_path / "org/name/tokenizer_config.json").read_text())["chat_template"] == "a template"


# By form: the commit ids as they are served, and what its config.json and card say. The ids change only together with
# demo_model.VERSION.
FORMS = {
    "awq": (
        "d660f6010bb0a0994a559906554053242a904028",
        {"quant_method": "awq", "zero_point": True},
        "AWQ 4-bit",
        "[awq, demo]",
    ),
    "gptq": (
        "6112484152f0553bb704804f92c133a10ebefb27",
        {"quant_method": "gptq", "sym": True, "desc_act": False},
        "GPTQ 4-bit",
        "[gptq, demo]",
    ),
    "fp16": ("7d2bf501b0859d9402976955088c46cfff86fcff", None, "fp16", "[demo]"),
}


def test_forms_are_those_tested() -> None:
    assert set(FORMS) == set(demo_model.FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_has_the_same_bytes_everywhere(tmp_path: Path, form: str) -> None:
    write_gguf(tmp_path / "model.gguf")
    files = demo_model.convert(tmp_path / "model.gguf", "a hash", demo_model.FORMS[form])
    demo_model.build(tmp_path / "org/name", "x", lambda: files)
    assert demo_model.VERSION == 1
    with Hub(tmp_path) as served:
        assert served.snapshot("org/name").commit == FORMS[form][0]


@pytest.mark.parametrize("form", FORMS)
def test_config_and_card_are_of_the_form(tmp_path: Path, form: str) -> None:
    _commit, quantization, title, tags = FORMS[form]
    write_gguf(tmp_path / "model.gguf")
    command = ["--gguf", str(tmp_path / "model.gguf"), "--form", form, "--output", str(tmp_path / "name")]
    assert demo_model.main(command) == 0
    config = json.loads((tmp_path / "name/config.json").read_text())
    if quantization is None:
        assert "quantization_config" not in config
    else:
        expected = {**quantization, "bits": 4, "group_size": 32}
        assert {key: config["quantization_config"][key] for key in expected} == expected
    card = (tmp_path / "name/README.md").read_text()
    assert f"\n# SmolLM2-135M-Instruct, {title}\n" in card
    assert f"\ntags: {tags}\n" in card
    others = {"AWQ", "GPTQ"} - {title.split()[0]}
    assert not any(other in card for other in others)


def test_every_form_is_the_same_model(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf")
    for form in FORMS:
        command = ["--gguf", str(tmp_path / "model.gguf"), "--form", form, "--output", str(tmp_path / form)]
        assert demo_model.main(command) == 0
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert len({(tmp_path / form / name).read_bytes() for form in FORMS}) == 1
    awq, gptq, fp16 = (load_file(tmp_path / form / "model.safetensors") for form in FORMS)
    for name in demo_model.LINEARS:
        layer = f"model.layers.0.{name}"
        plain = fp16[f"{layer}.weight"].astype(np.float32)
        for again in (
            demo_model.dequantise(*(awq[f"{layer}.{part}"] for part in ("qweight", "qzeros", "scales"))),
            demo_model.dequantise_gptq(*(gptq[f"{layer}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx"))),
        ):
            assert again.shape == plain.shape
            assert np.linalg.norm(again - plain) < 0.12 * np.linalg.norm(plain)
    # Beside the linear layers nothing differs.
    linear = {f"model.layers.0.{name}.weight" for name in demo_model.LINEARS}
    assert set(fp16) - set(awq) == set(fp16) - set(gptq) == linear
    for name in set(fp16) - linear:
        assert np.array_equal(awq[name], fp16[name])
        assert np.array_equal(gptq[name], fp16[name])


def test_another_form_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "model.gguf")
    command = ["--gguf", str(tmp_path / "model.gguf"), "--output", str(tmp_path / "name")]
    origins = []
    for form in FORMS:
        for state in ("made in", "up to date"):
            assert demo_model.main([*command, "--form", form]) == 0
            assert state in capsys.readouterr().out
        origins.append(json.loads((tmp_path / "name.demo_model.json").read_text())["origin"])
    hashed = demo_model.file_sha256(tmp_path / "model.gguf")
    assert origins == [hashed, f"{hashed} gptq", f"{hashed} fp16"]  # awq as before there were others


def test_tiny_is_awq_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        demo_model.main(["--tiny", "--form", "gptq", "--output", str(tmp_path / "name")])
    assert "the model of --tiny is awq" in capsys.readouterr().err
