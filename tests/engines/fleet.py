# SPDX-License-Identifier: Apache-2.0
"""Several processes of one service."""
import requests

from conftest import Server, wait_until


class Fleet:
    """Processes that share a journal and stores, by name. stores: the options that name them."""

    def __init__(self, directory, journal, *stores):
        self.directory, self.journal, self.stores = directory, journal, list(stores)
        self.members = {}

    def start(self, name, roles):
        member = self.members[name] = Server(
            self.directory / name, "--journal", self.journal, *self.stores, "--roles", roles)
        member.spawn()
        return member

    def ready(self):
        for member in self.members.values():
            assert wait_until(lambda member=member: answers(member, 200)), member.stderr()
        return self

    def stop(self):
        for member in self.members.values():
            if member.process:
                member.stop()


def answers(member, status):
    try:
        return requests.get(member.metrics_url + "/readyz", timeout=10).status_code == status
    except requests.RequestException:
        return False
