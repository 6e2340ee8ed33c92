# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleLookupError
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader
from ansible.utils.vars import load_extra_vars

from ansible_collections.llmops.vllm.plugins.plugin_utils import chat_template, inventory_check, variables
from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import CatalogueError, read_catalogue, unlocked
from ansible_collections.llmops.vllm.plugins.plugin_utils.lock import LockError, merge, read_lock, render, write_lock
from ansible_collections.llmops.vllm.plugins.plugin_utils.network import ADDRESS_VARIABLE, Deployment, Network


class ActionModule(ActionBase):
    """Reads the catalogue on the controller; no host is touched."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            argument_spec=dict(
                # raw: the catalogue's own messages are better than those of a coercion.
                deployments=dict(type="raw", required=True),
                lock_file=dict(type="path", required=True),
                default_image=dict(type="str", required=True),
                update=dict(type="bool", default=False),
                resolved=dict(type="list", elements="dict", default=[]),
                check_variables=dict(type="bool", default=True),
            )
        )
        try:
            before = read_lock(args["lock_file"])
            lock = merge(before, args["resolved"])
            known = {part: {} for part in lock} if args["update"] else lock
            deployments, backends, warnings = self._checked(args, known["snapshots"], task_vars)
            if lock != before:
                result["changed"] = True
                result["diff"] = {
                    "before_header": args["lock_file"],
                    "after_header": args["lock_file"],
                    "before": render(before) if any(before.values()) else "",
                    "after": render(lock),
                }
                if not self._task.check_mode:
                    write_lock(args["lock_file"], lock)
        except (CatalogueError, LockError) as error:
            # None: Ansible adds the text of a cause to the message.
            raise AnsibleActionFail(str(error)) from None
        except OSError as error:
            raise AnsibleActionFail(
                f"the lock file cannot be used: {error}; set vllm_lock_file to another path"
            ) from None
        result.update(deployments=deployments, backends=backends, unlocked=unlocked(deployments), lock=known)
        if warnings:
            result["warnings"] = warnings
        result.setdefault("changed", False)
        return result

    def _checked(
        self, args: dict[str, Any], locked: dict[str, dict[str, str]], task_vars: dict[str, Any]
    ) -> tuple[list[Deployment], list[dict[str, Any]], list[str]]:
        """Return deployments, backends and warnings; raise CatalogueError with every problem of the inventory."""
        deployments: list[Deployment] = []
        backends: list[dict[str, Any]] = []
        problems: list[str] = []
        warnings: list[str] = []
        try:
            deployments, backends = read_catalogue(
                args["deployments"],
                Network(self._address_of(task_vars), self._hosts_of(task_vars), task_vars["groups"]),
                locked,
                args["default_image"],
                self._check_template,
            )
        except CatalogueError as error:
            problems = error.problems
        if args["check_variables"]:
            # As they are written: to template them for every host would take minutes on a fleet.
            raw = {host: task_vars["hostvars"].raw_get(host) for host in task_vars["groups"]["all"]}
            serving = {host for deployment in deployments for host in deployment["hosts"]}
            problems += inventory_check.catalogue_problems(raw, task_vars["inventory_hostname"], serving)
            found, warnings = inventory_check.variable_problems(
                raw, variables.known_variables(), variables.prefixes(), load_extra_vars(self._loader)
            )
            problems += found
        if problems:
            raise CatalogueError(problems)
        return deployments, backends, warnings

    def _address_of(self, task_vars: dict[str, Any]) -> Callable[[str], str | None]:
        # Of one host its variables are made ready in some milliseconds, so of those alone that are asked for.
        return lambda host: task_vars["hostvars"][host].get(ADDRESS_VARIABLE)

    def _hosts_of(self, task_vars: dict[str, Any]) -> Callable[[str], list[str]]:
        patterns = lookup_loader.get("ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar)
        # Ansible knows a localhost that no inventory names; no play of ours runs there.
        in_inventory = set(task_vars["groups"]["all"])
        found = {}

        def hosts_of(pattern: str) -> list[str]:
            if pattern not in found:
                hosts = [str(host) for host in patterns.run([pattern], variables=task_vars)]
                found[pattern] = [host for host in hosts if host in in_inventory]
            return list(found[pattern])

        return hosts_of

    def _check_template(self, path: str) -> None:
        """Raise TemplateError where the role vllm_server would find no usable template at a path."""
        lookup = lookup_loader.get("llmops.vllm.chat_template", loader=self._loader, templar=self._templar)
        role = os.path.join(variables.ROLES, "vllm_server")
        # Where Ansible looks for the files of a role's tasks.
        places = [role, os.path.join(role, "tasks"), self._loader.get_basedir()]
        try:
            lookup.run([path], variables={"ansible_search_path": places, "role_path": role})
        except AnsibleLookupError as error:
            raise chat_template.TemplateError(error.message) from None
        except (OSError, UnicodeError) as error:
            raise chat_template.TemplateError(f"the chat template {path} cannot be read: {error}") from None
