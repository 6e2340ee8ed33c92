# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Why a host cannot be used at all: what SSH, sudo and Python say of it, as one sentence with the way out. Pure.

The texts are those of OpenSSH, of sudo, and of ansible-core 2.19.
"""

from __future__ import annotations

import re
import sys

# In this order: the first rule that fits counts. Of what a text has in named groups, and of the way to the host (host,
# address, port, user, python), the sentence is filled.
_RULES = [
    (
        r"Could not resolve hostname (?P<asked>[^:\s]+)",
        "%(host)s cannot be reached, nobody here knows the address %(asked)s: correct ansible_host in the inventory",
    ),
    (
        r"(?P<why>Connection refused|Connection timed out|Operation timed out|No route to host|Network is unreachable"
        r"|Connection reset|Connection closed)",
        "%(host)s cannot be reached at %(address)s port %(port)s (%(why)s): see that it is up and lets SSH in there, "
        "or correct ansible_host and ansible_port in the inventory",
    ),
    (
        r"HOST IDENTIFICATION HAS CHANGED",
        "%(host)s has another SSH key than the one that is known here of %(address)s: find out why; where it was "
        "installed anew, forget the old key (ssh-keygen -R %(known_as)s) and connect once by hand (%(ssh)s)",
    ),
    (
        r"Host key verification failed",
        "the SSH key of %(host)s is not known here: connect once by hand and compare it (%(ssh)s)",
    ),
    (
        r"Permission denied \((?P<ways>[^)]*)\)",
        "%(host)s does not let %(user)s in (SSH there takes %(ways)s): name the account with ansible_user and its key "
        "with ansible_ssh_private_key_file, until %(ssh)s gets in",
    ),
    (
        r"Too many authentication failures",
        "%(host)s has refused %(user)s after too many keys: name the right one with ansible_ssh_private_key_file, and "
        "let SSH offer it alone (IdentitiesOnly yes), until %(ssh)s gets in",
    ),
    (
        r"Missing sudo password|sudo: a password is required",
        "sudo on %(host)s asks %(user)s for a password: give it with --ask-become-pass, or let that account use sudo "
        "without one",
    ),
    (
        r"Incorrect sudo password",
        "sudo on %(host)s does not take the password that was given for %(user)s: give its right one with "
        "--ask-become-pass",
    ),
    (
        r"is not in the sudoers file|is not allowed to (?:execute|run sudo)",
        "%(user)s may not become root by sudo on %(host)s: let it, or name an account that may with ansible_user",
    ),
    (
        r"sudo: (?:command )?not found",
        "%(host)s has no sudo: install it there, or connect as root (ansible_user: root)",
    ),
    (
        r"interpreter '(?P<python>[^']+)' was not found",
        "%(host)s has no Python at %(python)s: install python3 there, or name where it is with "
        "ansible_python_interpreter",
    ),
    (
        r"requires a minimum of Python version [\d.]+\. Current version: (?P<version>[\d.]+)",
        "the Python of %(host)s is %(version)s, and 3.9 is the least: install a newer one beside it and name it "
        "with ansible_python_interpreter",
    ),
    (
        r"SyntaxError: (?:future feature annotations is not defined|invalid syntax)"
        r"|TypeError: '(?:type|ABCMeta)' object is not subscriptable",
        "the Python of %(host)s is too old, and 3.9 is the least: install a newer one beside it and name it with "
        "ansible_python_interpreter",
    ),
    (
        r"ModuleNotFoundError: No module named '(?P<module>%s)'" % "|".join(sorted(sys.stdlib_module_names)),
        "the Python of %(host)s lacks its own module %(module)s: install all of python3 there, not only its minimal "
        "package",
    ),
]


def why_not(
    host: str, text: str, address: str | None = None, port: int | str | None = None, user: str | None = None
) -> str | None:
    """Return the sentence, or None where no rule knows the text.

    host: its name in the inventory. address, port, user: how it was asked, as far as the inventory says.
    """
    address, port, user = address or host, int(port or 22), user or ""
    target = "%s@%s" % (user, address) if user else address
    values = {
        "host": host,
        "address": address,
        "port": port,
        "user": user or "your account",
        "ssh": "ssh %s%s" % ("-p %d " % port if port != 22 else "", target),
        "known_as": address if port == 22 else "'[%s]:%d'" % (address, port),
    }
    for pattern, sentence in _RULES:
        found = re.search(pattern, text)
        if found:
            return sentence % dict(values, **found.groupdict())
    return None
