"""Tests of the catalogue: what is refused and in which words, what is completed, what the lock means."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import (
    KEYS,
    MODEL_KEYS,
    CatalogueError,
    read_catalogue,
    unlocked,
)
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import Network

ROLES = Path(__file__).resolve().parents[2] / "roles"
COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
KEY = "sk-Abc123-secret"
ADDRESSES = {"gpu1": "192.0.2.11", "gpu2": "192.0.2.12", "lb1": "192.0.2.1"}
HOSTS = {"vllm": ["gpu1", "gpu2"], "first": ["gpu1"], "second": ["gpu2"], "gpu1": ["gpu1"]}


def network(**groups: list[str]) -> Network:
    return Network(ADDRESSES.get, lambda pattern: list({**HOSTS, **groups}.get(pattern, [])), groups)


def read(deployments: Any, locked: dict | None = None) -> list[dict]:
    return read_catalogue(deployments, network(), locked or {}, "image:1")[0]


def one(**keys: Any) -> dict[str, Any]:
    """A good deployment with these keys; a key that is ... is left out."""
    entry = {"name": "chat", "model": {"repo_id": "org/name"}, **keys}
    return {key: value for key, value in entry.items() if value is not ...}


def model(**keys: Any) -> dict[str, Any]:
    return one(model={"repo_id": "org/name", **keys})


def refused(deployments: Any) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        read(deployments)
    assert str(caught.value).startswith(f"{len(caught.value.problems)} problem")
    return caught.value.problems


ALL_FILES = {"allow_patterns": [], "ignore_patterns": [], "weights": "safetensors_only"}

BROKEN = [
    # the whole
    (
        {"name": "chat"},
        "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item that "
        "begins with '- name:'",
    ),
    (
        "chat",
        "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item that "
        "begins with '- name:'",
    ),
    (
        None,
        "vllm_deployments is missing or no list: write it into group_vars/all.yml, each deployment an item that "
        "begins with '- name:'",
    ),
    (["chat"], "deployment 1 is no dictionary: write name, model and so on as its keys"),
    # keys
    ([one(prot=1)], "deployment 'chat' has the unknown key 'prot': did you mean 'port'?"),
    ([one(engine_arg={})], "deployment 'chat' has the unknown key 'engine_arg': did you mean 'engine_args'?"),
    (
        [one(zzz=1)],
        "deployment 'chat' has the unknown key 'zzz': it takes " + ", ".join(sorted(KEYS)),
    ),
    ([model(repo="x")], "deployment 'chat': model has the unknown key 'repo': did you mean 'repo_id'?"),
    ([one(**{"1": 1})], "deployment 'chat' has the unknown key '1': it takes " + ", ".join(sorted(KEYS))),
    # what is needed
    ([one(name=...)], "deployment 1 has no name: add it"),
    ([one(name="")], "deployment 1 has no name: add it"),
    ([one(), one(name=None)], "deployment 2 has no name: add it"),
    ([one(model=...)], "deployment 'chat' has no model: add it"),
    ([one(model={"revision": "main"})], "deployment 'chat': model has no repo_id: add it"),
    # types
    ([one(port=True)], "deployment 'chat': port is True, it takes a number"),
    ([one(port="30080")], "deployment 'chat': port is '30080', it takes a number"),
    ([one(name=7)], "deployment 1: name is 7, it takes text"),
    ([one(model="org/name")], "deployment 'chat': model is 'org/name', it takes a dictionary"),
    ([one(hosts=["gpu1"])], "deployment 'chat': hosts is ['gpu1'], it takes text"),
    ([one(engine_args=["--x"])], "deployment 'chat': engine_args is ['--x'], it takes a dictionary"),
    ([one(served_model_names="a")], "deployment 'chat': served_model_names is 'a', it takes a list"),
    ([one(served_model_names=[70])], "deployment 'chat': served_model_names has 70, which is no text: quote it"),
    ([one(allow_unauthenticated="yes")], "deployment 'chat': allow_unauthenticated is 'yes', it takes true or false"),
    ([one(cpus=[])], "deployment 'chat': cpus is [], it takes text or a number"),
    ([one(cpus=True)], "deployment 'chat': cpus is True, it takes text or a number"),
    ([one(gpus=1.5)], "deployment 'chat': gpus is 1.5, it takes text or a number or a list"),
    ([one(environment="A=b")], "deployment 'chat': environment is 'A=b', it takes a dictionary"),
    ([model(revision=1.0)], "deployment 'chat': model: revision is 1.0, it takes text"),
    ([model(allow_patterns="*.json")], "deployment 'chat': model: allow_patterns is '*.json', it takes a list"),
    ([model(ignore_patterns=[1])], "deployment 'chat': model: ignore_patterns has 1, which is no text: quote it"),
    # further models and mounts
    (
        [one(snapshots={"draft": "org/x"})],
        "deployment 'chat': snapshots.draft is no dictionary: write repo_id and revision as its keys",
    ),
    ([one(snapshots={"draft": {}})], "deployment 'chat': snapshots.draft has no repo_id: add it"),
    (
        [one(snapshots={"draft": {"repo_id": "org/x", "revison": "v1"}})],
        "deployment 'chat': snapshots.draft has the unknown key 'revison': did you mean 'revision'?",
    ),
    (
        [one(snapshots={"draft": {"repo_id": "x"}})],
        "deployment 'chat': repo_id 'x' is not of the form organisation/name",
    ),
    (
        [one(engine_args={"tokenizer": "snapshot:tok"})],
        "deployment 'chat': engine_args: snapshot:tok is named, and snapshots has none: add it there",
    ),
    ([one(mounts=["/srv"])], "deployment 'chat': mount 1 is no dictionary: write source and target as its keys"),
    ([one(mounts=[{"source": "/srv"}])], "deployment 'chat': mount 1 has no target: add it"),
    ([one(tls_key="/a")], "deployment 'chat': tls_certificate and tls_key go together: name both files, or none"),
    # options of vLLM, where the tag tells which it is
    (
        [one(image="vllm/vllm-openai:v0.32.0", engine_args={"max_modle_len": 1})],
        "deployment 'chat': engine_args: vLLM 0.32.0 has no option max_modle_len: did you mean max_model_len or max_log_len?",
    ),
    (
        [one(image="vllm/vllm-openai:v0.32.0", engine_args={"swap_space": 8}, translate_engine_args=False)],
        "deployment 'chat': engine_args: swap_space is gone since vLLM 0.18.0: leave it out: vLLM recomputes instead of swapping",
    ),
    (
        [one(gpus=[0, 1], engine_args={"tensor_parallel_size": 4})],
        "deployment 'chat': engine_args spread the model over 4 GPUs (tensor_parallel_size 4, pipeline_parallel_size 1), "
        "and gpus gives 2: give more, or spread it less",
    ),
    # chat templates
    (
        [one(chat_template="vicunia")],
        "deployment 'chat': no chat template 'vicunia' is shipped: did you mean 'vicuna'?",
    ),
    (
        [one(chat_template="{{ message }}")],
        "deployment 'chat': the text of chat_template cannot render a conversation of user and assistant: what the user says is not in what it renders "
        "(messages is what it has to go through)",
    ),
    # values
    (
        [model(weights="pickle")],
        "deployment 'chat': weights 'pickle' is not one of safetensors_only, any",
    ),
    (
        [one(name="Chat")],
        "deployment 'Chat': a name has two or more of a-z, 0-9, '.', '_' and '-', and begins with a-z or 0-9",
    ),
    (
        [one(name="chat\n")],
        "deployment 'chat\n': a name has two or more of a-z, 0-9, '.', '_' and '-', and begins with a-z or 0-9",
    ),
    (
        [one(container_name="my vllm")],
        "deployment 'chat': container_name 'my vllm' is none for Docker: "
        "it has two or more of letters, digits, '.', '_' and '-'",
    ),
    ([one(model={"repo_id": "gpt2"})], "deployment 'chat': repo_id 'gpt2' is not of the form organisation/name"),
    ([one(model={"repo_id": "a/b/c"})], "deployment 'chat': repo_id 'a/b/c' is not of the form organisation/name"),
    ([one(model={"repo_id": "../b"})], "deployment 'chat': repo_id '../b' is not of the form organisation/name"),
    (
        [one(hosts="gpus")],
        "deployment 'chat': hosts 'gpus' matches no host of the inventory: name a group or a host of it",
    ),
    ([one(port=0)], "deployment 'chat': port 0 is not between 1 and 65535"),
    ([one(port=65536)], "deployment 'chat': port 65536 is not between 1 and 65535"),
    ([one(task="chat")], "deployment 'chat': task 'chat' is not one of generate, embed, score"),
    (
        [one(probe_checks=["http", "vibes"])],
        "deployment 'chat': probe_checks has 'vibes', which is not one of http, models, template, chat, completion, "
        "embeddings, score, metrics, progress",
    ),
    ([one(gpus=0)], "deployment 'chat': gpus is 0: it takes all, none, a count, or a list of indices or UUIDs"),
    ([one(gpus="2")], "deployment 'chat': gpus is '2': it takes all, none, a count, or a list of indices or UUIDs"),
    ([one(gpus=[])], "deployment 'chat': gpus is []: it takes all, none, a count, or a list of indices or UUIDs"),
    # who can reach it
    (
        [one(listen="0.0.0.0")],
        "deployment 'chat' would listen on 0.0.0.0 without an API key: set api_key, listen on 127.0.0.1, or set "
        "allow_unauthenticated if everybody may use it",
    ),
    (
        [one(listen="192.0.2.1", api_key="")],
        "deployment 'chat' would listen on 192.0.2.1 without an API key: set api_key, listen on 127.0.0.1, or set "
        "allow_unauthenticated if everybody may use it",
    ),
    *[
        (
            [one(listen=listen, api_key=KEY)],
            f"deployment 'chat': listen is '{listen}', it takes an IPv4 address of the host, or "
            "'internal' for its vllm_internal_address: Docker publishes no port on a name",
        )
        for listen in ("localhost", "gpu1.example.com", "", "1.2.3", "1.2.3.400")
    ],
    # engine_args
    *[
        (
            [one(engine_args={given: 1})],
            f"deployment 'chat': engine_args has '{given}': use the deployment's own key '{key}'",
        )
        for given, key in (
            ("port", "port"),
            ("host", "listen"),
            ("model", "model"),
            ("model-tag", "model"),
            ("api_key", "api_key"),
            ("api-key", "api_key"),
            ("--api-key", "api_key"),
            ("chat-template", "chat_template"),
            ("served_model_name", "served_model_names"),
            ("served-model-name", "served_model_names"),
        )
    ],
    # two of them
    ([one(), one(port=1)], "two deployments are named 'chat': rename one of them"),
    (
        [one(), one(name="code", hosts="second", gpus="none")],
        "'chat' and 'code' both want the port 30080 of gpu2: change one of them",
    ),
    (
        [one(container_name="vllm"), one(name="code", port=1, container_name="vllm", gpus="none")],
        "'chat' and 'code' both want the container_name vllm of gpu1: change one of them",
    ),
    (
        [one(), one(name="code", port=1, container_name="chat", gpus="none")],
        "'chat' and 'code' both want the container_name chat of gpu1: change one of them",
    ),
]


@pytest.mark.parametrize(("deployments", "sentence"), BROKEN, ids=range(len(BROKEN)))
def test_one_mistake_gives_one_sentence(deployments: Any, sentence: str) -> None:
    given = copy.deepcopy(deployments)
    assert refused(given) == [sentence]
    assert given == deployments


def test_all_problems_are_found_at_once() -> None:
    deployments = [
        one(port=True, prot=1, model={"repo_id": "org/name", "branch": "main", "revision": 1}),
        "x",
        one(name="code", listen="0.0.0.0", gpus=0, engine_args={"port": 1, "host": 2}, hosts="nobody"),
        one(name="code"),
    ]
    problems = refused(deployments)
    assert problems == [
        "deployment 'chat': port is True, it takes a number",
        "deployment 'chat' has the unknown key 'prot': did you mean 'port'?",
        "deployment 'chat': model has the unknown key 'branch': it takes allow_patterns, ignore_patterns, repo_id, "
        "revision, weights",
        "deployment 'chat': model: revision is 1, it takes text",
        "deployment 2 is no dictionary: write name, model and so on as its keys",
        "deployment 'code': hosts 'nobody' matches no host of the inventory: name a group or a host of it",
        "deployment 'code' would listen on 0.0.0.0 without an API key: set api_key, listen on 127.0.0.1, or set "
        "allow_unauthenticated if everybody may use it",
        "deployment 'code': gpus is 0: it takes all, none, a count, or a list of indices or UUIDs",
        "deployment 'code': engine_args has 'port': use the deployment's own key 'port'",
        "deployment 'code': engine_args has 'host': use the deployment's own key 'listen'",
        "two deployments are named 'code': rename one of them",
    ]
    with pytest.raises(CatalogueError) as caught:
        read(deployments)
    assert str(caught.value) == "11 problems in the inventory:\n" + "\n".join(f"- {line}" for line in problems)


def test_one_problem_is_not_counted_as_many() -> None:
    with pytest.raises(CatalogueError, match=r"^1 problem in the inventory:\n- deployment 1 is no dictionary"):
        read([1])


GOOD = [
    [],
    [one()],
    [one(listen="127.0.0.2")],
    [one(listen="0.0.0.0", api_key=KEY)],
    [one(listen="192.0.2.1", allow_unauthenticated=True)],
    [one(gpus=2), one(name="code", port=1, gpus=[2, "GPU-5f2a"])],
    [one(hosts="first"), one(name="code", hosts="second")],
    [one(hosts="first", container_name="vllm"), one(name="code", hosts="second", container_name="vllm")],
    [one(engine_args={"max_model_len": 4095, "enforce-eager": True, "ports": 1})],
    [one(cpus=1.5), one(name="code", cpus=2, port=1, gpus="none"), one(name="more", cpus="2", port=2, gpus="none")],
    [one(name="a.b_c-1", port=1), one(name="70b", port=65535, gpus="none")],
    [one(pids_limit=512), one(name="code", pids_limit="512", port=1, gpus="none")],
    # a key without a value is one that was left out
    [one(**{key: None for key in KEYS if key not in ("name", "model")})],
    [model(revision=None, allow_patterns=None)],
]


@pytest.mark.parametrize("deployments", GOOD, ids=range(len(GOOD)))
def test_a_good_catalogue_has_no_problem(deployments: list[dict]) -> None:
    given = copy.deepcopy(deployments)
    assert [entry["name"] for entry in read(given)] == [entry["name"] for entry in deployments]
    assert given == deployments


def test_a_deployment_is_completed() -> None:
    before = copy.deepcopy((KEYS, MODEL_KEYS))
    (entry,) = read([one()])
    assert set(entry) == set(KEYS) - {"api_key"} | {
        "has_api_key",
        "pattern",
        "wanted_snapshots",
        "addresses",
        "reached_at",
        "allowed",
        "balanced",
    }
    assert entry["hosts"] == ["gpu1", "gpu2"]
    assert entry["pattern"] == "vllm"
    assert entry["image"] == "image:1"
    assert entry["container_name"] == entry["hostname"] == "chat"
    assert entry["served_model_names"] == ["chat"]
    assert entry["model"] == {
        "repo_id": "org/name",
        "revision": "main",
        **ALL_FILES,
        "commit": "",
        "folder": "org--name/unknown",
    }
    (entry,) = read([one(container_name="vllm", image="image:2", served_model_names=["a", "b"])])
    assert (entry["image"], entry["hostname"], entry["served_model_names"]) == ("image:2", "vllm", ["a", "b"])
    assert before == (KEYS, MODEL_KEYS)


@pytest.mark.parametrize(
    "deployment",
    [
        one(api_key=KEY),
        one(api_key=KEY, listen="0.0.0.0"),
        one(api_key=KEY, gpus=0, port="x", prot=1),
        one(api_key=KEY, gpus=0),
        one(api_key=[KEY]),
        one(api_key={"key": KEY}),
        one(api_key=KEY + "\n"),
        one(api_kye=KEY),
        one(apikey=[KEY]),
    ],
)
def test_the_api_key_is_never_told(deployment: dict) -> None:
    try:
        (entry,) = read([deployment])
    except CatalogueError as error:
        assert KEY not in str(error) + repr(error.__context__)
    else:
        assert KEY not in json.dumps(entry)
        assert "api_key" not in entry
        assert entry["has_api_key"] is True


def test_a_key_given_as_a_number_is_a_secret_all_the_same() -> None:
    assert refused([one(api_key=1234567)]) == ["deployment 'chat': api_key is of another type, it takes text"]


@pytest.mark.parametrize("key", [KEY + "\n", "two words", " ", "schlüssel"])
def test_a_key_that_no_client_can_send(key: str) -> None:
    assert refused([one(api_key=key)]) == [
        "deployment 'chat': api_key has a space, a line break or a character that is not ASCII, "
        "which no client could send: correct it"
    ]


def test_no_key_is_no_key() -> None:
    assert [read([one(api_key=key)])[0]["has_api_key"] for key in ("", None)] == [False, False]


LOCK = {"org/name": {"main": COMMIT, "v1": "1" * 40}}


@pytest.mark.parametrize(
    ("revision", "locked", "commit"),
    [
        (None, {}, ""),
        ("", {}, ""),
        ("main", {}, ""),
        ("main", LOCK, COMMIT),
        ("", LOCK, COMMIT),
        ("v1", LOCK, "1" * 40),
        ("v2", LOCK, ""),
        ("main", {"org/other": {"main": COMMIT}}, ""),
        (COMMIT, {}, COMMIT),
        (COMMIT, {"org/name": {COMMIT: "1" * 40}}, COMMIT),
        (COMMIT[:12], LOCK, ""),
        (COMMIT.upper(), LOCK, ""),
    ],
)
def test_what_a_revision_means(revision: str | None, locked: dict, commit: str) -> None:
    (entry,) = read([model(revision=revision, allow_patterns=["*.json"])], locked)
    assert entry["model"]["commit"] == commit
    assert entry["model"]["revision"] == (revision or "main")
    brought = {"repo_id": "org/name", "revision": commit, **ALL_FILES, "allow_patterns": ["*.json"]}
    assert entry["wanted_snapshots"] == ([brought] if commit else [])
    assert entry["model"]["folder"] == f"org--name/{commit or 'unknown'}"
    assert unlocked([entry]) == ([] if commit else [dict(brought, revision=revision or "main")])


def test_unlocked_lists_each_model_once_in_order() -> None:
    deployments = [
        one(name="d1", port=1, gpus=[1], model={"repo_id": "org/b"}),
        one(name="d2", port=2, gpus=[2], model={"repo_id": "org/a", "revision": "v2"}),
        one(name="d3", port=3, gpus=[3], model={"repo_id": "org/b", "revision": "main"}),
        one(name="d4", port=4, gpus=[4], model={"repo_id": "org/a"}),
        one(name="d5", port=5, gpus=[5], model={"repo_id": "org/c", "revision": COMMIT}),
        one(name="d6", port=6, gpus=[6], model={"repo_id": "org/name"}),
    ]
    assert unlocked(read(deployments, LOCK)) == [
        {"repo_id": "org/b", "revision": "main", **ALL_FILES},
        {"repo_id": "org/a", "revision": "v2", **ALL_FILES},
        {"repo_id": "org/a", "revision": "main", **ALL_FILES},
    ]


def load(path: str) -> Any:
    return yaml.safe_load((ROLES / path).read_text())


@pytest.mark.parametrize("image", ["own/vllm:v0.32.0", "vllm/vllm-openai:latest", "vllm/vllm-openai:v0.4.0"])
def test_options_of_an_image_that_tells_no_version_wait_for_the_image(image: str) -> None:
    (entry,) = read([one(image=image, engine_args={"brand_new_option": 1})])
    assert entry["engine_args"] == {"brand_new_option": 1}


def test_further_models_are_locked_and_brought_like_the_first() -> None:
    snapshots = {"draft": {"repo_id": "org/draft", "revision": "v1"}, "tok": {"repo_id": "org/tok", "revision": COMMIT}}
    (entry,) = read(
        [one(snapshots=snapshots, engine_args={"tokenizer": "snapshot:tok"})], {"org/name": {"main": COMMIT}}
    )
    assert [model["repo_id"] for model in entry["wanted_snapshots"]] == ["org/name", "org/tok"]
    assert entry["snapshots"]["tok"]["folder"] == f"org--tok/{COMMIT}"
    assert [model["repo_id"] for model in unlocked([entry])] == ["org/draft"]


def test_the_defaults_are_those_of_the_role() -> None:
    defaults = load("vllm_server/defaults/main.yml")
    # Of the rollout, or of the firewall, and not of the server.
    no_variable = {"hosts", "model", "allow_from", "min_available", "drain_timeout"}
    # None: needed, or made of other keys, as the role's default is a template or empty.
    by_others = {"name", "container_name", "hostname", "image", "served_model_names"}
    assert {key for key, (_types, default) in KEYS.items() if default is None} == by_others | {"model", "allow_from"}
    for key, (_types, default) in KEYS.items():
        if key not in no_variable:
            variable = defaults[f"vllm_server_{key}"]
            if key not in by_others:
                assert (variable, type(variable)) == (default, type(default)), key
    role_only = {"state", "model_path", "home", "secrets_dir", "secure_logging"}
    assert set(defaults) == {f"vllm_server_{key}" for key in set(KEYS) - no_variable | role_only}


def test_the_models_keys_are_those_of_the_role() -> None:
    options = load("model_snapshot/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    models = options["model_snapshot_models"]["options"]
    # What is served is a model.
    assert set(models) == {*MODEL_KEYS, "repo_type"}
    types = {"str": str, "list": list}
    assert {key: types[spec["type"]] for key, spec in models.items() if key in MODEL_KEYS} == {
        key: kind for key, (kind, _default) in MODEL_KEYS.items()
    }
    assert [key for key, spec in models.items() if spec.get("required")] == ["repo_id"]
