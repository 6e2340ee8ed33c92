"""Docker is there for good and really runs containers."""

import json

import pytest

IMAGE = "tiny:test"


@pytest.fixture
def tiny_image(host):
    """An image made of one static binary, as no registry is within reach."""
    host.check_output("tar -C /bin -c busybox | docker import - %s", IMAGE)
    yield IMAGE
    host.check_output("docker image rm %s", IMAGE)


def test_service_runs_now_and_after_a_reboot(host):
    service = host.service("docker")
    assert service.is_running
    assert service.is_enabled


def test_daemon_answers_on_its_socket(host):
    assert host.file("/run/docker.sock").is_socket
    version = host.check_output("docker version --format '{{.Server.Version}}'")
    assert int(version.split(".")[0]) >= 20


def test_data_is_not_on_a_slow_storage_driver(host):
    assert host.check_output("docker info --format '{{.Driver}}'") == "overlay2"


def test_container_runs(host, tiny_image):
    assert host.check_output("docker run --rm %s /busybox echo hello", tiny_image) == "hello"


def test_published_port_is_reachable(host, tiny_image):
    serve = "mkdir /www; echo hello >/www/index.html; exec /busybox httpd -f -p 80 -h /www"
    host.check_output(
        "docker run --detach --name web --publish 127.0.0.1:8099:80 %s /busybox sh -c %s",
        tiny_image,
        f"export PATH=/; /busybox --install -s /; {serve}",
    )
    try:
        said = host.check_output(
            "curl --silent --fail --retry 10 --retry-all-errors --retry-delay 1 http://127.0.0.1:8099/"
        )
    finally:
        host.check_output("docker rm --force web")
    assert said == "hello"


def test_containers_outlive_a_restart_and_the_settings_of_others_are_kept(host):
    assert host.check_output("docker info --format '{{.LiveRestoreEnabled}}'") == "true"
    settings = json.loads(host.file("/etc/docker/daemon.json").content_string)
    own = {"log-opts": {"max-size": "9m"}, "registry-mirrors": ["http://127.0.0.1:5999"]}
    assert settings == {"live-restore": True, **(own if host.check_output("hostname").endswith("-newer") else {})}
