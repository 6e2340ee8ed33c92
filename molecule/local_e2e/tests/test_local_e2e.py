"""What the deployment of the scenario promises, seen from the machine itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

URL = "http://127.0.0.1:30180"
KEY = "only-for-this-test-4b1c"
HOME = Path("/home/llm-e2e/vllm")
SCENARIO = Path(__file__).parents[1]
PROJECT = SCENARIO.parents[1]

sys.path.insert(0, str(PROJECT / "tests/support"))
from hub import Hub  # noqa: E402


def ask(path, body=None, key=KEY):
    """Return (status, document or text)."""
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    try:
        with urllib.request.urlopen(urllib.request.Request(URL + path, data, headers), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module")
def inspected(host):
    """Return what Docker says of the container."""
    return json.loads(host.check_output("docker inspect smollm2-e2e"))[0]


def answer_of(model):
    """Return what a model says of the capital of Japan."""
    question = [{"role": "user", "content": "What is the capital of Japan?"}]
    body = {"model": model, "messages": question, "temperature": 0, "max_tokens": 32}
    status, document = ask("/v1/chat/completions", body)
    assert status == 200, document
    return document["choices"][0]["message"]["content"]


@pytest.mark.parametrize("model", ["smollm2-e2e", "gpt-3.5-turbo"])
def test_a_chat_question_is_answered(model):
    assert "Tokyo" in answer_of(model)


def test_the_model_is_listed_with_its_context():
    assert {m["id"]: m["max_model_len"] for m in ask("/v1/models")[1]["data"]} == {
        "smollm2-e2e": 2048,
        "gpt-3.5-turbo": 2048,
    }


def test_the_weights_are_awq(host):
    assert "awq" in host.check_output("docker logs smollm2-e2e 2>&1").lower()


@pytest.mark.parametrize("key", [None, "wrong"])
def test_nobody_gets_in_without_the_key(key):
    assert ask("/v1/models", key=key)[0] == 401


def test_the_key_shows_nowhere(host, inspected):
    assert KEY not in json.dumps(inspected)
    assert KEY not in host.check_output("docker logs smollm2-e2e 2>&1")
    assert KEY not in host.check_output("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '; true")
    key_file = host.file("/etc/llmops-vllm-e2e/smollm2-e2e/api_key")
    assert (key_file.mode, key_file.uid) == (0o400, 2000)


def test_the_container_can_do_little(inspected):
    config = inspected["HostConfig"]
    assert config["ReadonlyRootfs"] is True
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges"]
    assert config["Privileged"] is False
    assert config["Memory"] == 6 * 1024**3
    assert config["PidsLimit"] == 512
    assert inspected["Config"]["User"] == "2000:2000"


def test_the_container_sees_its_own_files_alone(inspected):
    mounts = {mount["Destination"]: mount["RW"] for mount in inspected["Mounts"] if mount["Type"] == "bind"}
    model = next(target for target in mounts if target.startswith("/vllm/model/"))
    assert mounts == {model: False, "/cache": True, "/run/secrets/api_key": False}


def test_only_loopback_is_served(inspected):
    assert inspected["HostConfig"]["PortBindings"] == {"30180/tcp": [{"HostIp": "127.0.0.1", "HostPort": "30180"}]}


def test_docker_restarts_a_server_that_has_passed(inspected):
    assert inspected["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_container_never_asks_the_hub(inspected):
    environment = inspected["Config"]["Env"]
    assert "HF_HUB_OFFLINE=1" in environment
    assert not any(variable.startswith(("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")) for variable in environment)


def test_every_file_of_the_snapshot_is_the_hubs():
    repository = PROJECT / ".work/hub/llmops/SmolLM2-135M-Instruct-AWQ"
    (snapshot,) = (HOME / "model/llmops--SmolLM2-135M-Instruct-AWQ").iterdir()
    manifest = json.loads((snapshot / ".snapshot.json").read_text())
    assert manifest["commit"] == snapshot.name
    expected = {path.name: sha256(path) for path in repository.iterdir()}
    assert {path.name: sha256(path) for path in snapshot.iterdir() if path.name != ".snapshot.json"} == expected


def test_the_lock_file_names_the_commit():
    (snapshot,) = (HOME / "model/llmops--SmolLM2-135M-Instruct-AWQ").iterdir()
    assert f"main: {snapshot.name}" in (SCENARIO / "inventory/vllm.lock.yml").read_text()


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def deployment(**changes):
    """Return extra variables: the scenario's deployment with some keys changed."""
    base = {
        "name": "smollm2-e2e",
        "model": {"repo_id": "llmops/SmolLM2-135M-Instruct-AWQ"},
        "port": 30180,
        "gpus": "none",
        "start_timeout": 60,
    }
    return json.dumps({"vllm_deployments": [{**base, **changes}]})


