"""The site of `make docs`: the guides as they are, and the reference that antsibull-docs writes (tools/docs.sh)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import sphinx_antsibull_ext
import yaml
from docutils import nodes
from sphinx import addnodes

PROJECT = Path(os.environ["PROJECT"])
GALAXY = yaml.safe_load((PROJECT / "galaxy.yml").read_text())
ANSIBLE = "https://docs.ansible.com/projects/ansible/latest"
# Labels of Ansible's own documentation that pages of antsibull-docs refer to.
ANSIBLE_PAGES = {
    "action_plugins": "plugins/action.html",
    "common_return_values": "reference_appendices/common_return_values.html",
}


def colours(scheme):
    """A colour scheme of antsibull-docs as variables of Furo, which knows whether the reader wants it light or dark."""
    css = Path(sphinx_antsibull_ext.__file__).with_name(f"colors-{scheme}.css").read_text()
    return {**dict(re.findall(r"--([\w-]+):([^;}]+)", css)), "antsibull-table-border": "var(--color-background-border)"}


project = f"{GALAXY['namespace']}.{GALAXY['name']}"
author = ", ".join(GALAXY["authors"])
project_copyright = author
version = release = str(GALAXY["version"])

extensions = ["myst_parser", "sphinx_antsibull_ext"]
exclude_patterns = ["reference/index.rst", "reference/environment_variables.rst"]
nitpicky = True
myst_heading_anchors = 4
highlight_language = "text"
antsibull_ext_color_scheme = "none"

html_theme = "furo"
html_title = f"{project} {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_use_index = False
html_theme_options = {
    "source_repository": GALAXY["repository"],
    "source_branch": "main",
    "source_directory": "",
    "top_of_page_buttons": ["edit"],
    "light_css_variables": colours("default"),
    "dark_css_variables": colours("default-dark"),
}

# Addresses of examples and of this machine; files of the repository, which the build itself looks for.
linkcheck_ignore = [
    r"https?://(127\.0\.0\.1|localhost|[\w.-]+\.example\.com)\b",
    re.escape(GALAXY["repository"]) + "/(blob|tree)/",
]
linkcheck_timeout = 20
linkcheck_retries = 2
# GitHub's pages make their anchors in the browser.
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]


def keep_letters(app, docname, source):
    """A question in Japanese is to be read: antsibull-docs writes codes for what is not ASCII."""
    if docname.startswith("reference/"):
        source[0] = re.sub(r"\\\\u(?!d[89a-f])([0-9a-f]{4})", lambda found: chr(int(found[1], 16)), source[0])


def read_links(app, doctree):
    """Links of guides: the title of a page instead of its file's name, and the repository for what is no page."""
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst":
            continue
        target = node["reftarget"].partition("#")[0]
        path = (PROJECT / node["refdoc"]).parent.joinpath(target).resolve()
        if node.get("refdomain") == "doc":
            if node.astext().endswith(".md"):
                node["refexplicit"] = False
                node.children[0].clear()
        # A name without a slash that is no file is an anchor of the page.
        elif path.is_relative_to(PROJECT) and (path.is_file() or path.is_dir() and "/" in target):
            kind = "tree" if path.is_dir() else "blob"
            uri = f"{GALAXY['repository']}/{kind}/main/{path.relative_to(PROJECT)}"
            node.replace_self(nodes.reference("", "", *node.children, internal=False, refuri=uri))


def link_to_ansible(app, env, node, contnode):
    """Ansible's own documentation by its addresses: its inventory of labels would need a network."""
    target = node["reftarget"]
    if target in ANSIBLE_PAGES:
        uri = f"{ANSIBLE}/{ANSIBLE_PAGES[target]}"
    elif target.startswith("ansible_collections.") and not target.startswith(f"ansible_collections.{project}."):
        namespace, name, plugin = target.split(".")[1:4]
        uri = f"{ANSIBLE}/collections/{namespace}/{name}/{plugin.partition('__')[0]}.html"
    else:
        return None
    return nodes.reference("", "", contnode, internal=False, refuri=uri)


def edit_the_source(app, pagename, templatename, context, doctree):
    """The pencil of a page leads to what it was made from."""
    if url := (context.get("meta") or {}).get("github_url"):
        context["theme_source_edit_link"] = url.partition("?")[0]
    elif pagename == "index" or pagename.startswith("reference/"):
        context["theme_source_directory"] = "docs/site"


def setup(app):
    app.connect("source-read", keep_letters)
    app.connect("doctree-read", read_links)
    app.connect("missing-reference", link_to_ansible)
    app.connect("html-page-context", edit_the_source)
    return {"parallel_read_safe": True}
