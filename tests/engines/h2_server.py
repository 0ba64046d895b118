# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP/2 that a test scripts frame by frame, for what a well-behaved server of gRPC never
does. Each call that came whole, or each request's head with early=True, is handed to the script, a
function of (connection, stream, number of the call), which answers with the methods of Connection."""
import contextlib
import socket
import struct
import threading

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

GRPC = [(":status", "200"), ("content-type", "application/grpc")]


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock = server, sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        self.headers = {}  # of each stream
        self.bodies = {}

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def answer(self, stream, message):
        self.h2.send_headers(stream, GRPC)
        self.h2.send_data(stream, struct.pack(">BI", 0, len(message)) + message)
        self.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        self.flush()

    def end(self, stream, *headers):
        """An answer that is nothing but headers."""
        self.h2.send_headers(stream, headers, end_stream=True)
        self.flush()

    def reset(self, stream, code):
        self.h2.reset_stream(stream, code)
        self.flush()

    def go_away(self, last_stream):
        self.h2.close_connection(h2.errors.ErrorCodes.NO_ERROR, last_stream_id=last_stream)
        self.flush()

    def close(self):
        self.sock.shutdown(socket.SHUT_RDWR)

    def run(self):
        self.h2.initiate_connection()
        self.flush()
        while data := self.sock.recv(65536):
            for event in self.h2.receive_data(data):
                self.handle(event)
            self.flush()

    def handle(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.headers[event.stream_id] = dict(event.headers)
            self.bodies[event.stream_id] = b""
            if self.server.early:
                self.server.serve(self, event.stream_id)
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and not self.server.early:
            self.server.serve(self, event.stream_id)


class H2Server:
    """Use as a context: with H2Server(script) as server: … server.port …"""

    def __init__(self, script, early=False, port=0):
        self.script, self.early = script, early
        self.calls = []  # headers of each
        self.bodies = []
        self.connections = []
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = self.listener.getsockname()[1]

    def serve(self, connection, stream):
        self.calls.append(connection.headers[stream])
        self.bodies.append(connection.bodies[stream])
        self.script(connection, stream, len(self.calls))

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self, self.listener.accept()[0])
                self.connections.append(connection)
                threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection):
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            connection.run()
        connection.sock.close()

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
