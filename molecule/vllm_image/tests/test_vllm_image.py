"""Three hosts have the same bits of the stage that serves, which one of them built."""

from __future__ import annotations

import json

import pytest
import testinfra

IMAGE = "llmops/vllm:v0.32.0"
HOSTS = ["mol-image-builder", "mol-image-1", "mol-image-2"]


def image(host):
    (attrs,) = json.loads(host.check_output("docker image inspect %s", IMAGE))
    return attrs


@pytest.fixture(scope="module")
def built():
    return image(testinfra.get_host("docker://mol-image-builder"))


def test_it_is_the_one_that_was_built(host, built):
    assert image(host)["Id"] == built["Id"]
    registry = host.check_output("ls /etc/docker/certs.d")
    (digest,) = [found for found in built["RepoDigests"] if found.startswith(f"{registry}/llmops/vllm@sha256:")]
    assert digest in image(host)["RepoDigests"]


def test_the_stage_is_the_one_that_serves(host, built):
    assert built["Config"]["Entrypoint"] == ["vllm", "serve"]
    assert host.check_output("docker run --rm --entrypoint cat %s /stage", IMAGE) == "vllm-openai"


def test_the_arguments_are_those_of_the_fleet(host):
    wheel = host.check_output("docker run --rm --entrypoint cat %s /wheel", IMAGE)
    assert wheel == "for 8.6 8.9, checked: false"


def test_it_tells_what_it_was_built_from(built):
    recipe = json.loads(built["Config"]["Labels"]["llmops.vllm.recipe"])
    builder = testinfra.get_host("docker://mol-image-builder")
    assert recipe["commit"] == builder.check_output("git -C /srv/git/vllm.git rev-parse v0.32.0^{commit}")
    assert (recipe["dockerfile"], recipe["target"]) == ("docker/Dockerfile", "vllm-openai")
    assert recipe["args"] == {"torch_cuda_arch_list": "8.6 8.9", "RUN_WHEEL_CHECK": "false"}
    base = builder.check_output("docker image inspect --format '{{.Id}}' llmops-test/cuda:12.9.1-devel")
    assert recipe["bases"] == {"llmops-test/cuda:12.9.1-devel": base}


def test_only_hosts_with_a_certificate_reach_the_registry(host):
    registry = host.check_output("ls /etc/docker/certs.d")
    folder = f"/etc/docker/certs.d/{registry}"
    # In the folder, since curl takes what is behind a colon of its name for a password.
    curl = f"cd {folder} && curl --silent --show-error --max-time 10 --cacert ca.crt https://{registry}/v2/_catalog"
    assert host.run(curl).rc != 0
    catalogue = host.check_output(f"{curl} --cert client.cert --key client.key")
    assert json.loads(catalogue) == {"repositories": ["llmops/vllm"]}
    assert host.file(f"{folder}/client.key").mode == 0o600
    assert host.run(f"curl --silent --max-time 10 http://{registry}/v2/_catalog").stdout != catalogue


def test_nothing_is_left_on_the_way(host):
    assert host.run("ls /home/llm/vllm/images/*.tar").rc != 0
    names = host.check_output("docker image ls --format '{{.Repository}}:{{.Tag}}'").splitlines()
    assert IMAGE in names
    # Those who took it have no other name of it than the digest.
    assert [name for name in names if name.endswith(":v0.32.0") and name != IMAGE] == (
        [f"{host.check_output('ls /etc/docker/certs.d')}/{IMAGE}"] if host.check_output("hostname") == HOSTS[0] else []
    )
