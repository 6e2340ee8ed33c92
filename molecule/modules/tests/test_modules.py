"""Runs each target of ansible-test integration; every module has one."""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
# Those that begin with setup_ are parts of others. Where a role has the name of a module, the target has _module behind
# it: Ansible would take the role.
TARGETS = sorted(
    path.name for path in (CHECKOUT / "tests/integration/targets").iterdir() if not path.name.startswith("setup_")
)


def test_every_module_has_a_target() -> None:
    modules = {path.stem for path in (CHECKOUT / "plugins/modules").glob("*.py")}
    assert modules == {target.removesuffix("_module") for target in TARGETS}


@pytest.mark.parametrize("target", TARGETS)
def test_target(host, target: str) -> None:
    variables = host.ansible.get_variables()
    ran = host.run(
        "cd %s && PATH=%s/bin:$PATH ansible-test integration --color no --allow-root --allow-destructive %s",
        variables["collection"],
        variables["tools"],
        target,
    )
    assert ran.rc == 0, ran.stdout[-8000:] + ran.stderr[-2000:]