REFUSALS = {
    "unknown repository": (
        {"model": {"repo_id": "llmops/no-such-model"}},
        "llmops/no-such-model on http://127.0.0.1:18765 does not exist, or is private: correct repo_id, or set "
        "vllm_hub_token to a token that may read it",
    ),
    "unknown revision": (
        {"model": {"repo_id": "llmops/SmolLM2-135M-Instruct-AWQ", "revision": "v9"}},
        "llmops/SmolLM2-135M-Instruct-AWQ on http://127.0.0.1:18765 has no revision 'v9'",
    ),
    "public without a key": (
        {"listen": "0.0.0.0"},
        "deployment 'smollm2-e2e' would listen on 0.0.0.0 without an API key",
    ),
    "misspelled key": ({"prot": 30180}, "has the unknown key 'prot': did you mean 'port'?"),
    "option with a key of its own": ({"engine_args": {"port": 1}}, "engine_args has 'port': use the deployment's own"),
}


def playbook(name, *arguments):
    """Run one of the collection's playbooks on the scenario's inventory."""
    return subprocess.run(
        ["ansible-playbook", "-i", SCENARIO / "inventory", f"llmops.vllm.{name}", *arguments],
        capture_output=True, text=True, cwd=PROJECT, timeout=300, check=False,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
    )  # fmt: skip


def words(run):
    """Return what a run printed as one line, without the quotes of YAML."""
    return " ".join((run.stdout + run.stderr).split()).replace("''", "'")


