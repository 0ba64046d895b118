# SPDX-License-Identifier: Apache-2.0
"""A RabbitMQ of a test's own: Debian's, with its own node name, ports, epmd and directory, on
loopback only. It knows nothing of the system's service, nor that of it."""
import os
import pathlib
import signal
import socket
import subprocess

from waiting import PATIENCE_S, free_port, wait_until

PROGRAMS = pathlib.Path("/usr/lib/rabbitmq/bin")
# A silent connection is ended after two to three of these.
HEARTBEAT_S = 1
CONFIGURATION = f"""
heartbeat = {HEARTBEAT_S}
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.absolute = 1GB
"""


class RabbitMQ:
    """start() returns when it takes connections. kill() is kill -9 of all its processes."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.tls_port = free_port(), free_port()
        epmd_port, distribution_port = free_port(), free_port()
        self.certificate = self.directory / "certificate.pem"
        (self.directory / "enabled_plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text(CONFIGURATION + self.make_tls())
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.directory), "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(epmd_port), "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        self.output = self.directory / "output"
        self.epmd = self.process = None

    def make_tls(self):
        """A certificate of localhost that signs itself, and what the broker is told of it."""
        key = self.directory / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out",
                        self.certificate, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        return (f"listeners.ssl.default = 127.0.0.1:{self.tls_port}\n"
                f"ssl_options.cacertfile = {self.certificate}\n"
                f"ssl_options.certfile = {self.certificate}\n"
                f"ssl_options.keyfile = {key}\n")

    def spawn(self, *command):
        with open(self.output, "ab") as output:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                    stderr=output, env=self.environment, cwd=self.directory,
                                    start_new_session=True)

    def start(self):
        if not self.epmd:
            self.epmd = self.spawn("epmd", "-port", self.environment["ERL_EPMD_PORT"],
                                   "-address", "127.0.0.1")
        self.process = self.spawn(PROGRAMS / "rabbitmq-server")
        assert wait_until(self.answers, 2 * PATIENCE_S), self.output.read_text()
        return self

    def answers(self):
        assert self.process.poll() is None, self.output.read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as s:
                s.sendall(b"AMQP\0\0\x09\x01")
                return s.recv(1) == b"\x01"
        except OSError:
            return False

    def signal(self, number):
        os.killpg(self.process.pid, number)

    def kill(self):
        """Its registers are written first: killed within seconds of its first stream, a RabbitMQ does not
        know any more who coordinates streams, and has none from then on."""
        self.control("eval", "[dets:sync(Table) || Table <- dets:all()].")
        self.end()

    def end(self):
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.process = None

    def control(self, *arguments):
        """rabbitmqctl; takes seconds."""
        return subprocess.run([PROGRAMS / "rabbitmqctl", "--node",
                               self.environment["RABBITMQ_NODENAME"], *arguments],
                              env=self.environment, cwd=self.directory, check=True,
                              capture_output=True, text=True, timeout=2 * PATIENCE_S).stdout

    def remove_exchange(self, name):
        self.control("eval", f'rabbit_exchange:delete(rabbit_misc:r(<<"/">>, exchange, <<"{name}">>), '
                     'false, <<"test">>).')

    def stop(self):
        """It has nothing to keep, so it is killed; never leaves a process."""
        if self.process:
            self.end()
        if self.epmd:
            self.epmd.kill()
            self.epmd.wait(PATIENCE_S)
            self.epmd = None
