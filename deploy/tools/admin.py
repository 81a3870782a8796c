"""Asks the admin endpoint of a proxy without an enclave: alive, not ready, and its figures there."""

import http.client
import socket
import sys


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(sys.argv[1])


def ask(path):
    connection = Unix("admin")
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


assert ask("/healthz") == (200, "alive\n"), ask("/healthz")
assert ask("/readyz") == (503, "no enclave has a session\n"), ask("/readyz")
status, figures = ask("/metrics")
assert status == 200 and "transcode_proxy_store_open 1\n" in figures and "transcode_enclave_" not in figures
print("healthz 200, readyz 503 (no enclave has a session), metrics", figures.count("# TYPE"), "families")
