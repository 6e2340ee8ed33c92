# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

from ansible_collections.llmops.vllm.plugins.plugin_utils.catalogue import CatalogueError, read_catalogue, unlocked
from ansible_collections.llmops.vllm.plugins.plugin_utils.lock import LockError, merge, read_lock, render, write_lock


class ActionModule(ActionBase):
    """Reads the catalogue on the controller; no host is touched."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        dummy, args = self.validate_argument_spec(
            argument_spec=dict(
                # raw: the catalogue's own messages are better than those of a coercion.
                deployments=dict(type="raw", required=True),
                lock_file=dict(type="path", required=True),
                default_image=dict(type="str", required=True),
                update=dict(type="bool", default=False),
                resolved=dict(type="list", elements="dict", default=[]),
            )
        )
        patterns = lookup_loader.get("ansible.builtin.inventory_hostnames", loader=self._loader, templar=self._templar)

        def hosts_of(pattern):
            found = [str(host) for host in patterns.run([pattern], variables=task_vars)]
            # Ansible knows a localhost that no inventory names; no play of ours runs there.
            return [host for host in found if host in task_vars["groups"]["all"]]

        try:
            before = read_lock(args["lock_file"])
            lock = merge(before, args["resolved"])
            known = {part: {} for part in lock} if args["update"] else lock
            deployments = read_catalogue(args["deployments"], hosts_of, known["snapshots"], args["default_image"])
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
        result.update(deployments=deployments, unlocked=unlocked(deployments), lock=known)
        result.setdefault("changed", False)
        return result
