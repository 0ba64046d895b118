# SPDX-License-Identifier: Apache-2.0
"""A Redis Cluster of a test's own: three masters with a replica each, on loopback, over directories
of their own, which fails over within some two seconds. A replica each, not more: a write that waited for one replica
is then on the one that a failover promotes."""
import concurrent.futures

from redis_server import DURABLE, PASSWORD, Redis
from waiting import free_port, wait_until

SLOTS = 16384
MASTERS = 3


class RedisCluster:
    """start() returns when all slots are served and each master has its replica."""

    def __init__(self, directory):
        self.nodes = [Redis(directory / str(i), **DURABLE, **{
            "cluster-enabled": "yes", "cluster-node-timeout": 1000, "cluster-port": free_port(),
            "cluster-replica-validity-factor": 0, "repl-ping-replica-period": 1})
            for i in range(2 * MASTERS)]

    @property
    def url(self):
        return f"redis+cluster://:{PASSWORD}@" + ",".join(
            f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self):
        self.run()
        first, *others = self.nodes
        for i, node in enumerate(self.nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
            if i < MASTERS:
                node.call("CLUSTER", "ADDSLOTSRANGE", SLOTS * i // MASTERS,
                          SLOTS * (i + 1) // MASTERS - 1)
        for node in others:
            first.call("CLUSTER", "MEET", "127.0.0.1", node.port, self.bus(node))
        assert wait_until(lambda: all(self.known(node) == len(self.nodes) for node in self.nodes))
        for master, replica in zip(self.nodes, self.nodes[MASTERS:]):
            replica.call("CLUSTER", "REPLICATE", master.call("CLUSTER", "MYID"))
        assert wait_until(self.is_whole)
        return self

    def run(self):
        """Starts the servers, as they were or new."""
        with concurrent.futures.ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Redis.start, (node for node in self.nodes if not node.process)))

    @staticmethod
    def bus(node):
        return node.call("CONFIG", "GET", "cluster-port")[1]

    @staticmethod
    def known(node):
        return len(node.call("CLUSTER", "NODES").splitlines())

    def masters(self):
        return [node for node in self.nodes if node.process and node.call("ROLE")[0] == "master"]

    def is_whole(self):
        """Each node sees all slots served, and each replica has caught up with its master."""
        masters = self.masters()
        online = sum("state=online" in value for node in masters
                     for name, value in node.info("replication").items() if name.startswith("slave"))
        return len(masters) == MASTERS and online == len(self.nodes) - MASTERS and all(
            "cluster_state:ok" in node.call("CLUSTER", "INFO") for node in self.nodes)

    def kill(self):
        for node in self.nodes:
            node.kill()


def told(cluster, *words):
    """The reply of the master that has the command's key."""
    for node in cluster.masters():
        reply = node.call(*words)
        if not (isinstance(reply, str) and reply.startswith("MOVED ")):
            return reply
    raise AssertionError(words)


def keys_of(cluster, pattern):
    return [key for node in cluster.masters() for key in node.call("KEYS", pattern)]
