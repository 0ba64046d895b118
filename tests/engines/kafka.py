# SPDX-License-Identifier: Apache-2.0
"""Real Kafka brokers in KRaft mode, on loopback, over directories of their own: what the engines' tests
and the benchmarks stand beside. The jars come from Maven Central by kafka-pom.xml, and must be those
that kafka.lock names."""
import hashlib
import pathlib
import signal
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
JARS = HERE.parent.parent / "build" / "kafka"
QUICK_JAVA = "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"  # starts sooner, runs slower
PASSWORD = "sesame"  # of the user mill, at the port that asks for one
START_S = 120  # a broker starts in seconds; on a busy machine in many


class NotFetched(Exception):
    """Maven cannot reach its registry."""


def class_path():
    """Fetched once by Maven and checked every time. NotFetched."""
    wanted = [line.split() for line in (HERE / "kafka.lock").read_text().splitlines()
              if not line.startswith("#")]
    if not all((JARS / name).exists() for _, name in wanted):
        done = subprocess.run(["mvn", "-B", "-q", "-Dstyle.color=never",
                               "-f", str(HERE / "kafka-pom.xml"), "dependency:copy-dependencies",
                               "-DincludeScope=runtime", f"-DoutputDirectory={JARS}"],
                              capture_output=True, text=True)
        if done.returncode:
            raise NotFetched(f"Kafka cannot be fetched: {done.stdout[-1000:]}")
    for digest, name in wanted:
        if hashlib.sha256((JARS / name).read_bytes()).hexdigest() != digest:
            (JARS / name).unlink()
            raise RuntimeError(f"{name}: not the file that tests/engines/kafka.lock names")
    return ":".join(str(JARS / name) for _, name in wanted)


def answers(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


class Broker:
    """One node; of a cluster, each is broker and controller."""

    def __init__(self, cluster, number, port, controller_port, sasl_port):
        self.cluster = cluster
        self.number = number
        self.port = port
        self.controller_port = controller_port
        self.sasl_port = sasl_port
        self.directory = cluster.directory / f"broker-{number}"
        self.process = None

    def properties(self):
        voters = ",".join(f"{b.number}@127.0.0.1:{b.controller_port}"
                          for b in self.cluster.brokers)
        replicas = len(self.cluster.brokers)
        return f"""process.roles=broker,controller
node.id={self.number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self.controller_port},\
SASL_PLAINTEXT://127.0.0.1:{self.sasl_port}
sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_mill="{PASSWORD}";
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
log.dirs={self.directory}/logs
num.partitions=4
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={min(replicas, 2)}
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
controlled.shutdown.enable=false
"""

    def java(self, *arguments):
        return ["java", *self.cluster.java, "-cp", self.cluster.class_path, *arguments]

    def format(self):
        self.directory.mkdir(parents=True)
        (self.directory / "server.properties").write_text(self.properties())
        subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", self.cluster.identity,
                                 "-c", str(self.directory / "server.properties")),
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self):
        log = (self.directory / "output").open("ab")
        self.process = subprocess.Popen(
            self.java("kafka.Kafka", str(self.directory / "server.properties")),
            stdout=log, stderr=log, start_new_session=True)

    def wait(self):
        deadline = time.monotonic() + START_S
        while not answers(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Kafka did not start; see {self.directory}/output")
            time.sleep(0.1)

    def kill(self, how=signal.SIGKILL):
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Kafka:
    """A cluster of n nodes. start() returns when all listen; kill() is kill -9 of all."""

    def __init__(self, directory, ports, n=1, java=QUICK_JAVA):
        """ports: gives a free port at each call."""
        self.java = java
        self.directory = pathlib.Path(directory)
        self.class_path = class_path()
        self.identity = "bWlsbHJhY2UtdGVzdHMtMQ"
        self.brokers = []
        for number in range(1, n + 1):
            self.brokers.append(Broker(self, number, ports(), ports(), ports()))
        for broker in self.brokers:
            broker.format()

    @property
    def servers(self):
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self.brokers)

    def admin(self):
        from confluent_kafka.admin import AdminClient  # the benchmarks have no use for it
        return AdminClient({"bootstrap.servers": self.servers})

    def make_topic(self, name, partitions):
        from confluent_kafka.admin import NewTopic
        client = self.admin()
        client.create_topics([NewTopic(name, partitions)])[name].result(START_S)

    def delete_topic(self, name):
        client = self.admin()
        client.delete_topics([name])[name].result(START_S)

    def leader(self, topic):
        """The broker that leads its first partition."""
        client = self.admin()
        number = client.list_topics(topic, timeout=START_S).topics[topic].partitions[0].leader
        return self.brokers[number - 1]

    def start(self):
        for broker in self.brokers:
            if not broker.process:
                broker.start()
        for broker in self.brokers:
            broker.wait()
        return self

    def kill(self):
        for broker in self.brokers:
            broker.kill()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()
