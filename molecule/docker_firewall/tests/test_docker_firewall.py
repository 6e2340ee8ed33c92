"""The rules are loaded, and are there again after a reboot."""

import pytest

UNIT = "llmops-vllm-firewall.service"


@pytest.mark.parametrize("name", ["firewall.rules", "firewall6.rules"])
def test_files_are_roots_alone(host, name):
    file = host.file(f"/etc/llmops-vllm/{name}")
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)


@pytest.mark.parametrize(("program", "name"), [("iptables", "firewall.rules"), ("ip6tables", "firewall6.rules")])
def test_what_is_loaded_is_what_the_file_has(host, program, name):
    lines = host.file(f"/etc/llmops-vllm/{name}").content_string.splitlines()
    loaded = host.check_output(f"{program} -t mangle -S").splitlines()
    assert [line for line in lines if line.startswith("-A")] == [line for line in loaded if "-A LLMOPS-" in line]


def test_the_jump_comes_first(host):
    assert host.check_output("iptables -t mangle -S PREROUTING").splitlines()[1] == "-A PREROUTING -j LLMOPS-VLLM"
    assert host.check_output("iptables -t mangle -S FORWARD").splitlines()[1] == "-A FORWARD -j LLMOPS-VLLM-ROUTED"


def test_it_comes_before_docker(host):
    service = host.service(UNIT)
    assert service.is_enabled
    assert service.is_running
    assert UNIT in host.check_output("systemctl show --property=After --value docker.service").split()
    assert host.run(f"systemd-analyze verify {UNIT}").stderr == ""


def test_started_again_it_leaves_one_jump(host):
    before = host.check_output("iptables -t mangle -S; ip6tables -t mangle -S")
    host.check_output(f"systemctl restart {UNIT}")
    assert host.check_output("iptables -t mangle -S; ip6tables -t mangle -S") == before
