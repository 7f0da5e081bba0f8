"""Machines of a stead project as an inventory for Ansible."""

from __future__ import annotations

DOCUMENTATION = r"""
name: stead
short_description: Machines of stead
description:
  - The machines of a stead project that run, with groups and variables as its Machinefile has them.
  - Takes a YAML file whose C(plugin) is C(stead), or C(stead.vms.stead) where the collection is installed.
extends_documentation_fragment:
  - constructed
options:
  plugin:
    description: Says that the file is for this plugin.
    required: true
    choices: [stead, stead.vms.stead]
  project:
    description: A folder of the project, or one below it; relative to the file.
    type: str
    default: .
  file:
    description: The Machinefile, where it has another name; relative to the project.
    type: str
  stead:
    description: The program.
    type: str
    default: stead
    env:
      - name: STEAD
"""

EXAMPLES = r"""
plugin: stead
project: ..
keyed_groups:
  - key: stead_labels.role
    prefix: tier
compose:
  http_port: stead_forwards['80'] | default(none)
"""

import json
import os
import subprocess

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Constructable
from ansible.utils.unsafe_proxy import wrap_var


def _untemplated(value):
    """What stead marks as a text and no template, as Ansible's own readers of JSON take it."""
    text = value.get("__ansible_unsafe")
    return wrap_var(text) if len(value) == 1 and isinstance(text, str) else value


class InventoryModule(BaseInventoryPlugin, Constructable):
    NAME = "stead"

    def verify_file(self, path):
        return super().verify_file(path) and path.endswith((".yml", ".yaml"))

    def parse(self, inventory, loader, path, cache=True):
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        listed = self._listed(path)
        variables = listed.pop("_meta", {}).get("hostvars", {})
        for host in variables:
            inventory.add_host(host)
        for group in listed:
            inventory.add_group(group)
        for group, content in listed.items():
            for host in content.get("hosts", []):
                inventory.add_host(host, group=group)
            for child in content.get("children", []):
                inventory.add_child(group, child)
            for name, value in content.get("vars", {}).items():
                inventory.set_variable(group, name, value)
        strict = self.get_option("strict")
        for host, values in variables.items():
            for name, value in values.items():
                inventory.set_variable(host, name, value)
            self._set_composite_vars(self.get_option("compose"), values, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), values, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), values, host, strict=strict)

    def _listed(self, path):
        """What `stead inventory --list` says."""
        project = os.path.expanduser(self.get_option("project"))
        folder = os.path.join(os.path.dirname(os.path.abspath(path)), project)
        command = [os.path.expanduser(self.get_option("stead")), "-C", folder]
        if self.get_option("file"):
            command += ["-f", self.get_option("file")]
        command += ["inventory", "--list"]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise AnsibleParserError(f"cannot run {command[0]}: {error}; `stead` in {path} says where it is") from error
        if ran.returncode != 0:
            raise AnsibleParserError(f"{' '.join(command)} failed: {ran.stderr.strip()}")
        return json.loads(ran.stdout, object_hook=_untemplated)
