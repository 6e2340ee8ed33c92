"""Tests of which files of a repository are taken."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._selection import Choice, select
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, SnapshotError

LLAMA = ["config.json", "model-1.safetensors", "original/consolidated.pth", "original/params.json", "README.md"]
OLD = ["config.json", "pytorch_model.bin", "tokenizer.json"]
BOTH = ["config.json", "model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot"]
NESTED = ["model.safetensors", "onnx/model.onnx", "vae/weights.safetensors", "vae/weights.bin", "other/weights.pt"]


def chosen(paths: list[str], allow: list[str], ignore: list[str], weights: str | None) -> tuple[list[str], list[str]]:
    files = [HubFile(path, 1, None, "b" * 40) for path in paths]
    taken, left_out = select(files, Choice(allow, ignore, weights), "org/name at commit")
    return [f.path for f in taken], sorted(f.path for f in left_out)


@pytest.mark.parametrize(
    ("paths", "allow", "ignore", "weights", "taken", "left_out"),
    [
        (LLAMA, [], [], "any", ["config.json", "model-1.safetensors", "README.md"], LLAMA[2:4]),
        (LLAMA, [], ["*.md"], "any", ["config.json", "model-1.safetensors"], LLAMA[2:4]),
        (LLAMA, ["*"], [], "any", LLAMA, []),
        (LLAMA, ["*"], [], "safetensors_only", [*LLAMA[:2], *LLAMA[3:]], ["original/consolidated.pth"]),
        (LLAMA, ["original/"], [], "any", LLAMA[2:4], []),
        # Nothing else is there: the original is the model.
        (LLAMA[2:4], [], [], "any", LLAMA[2:4], []),
        (["original/model.safetensors"], [], [], "safetensors_only", ["original/model.safetensors"], []),
        (OLD, [], [], "any", OLD, []),
        (BOTH, [], [], "safetensors_only", BOTH[:2], sorted(BOTH[2:])),
        (BOTH, [], [], "any", BOTH[:2], sorted(BOTH[2:])),
        (BOTH, [], [], None, BOTH, []),
        (OLD, [], [], None, OLD, []),
        (BOTH, [], ["*.safetensors"], "any", [BOTH[0], *BOTH[2:]], []),
        (BOTH, ["*.json", "*.h5"], [], "safetensors_only", ["config.json", "tf_model.h5"], []),
        (NESTED, [], [], "any", [*NESTED[:3], "other/weights.pt"], ["vae/weights.bin"]),
        (NESTED, [], [], "safetensors_only", NESTED[:3], ["other/weights.pt", "vae/weights.bin"]),
        (["model.gguf", "imatrix.bin"], [], [], "safetensors_only", ["model.gguf"], ["imatrix.bin"]),
        (["config.json"], [], [], "safetensors_only", ["config.json"], []),
        (["b/c.json", "d.json"], ["b/"], [], "any", ["b/c.json"], []),
        (["b/c.json", "d.json"], [], ["b/*"], "any", ["d.json"], []),
        # The whole path counts, and upper case.
        (["b/c.json", "c.json", "C.JSON"], ["*.json"], [], "any", ["b/c.json", "c.json"], []),
        (["b/c.json", "c.json"], ["c.json"], [], "any", ["c.json"], []),
        (["1.json", "2.json", "3.json"], ["[12].json"], ["[!1].json"], "any", ["1.json"], []),
        # What the patterns leave out is not said to be a duplicate; without its twin it is none.
        (BOTH, [], ["*.h5"], "any", BOTH[:2], sorted([BOTH[2], *BOTH[4:]])),
        (["a.safetensors", "original/a.safetensors"], [], ["*/*"], "any", ["a.safetensors"], []),
    ],
)
def test_what_is_taken(
    paths: list[str], allow: list[str], ignore: list[str], weights: str | None, taken: list[str], left_out: list[str]
) -> None:
    assert chosen(paths, allow, ignore, weights) == (taken, left_out)


def test_pickled_weights_alone_are_refused() -> None:
    with pytest.raises(SnapshotError) as caught:
        chosen(OLD, [], [], "safetensors_only")
    assert str(caught.value) == (
        "org/name at commit has pickled weights only (pytorch_model.bin), which can run code when they are loaded: "
        "choose a repository with safetensors, or set weights to 'any' if you trust its authors"
    )


@pytest.mark.parametrize(
    ("paths", "allow", "ignore", "alone"),
    [
        (["config.json", "pytorch_model.bin", "lora/adapter.safetensors"], [], [], "pytorch_model.bin"),
        (["pytorch_model-00001-of-2.bin", "lora/a.safetensors"], ["*"], [], "pytorch_model-00001-of-2.bin"),
        (["model.safetensors", "2_Dense/pytorch_model.bin"], [], [], "2_Dense/pytorch_model.bin"),
        (["model.safetensors", "lora/adapter_model.bin"], [], [], "lora/adapter_model.bin"),
        (["m.gguf", "unet/diffusion_pytorch_model.bin"], [], [], "unet/diffusion_pytorch_model.bin"),
        (["m.gguf", "pytorch_model.bin"], [], [], None),
        (["model.safetensors", "lora/adapter_model.bin"], [], ["lora/"], None),
        # Beside the weights; and OpenVINO's, which are no pickles.
        (["model.safetensors", "run/training_args.bin", "run/optimizer.pt", "ov/openvino_model.bin"], [], [], None),
    ],
)
def test_a_model_without_its_pickled_weights_is_none(
    paths: list[str], allow: list[str], ignore: list[str], alone: str | None
) -> None:
    assert chosen(paths, allow, ignore, "any")[0]
    if alone is None:
        assert chosen(paths, allow, ignore, "safetensors_only")[0]
        return
    with pytest.raises(SnapshotError) as caught:
        chosen(paths, allow, ignore, "safetensors_only")
    assert str(caught.value) == (
        f"org/name at commit has pickled weights ({alone}) in a folder without safetensors, which can run code when "
        "they are loaded: leave them out by ignore_patterns, or set weights to 'any' if you trust its authors"
    )


@pytest.mark.parametrize(
    ("allow", "ignore", "named"),
    [(["*.gguf"], [], "['*.gguf'] without"), ([], ["*"], "* without ignore_patterns ['*']")],
)
def test_patterns_that_let_nothing_through(allow: list[str], ignore: list[str], named: str) -> None:
    with pytest.raises(SnapshotError) as caught:
        chosen(OLD, allow, ignore, "any")
    assert str(caught.value).startswith("none of the 3 files of org/name at commit matches allow_patterns ")
    assert named in str(caught.value)