@pytest.mark.parametrize("changes, sentence", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_mistake_is_refused_and_the_server_stays(host, inspected, changes, sentence):
    run = playbook("site", "-e", deployment(**changes))
    assert run.returncode != 0
    assert sentence in words(run)
    assert KEY not in run.stdout + run.stderr
    after = json.loads(host.check_output("docker inspect smollm2-e2e"))[0]
    assert (after["Id"], after["State"]["StartedAt"]) == (inspected["Id"], inspected["State"]["StartedAt"])


@pytest.mark.parametrize("name", ["preflight", "hosts", "stage", "rollout", "verify"])
def test_each_step_runs_alone_and_changes_nothing(name):
    run = playbook(name, "--diff")
    assert run.returncode == 0, words(run)
    assert "changed=0" in run.stdout
    assert KEY not in run.stdout + run.stderr


def test_the_summary_says_what_runs_and_how_to_use_it():
    summary = playbook("verify").stdout
    for part in ("smollm2-e2e on localhost answers", URL, "vLLM 0.32.0", "Tokyo", "unchanged", "s to the first token"):
        assert part in summary
    assert "Authorization: Bearer $VLLM_API_KEY" in summary


@pytest.fixture
def strangers(host):
    """Run a container of a deployment that the catalogue does not have, and one of another inventory."""
    for name, home in {"e2e-old": HOME, "e2e-neighbour": "/srv/other"}.items():
        host.check_output(
            f"docker run -d --name {name} --label llmops.vllm.deployment={name} --label llmops.vllm.home={home} "
            "--entrypoint sleep llmops-vllm-cpu:e2e 600"
        )
    yield
    host.run("docker rm -f e2e-old e2e-neighbour")


@pytest.mark.usefixtures("strangers")
def test_a_container_that_the_catalogue_does_not_know_is_reported_and_removed_when_asked(host):
    reported = playbook("rollout")
    assert "belongs to the deployment 'e2e-old', which the catalogue does not have" in words(reported)
    assert host.check_output("docker ps -q --filter name=e2e-old")
    removed = playbook("rollout", "-e", "vllm_prune=true")
    assert removed.returncode == 0, words(removed)
    assert not host.check_output("docker ps -aq --filter name=e2e-old")
    assert host.check_output("docker ps -q --filter name=e2e-neighbour")


def test_check_mode_takes_an_edited_catalogue(host, inspected):
    run = playbook(
        "site", "--check", "--diff", "-e", deployment(port=30181, served_model_names=["other"], shm_size="512m")
    )
    assert run.returncode == 0, words(run)
    assert re.search(r'^[+] +"30181"', run.stdout, re.MULTILINE)
    after = json.loads(host.check_output("docker inspect smollm2-e2e"))[0]
    assert (after["Id"], after["State"]["StartedAt"]) == (inspected["Id"], inspected["State"]["StartedAt"])


def test_a_branch_that_moves_is_followed_only_when_asked(tmp_path):
    repository = tmp_path / "hub/llmops/moving"
    repository.mkdir(parents=True)
    (repository / "config.json").write_text("{}")
    lock = tmp_path / "vllm.lock.yml"

    def stage(*arguments):
        variables = {
            "vllm_deployments": [{"name": "moving", "model": {"repo_id": "llmops/moving"}}],
            "vllm_hub_endpoint": hub.url,
            "vllm_lock_file": str(lock),
        }
        run = playbook("stage", "-e", json.dumps(variables), *arguments)
        assert run.returncode == 0, words(run)
        return run, lock.read_text()

    with Hub(tmp_path / "hub") as hub:
        dummy, first = stage()
        (repository / "config.json").write_text('{"moved": true}')
        run, second = stage()
        assert second == first
        assert "changed=0" in run.stdout
        dummy, third = stage("-e", "vllm_update=true")
    assert third != first
    commits = {path.name for path in (HOME / "model/llmops--moving").iterdir()}
    assert {re.search("main: ([0-9a-f]{40})", text).group(1) for text in (first, third)} == commits


def test_stop_stops_and_rollout_starts_again(host):
    assert playbook("stop").returncode == 0
    assert host.check_output("docker inspect -f '{{.State.Status}}' smollm2-e2e") == "exited"
    assert "changed=0" in playbook("stop").stdout
    foretold = playbook("site", "--check")
    assert foretold.returncode == 0, words(foretold)
    assert host.check_output("docker inspect -f '{{.State.Status}}' smollm2-e2e") == "exited"
    started = playbook("rollout")
    assert started.returncode == 0, words(started)
    assert "Tokyo" in answer_of("smollm2-e2e")


PRODUCT = """
import torch
from vllm.platforms import current_platform
import llmops_vllm_cpu

current_platform.import_kernels()
torch.manual_seed(0)
inputs, outputs, groups = 64, 32, 2
codes = torch.randint(0, 16, (inputs, outputs))
zeros = torch.randint(0, 16, (groups, outputs))
scales = torch.rand(groups, outputs).to(torch.bfloat16)

def packed(values):
    shifted = values.reshape(values.shape[0], -1, 8) << torch.arange(0, 32, 4)
    total = shifted.sum(-1)
    return torch.where(total >= 2**31, total - 2**32, total).to(torch.int32)

blocks = packed(codes).view(inputs, outputs // 16, 2).permute(1, 0, 2).reshape(outputs // 16, -1).contiguous()
plain = ((codes.view(groups, -1, outputs) - zeros[:, None]) * scales[:, None].float()).view(inputs, outputs)
x = torch.rand(5, inputs).to(torch.bfloat16)
found = torch.empty(5, outputs, dtype=torch.bfloat16)
llmops_vllm_cpu.gemm(x, blocks, found, scales, packed(zeros), None, 8, "vec")
assert torch.equal(llmops_vllm_cpu.unpacked(blocks, scales, packed(zeros)), plain.t()), "unpacked"
assert torch.allclose(found.float(), x.float() @ plain, rtol=0.02, atol=0.1), "product"
if hasattr(torch.ops._C, "cpu_gemm_wna16"):
    theirs = torch.empty_like(found)
    torch.ops._C.cpu_gemm_wna16(x, blocks, theirs, scales, packed(zeros), None, 8, "vec")
    assert torch.allclose(found.float(), theirs.float(), rtol=0.02, atol=0.2), "beside vLLM's own"
print("as it should be")
"""


def test_4_bit_weights_without_avx512(host):
    """The product of the image's plugin is that of the plain weights, and that of vLLM where vLLM has one."""
    command = subprocess.list2cmdline(["docker", "run", "--rm", "-e", "HOME=/tmp", "--entrypoint", "python3"])
    said = host.run(f"{command} llmops-vllm-cpu:e2e -c %s", PRODUCT)
    assert said.rc == 0 and "as it should be" in said.stdout, said.stderr[-2000:]
