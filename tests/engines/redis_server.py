# SPDX-License-Identifier: Apache-2.0
"""Redis servers and Sentinels of a test's own, Debian's, on loopback, over directories of their own,
with the password "sesame" everywhere."""
import contextlib
import pathlib
import socket
import subprocess

from waiting import PATIENCE_S, free_port, wait_until

PASSWORD = "sesame"
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


class Redis:
    """start() returns when it answers. kill() is kill -9."""

    def __init__(self, directory, sentinel=False, lines=(), **settings):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.port = free_port()
        self.configuration = self.directory / "redis.conf"
        self.log = self.directory / "log"
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.directory,
                    "logfile": self.log, "requirepass": PASSWORD, **settings}
        if not sentinel:
            settings |= {"masterauth": PASSWORD, "save": '""', "repl-diskless-sync-delay": 0}
        self.configuration.write_text("".join(f"{name} {value}\n" for name, value in
                                              settings.items()) + "\n".join(lines))
        self.command = ["redis-server", self.configuration, *(["--sentinel"] if sentinel else [])]
        self.process = None

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert wait_until(self.answers), self.log.read_text()
        return self

    def answers(self):
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError):
            return self.call("PING") == "PONG"

    def call(self, *words):
        """One command; its reply, an array flat, as text; bytes that are none are surrogates."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as s, \
                s.makefile("rwb") as stream:
            for command in [("AUTH", PASSWORD), words]:
                stream.write(b"*%d\r\n" % len(command))
                for word in command:
                    word = str(word).encode(errors="surrogateescape")
                    stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
                stream.flush()
                reply = self.reply(stream)
        return reply

    def reply(self, stream):
        kind, value = (line := stream.readline().decode().rstrip())[:1], line[1:]
        if kind == "$":
            return stream.read(int(value) + 2)[:-2].decode(errors="surrogateescape") if int(value) >= 0 else None
        return [self.reply(stream) for _ in range(int(value))] if kind == "*" else value

    def info(self, section):
        return dict(line.split(":", 1) for line in self.call("INFO", section).splitlines()
                    if ":" in line)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None


class Trio:
    """A master, two replicas and three Sentinels, which fail over within a second or two."""

    def __init__(self, directory):
        self.master = Redis(directory / "0", **DURABLE, **{"min-replicas-to-write": 1})
        self.replicas = [Redis(directory / str(i), replicaof=f"127.0.0.1 {self.master.port}",
                               **DURABLE, **{"min-replicas-to-write": 1}) for i in (1, 2)]
        self.sentinels = [Redis(directory / f"sentinel-{i}", sentinel=True, lines=[
            f"sentinel monitor mill 127.0.0.1 {self.master.port} 2",
            f"sentinel auth-pass mill {PASSWORD}", f"sentinel sentinel-pass {PASSWORD}",
            "sentinel down-after-milliseconds mill 500",
            "sentinel failover-timeout mill 3000", ""]) for i in range(3)]
        self.url = ("redis+sentinel://:" + PASSWORD + "@"
                    + ",".join(f"127.0.0.1:{s.port}" for s in self.sentinels)
                    + f"/mill?sentinel-password={PASSWORD}&replicas=1&prefix=LOG")

    def start(self):
        for redis in [self.master, *self.replicas]:
            redis.start()
        assert wait_until(lambda: self.replicas_online(self.master) == 2)
        for sentinel in self.sentinels:
            sentinel.start()
        assert wait_until(lambda: all(self.known(s) == (2, 2) for s in self.sentinels))
        return self

    @staticmethod
    def replicas_online(master):
        return sum("state=online" in value for name, value in master.info("replication").items()
                   if name.startswith("slave"))

    @staticmethod
    def known(sentinel):
        """(replicas, other Sentinels) that a Sentinel knows."""
        state = sentinel.call("SENTINEL", "MASTER", "mill")
        state = dict(zip(state[::2], state[1::2]))
        return int(state["num-slaves"]), int(state["num-other-sentinels"])

    def kill(self):
        for redis in [*self.sentinels, self.master, *self.replicas]:
            redis.kill()
