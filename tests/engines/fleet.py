# SPDX-License-Identifier: Apache-2.0
"""Several processes of one service."""
import re

import requests

from conftest import PATIENCE_S, Server, wait_until


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

    def refused(self, roles):
        """What a process that is started says before it ends."""
        name = f"refused-{len(self.members)}"
        member = self.start(name, roles)
        assert member.process.wait(PATIENCE_S) == 1
        del self.members[name]
        said = member.stderr()
        member.log.unlink()
        return said

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


def place_of_mark(refusal):
    """Where the sentence of a store that is not the journal's says that the mark is: the engine's name of it."""
    return re.search(r"remove the \w+ (\S+)", refusal)[1].rstrip(":,")
