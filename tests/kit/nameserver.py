"""A name server, whose addresses change while clients run."""

import socketserver
import threading
from contextlib import contextmanager

import dns.message
import dns.rdatatype
import dns.rrset


class NameServer(socketserver.UDPServer):
    """Answers for every name, on a free port of 127.0.0.1."""

    def __init__(self, *addresses):
        super().__init__(("127.0.0.1", 0), _Question)
        self.addresses = addresses
        self.lookups = 0
        self.port = self.server_address[1]


class _Question(socketserver.BaseRequestHandler):
    def handle(self):
        data, channel = self.request
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        (question,) = query.question
        if question.rdtype == dns.rdatatype.A:
            self.server.lookups += 1
            answer.answer.append(dns.rrset.from_text_list(question.name, 1, "IN", "A", self.server.addresses))
        channel.sendto(answer.to_wire(), self.client_address)


@contextmanager
def name_server(*addresses):
    with NameServer(*addresses) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
