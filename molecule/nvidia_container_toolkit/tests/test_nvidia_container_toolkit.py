"""The toolkit is there at one version, and GPUs that are asked for reach it."""

import json

import pytest

PACKAGES = (
    "nvidia-container-toolkit",
    "nvidia-container-toolkit-base",
    "libnvidia-container-tools",
    "libnvidia-container1",
)


def has_cdi(host):
    return host.check_output("hostname").endswith("-cdi")


def asked(host, *arguments):
    """Start a container with these arguments, and return what the hook wrote down."""
    host.run("rm -f /var/log/nvidia-hook.log")
    command = " ".join(f"'{argument}'" for argument in arguments)
    host.check_output(f"docker run --rm {command} tiny:test /busybox true")
    return host.file("/var/log/nvidia-hook.log").content_string.strip()


@pytest.mark.parametrize("name", PACKAGES)
def test_the_four_packages_have_one_version_and_are_held(host, name):
    assert host.package(name).version == "1.19.0-1"
    assert host.check_output("apt-mark showhold %s", name) == name


def test_the_source_is_trusted_by_its_own_key_alone(host):
    source = host.file("/etc/apt/sources.list.d/nvidia_container_toolkit.sources").content_string
    assert "URIs: http://127.0.0.1:8090/stable/deb/amd64\n" in source
    assert "Signed-By: /etc/apt/keyrings/nvidia_container_toolkit.asc\n" in source
    assert not host.file("/etc/apt/sources.list.d/nvidia-docker.list").exists
    assert host.file("/etc/apt/sources.list.d/nvidia-docker.list.disabled").exists
    # A second block is no key to gpg, and would be one to apt.
    keys = host.file("/etc/apt/keyrings/nvidia_container_toolkit.asc").content_string
    assert keys.count("-----BEGIN") == 1


def test_docker_was_restarted_exactly_once(host):
    starts = int(host.check_output("journalctl --unit docker.service --output cat | grep -c '^Starting'"))
    assert starts == int(host.file("/srv/docker-starts").content_string) + 1


def test_the_settings_of_others_are_kept(host):
    file = host.file("/etc/docker/daemon.json")
    settings = json.loads(file.content_string)
    assert settings.pop("features", None) == ({"cdi": True} if has_cdi(host) else None)
    assert settings == {
        "log-opts": {"max-size": "9m"},
        "runtimes": {"mine": {"path": "runc"}, "nvidia": {"path": "nvidia-container-runtime", "args": []}},
    }
    assert file.mode == 0o640
    assert host.check_output("ls /etc/docker | grep -c daemon.json.*~") == "1"


def test_gpus_that_are_asked_for_reach_the_hook(host):
    assert asked(host, "--gpus", "all") == "1.19.0-1 prestart NVIDIA_VISIBLE_DEVICES=all"
    assert asked(host, "--gpus", '"device=0,2"') == "1.19.0-1 prestart NVIDIA_VISIBLE_DEVICES=0,2"


def test_the_runtime_starts_containers(host):
    assert host.check_output("docker run --rm --runtime nvidia tiny:test /busybox echo hello") == "hello"


def test_gpus_by_cdi(host):
    if not has_cdi(host):
        assert not host.service("nvidia-cdi-refresh.path").is_enabled
        return
    assert host.service("nvidia-cdi-refresh.path").is_enabled
    devices = host.check_output("nvidia-ctk cdi list").splitlines()
    uuids = host.check_output("nvidia-smi -L | grep -o 'GPU-[^)]*'").splitlines()
    assert len(uuids) == 2
    assert devices == [f"nvidia.com/gpu={name}" for name in [*uuids, "all"]]
    environment = host.check_output("docker run --rm --device nvidia.com/gpu=%s tiny:test /busybox env", uuids[1])
    assert f"GPU_BY_CDI={uuids[1]}" in environment.splitlines()
