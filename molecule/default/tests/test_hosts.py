"""A test host is what the scenarios take it for."""

from __future__ import annotations


def test_systemd_runs_without_failed_units(host):
    assert host.check_output("systemctl is-system-running") == "running"


def test_python_is_there_and_docker_where_the_image_says_so(host):
    assert host.exists("python3")
    assert host.exists("dockerd") == host.backend.get_hostname().endswith("-docker")
