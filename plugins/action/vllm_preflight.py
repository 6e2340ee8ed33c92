# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

import difflib
import json
import os
import tempfile
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.llmops.vllm.plugins.plugin_utils.findings import (
    CODES,
    DEFAULTS,
    ERROR,
    GB,
    Finding,
    findings,
    sentence,
)

display = Display()

# Of what a module returns, what is Ansible's own, and what is of no interest to people.
_NOT_SEEN = (
    *("changed", "failed", "invocation", "warnings", "deprecations", "exception", "stderr_lines", "stdout_lines"),
    "seals",
)


class ActionModule(ActionBase):
    """Turns what was seen of the hosts into findings, on the controller."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            argument_spec=dict(
                deployments=dict(type="list", elements="dict", required=True),
                hosts=dict(type="dict", required=True),
                image_source=dict(type="str", default="pull"),
                image_builder=dict(type="str", default=""),
                image_size=dict(type="float", default=30),
                manage_toolkit=dict(type="bool", default=True),
                toolkit_mode=dict(type="str", default="auto"),
                install_docker=dict(type="bool", default=True),
                ignore=dict(type="list", elements="str", default=[]),
                report_file=dict(type="path"),
            )
        )
        _check_codes(args["ignore"])
        settings = {key: args[key] for key in DEFAULTS}
        settings["image_size"] = int(args["image_size"] * GB)
        # A host that could not be looked at is reported by Ansible itself.
        hosts = {name: _seen(host) for name, host in args["hosts"].items() if "system" in host}
        found = [
            finding
            for name, seen in hosts.items()
            for finding in findings(name, args["deployments"], seen, settings)
            if finding["code"] not in args["ignore"]
        ]
        errors = [finding for finding in found if finding["severity"] == ERROR]
        warnings = [finding for finding in found if finding["severity"] != ERROR]
        if args["report_file"]:
            # In check mode as well: it is no change of any host, and what one asks for.
            _write(args["report_file"], hosts, found)
        # By themselves, since a host may have many: Ansible would put each of its warnings into a box of its own.
        for finding in warnings:
            display.display("  [%s] warning: %s" % (_where(finding), sentence(finding)))
        result.update(changed=False, findings=found, errors=len(errors), warnings_count=len(warnings))
        result["msg"] = _summary(errors or warnings, "problem" if errors else "warning", len(hosts))
        if errors:
            result["failed"] = True
        return result


def _check_codes(ignore: list[str]) -> None:
    for code in ignore:
        if code not in CODES:
            near = difflib.get_close_matches(code, CODES, n=1)
            hint = "did you mean '%s'?" % near[0] if near else "it takes %s" % ", ".join(sorted(CODES))
            raise AnsibleActionFail("ignore has '%s', which is no code of a finding: %s" % (code, hint))


def _seen(host: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in host.items() if key not in _NOT_SEEN and not key.startswith("_")}


def _where(finding: Finding) -> str:
    return ", ".join(filter(None, (finding["host"], finding["deployment"])))


def _summary(found: list[Finding], noun: str, hosts: int) -> str:
    if not found:
        return "nothing stands in the way on %d host%s" % (hosts, "s"[: hosts != 1])
    touched = len({finding["host"] for finding in found})
    head = "%d %s%s on %d host%s:" % (len(found), noun, "s"[: len(found) != 1], touched, "s"[: touched != 1])
    return "\n".join([head] + ["- %s: %s" % (_where(finding), sentence(finding)) for finding in found])


def _write(path: str, hosts: dict[str, Any], found: list[Finding]) -> None:
    """Write the report; a reader never sees half of one."""
    report = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "findings": found, "hosts": hosts}
    folder = os.path.dirname(os.path.abspath(path))
    try:
        handle, new = tempfile.mkstemp(prefix=".preflight-", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump(report, stream, indent=2, sort_keys=True, default=str)
                stream.write("\n")
            os.chmod(new, 0o644)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        raise AnsibleActionFail("the report cannot be written (%s): name another report_file" % error) from None
