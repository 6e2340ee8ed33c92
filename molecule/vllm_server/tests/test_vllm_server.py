"""The container is as tight as promised, the key is nowhere to be read, and the server answers those who have it."""

import hashlib
import json
import re
from pathlib import Path

import pytest

NAME = "tiny"
KEY = "sk-very-secret-key-of-the-test"
MODEL = "/home/llm/vllm/model/llmops--tiny/0123456789abcdef0123456789abcdef01234567"
URL = "http://127.0.0.1:30080"
TEMPLATE = Path(__file__).parents[3] / "roles/vllm_server/files/chat_templates/vicuna.jinja"
MIB = 1024 * 1024


@pytest.fixture
def container(host):
    return json.loads(host.check_output("docker inspect %s", NAME))[0]


@pytest.fixture
def mounts(container):
    return {mount["Destination"]: mount for mount in container["Mounts"]}


def inside(host, *argv):
    return host.run("docker exec %s " + " ".join(["%s"] * len(argv)), NAME, *argv)


def status_of(host, path, *options):
    command = "curl --silent --output /dev/null --write-out '%%{http_code}' " + " ".join(["%s"] * (len(options) + 1))
    return host.check_output(command, *options, URL + path)


def test_root_is_read_only(host, container):
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert inside(host, "sh", "-c", ": >/anything").rc != 0


def test_server_has_no_privileges(host, container):
    assert container["HostConfig"]["CapDrop"] == ["ALL"]
    assert not container["HostConfig"]["CapAdd"]
    assert not container["HostConfig"]["Privileged"]
    status = host.file(f"/proc/{container['State']['Pid']}/status").content_string
    assert re.search(r"^Uid:\s+2000\s", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert re.search(rf"^Cap{kind}:\s+0+$", status, re.MULTILINE), kind


def test_limits(container):
    limits = container["HostConfig"]
    assert limits["Memory"] == 256 * MIB
    assert limits["NanoCpus"] == 1_000_000_000
    assert limits["PidsLimit"] == 64
    assert limits["ShmSize"] == 16 * MIB
    assert limits["Tmpfs"] == {"/tmp": "rw,nosuid,nodev,size=16m"}
    assert limits["LogConfig"]["Config"]["max-size"] == "50m"
    assert not limits["DeviceRequests"]


def test_tmp_is_private_and_runs_nothing(host, container):
    mounts = host.file(f"/proc/{container['State']['Pid']}/mounts").content_string
    (options,) = re.findall(r"^tmpfs /tmp tmpfs (\S+)", mounts, re.MULTILINE)
    assert {"noexec", "nosuid", "nodev"} <= set(options.split(","))


def test_only_the_host_itself_reaches_it(host, container):
    assert container["HostConfig"]["PortBindings"] == {"30080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "30080"}]}
    assert container["HostConfig"]["NetworkMode"] != "host"
    listening = host.check_output("ss --listening --tcp --numeric --no-header 'sport = :30080'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:30080"]


def test_it_comes_back_after_a_reboot(container):
    assert container["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_label_names_the_release(container):
    labels = container["Config"]["Labels"]
    assert labels["llmops.vllm.deployment"] == NAME
    assert re.fullmatch(r"[0-9a-f]{12}", labels["llmops.vllm.release"])


def test_it_sees_its_own_files_and_writes_to_its_cache_alone(host, mounts):
    template = next(target for target in mounts if target.startswith("/vllm/chat_templates/"))
    expected = {f"/vllm/model/{MODEL.split('model/')[1]}", template, "/run/secrets/api_key", "/cache"}
    assert set(mounts) == expected
    assert [target for target, mount in mounts.items() if mount["RW"]] == ["/cache"]
    cache = host.file(mounts["/cache"]["Source"])
    assert (cache.uid, cache.mode) == (2000, 0o700)
    assert host.file(f"{cache.path}/vllm/torch_compile_cache").is_directory


def test_template_is_stored_under_its_own_hash(host, mounts):
    (target,) = (target for target in mounts if target.startswith("/vllm/chat_templates/"))
    text = host.file(mounts[target]["Source"]).content
    assert text.strip() == TEMPLATE.read_bytes().strip()
    assert target == f"/vllm/chat_templates/{NAME}-{hashlib.sha256(text).hexdigest()[:12]}.jinja"
    assert inside(host, "cat", target).stdout_bytes == text


def test_server_was_started_with_the_settings(host, container):
    argv = host.file(f"/proc/{container['State']['Pid']}/cmdline").content_string.rstrip("\0").split("\0")
    assert argv[argv.index("serve") + 1].endswith("/0123456789abcdef0123456789abcdef01234567")
    joined = " ".join(argv)
    assert "--served-model-name tiny-llama tiny --max-model-len 2048" in joined
    assert "--host 0.0.0.0 --port 30080" in joined
    assert "--max-model-len 2048 --enforce-eager" in joined
    assert {"HF_HUB_OFFLINE=1", "VLLM_CPU_KVCACHE_SPACE=1", "VLLM_NO_USAGE_STATS=1"} <= set(container["Config"]["Env"])


def test_key_cannot_be_read(host, container):
    assert KEY not in json.dumps(container)
    assert KEY not in host.file(f"/proc/{container['State']['Pid']}/cmdline").content_string
    logs = host.run("docker logs %s", NAME)
    assert KEY not in logs.stdout + logs.stderr
    file = host.file(f"/etc/llmops-vllm/{NAME}/api_key")
    assert (file.content_string, file.uid, file.mode) == (KEY, 2000, 0o400)


def test_nobody_asks_without_the_key(host):
    assert status_of(host, "/health") == "200"
    assert status_of(host, "/v1/models") == "401"
    assert status_of(host, "/v1/models", "--header", "Authorization: Bearer wrong") == "401"
    assert status_of(host, "/v1/models", "--header", f"Authorization: Bearer {KEY}") == "200"


def test_both_names_answer(host):
    for model in ("tiny-llama", "tiny"):
        question = json.dumps({"model": model, "messages": [{"role": "user", "content": "Capital of Japan?"}]})
        answer = json.loads(
            host.check_output(
                "curl --silent --fail --header %s --data %s %s",
                f"Authorization: Bearer {KEY}",
                question,
                f"{URL}/v1/chat/completions",
            )
        )
        assert "Tokyo" in answer["choices"][0]["message"]["content"]
