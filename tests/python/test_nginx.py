"""Two real servers behind a real nginx with deploy/nginx/tasnif.conf: killed, drained and started again under load, a
client that tries again loses nothing. Needs nginx (Debian: nginx-light). Run by .ci/run after a release build:

    python -m pytest tests/python
"""

import collections
import concurrent.futures
import itertools
import random
import re
import shutil
import socket
import subprocess
import threading
import time

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from test_server import CALL_LIMIT_S, ECONOMY, ROOT, SPORT, Server, api, classify, labels  # noqa: F401: a fixture

CONFIG = ROOT / "deploy/nginx/tasnif.conf"
# Debian keeps it where only root's PATH looks.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
# As the configuration asks of servers behind it.
SETTINGS = ["--set", "server.max_connections_per_address=512"]
TOKEN = "a-token-of-the-newsroom"
TEXTS = [SPORT, ECONOMY]
TOPICS = ["sport", "economy"]

WRAPPER = """
daemon off;
pid {dir}/pid;
error_log {dir}/error.log info;
events {{}}
http {{
    log_format upstreams "$upstream_addr|$upstream_status";
    access_log {dir}/access.log upstreams;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    include {dir}/tasnif.conf;
}}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def self_signed(directory):
    """Writes tls.key and tls.crt, for tasnif.example, and returns the latter."""
    certificate = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=tasnif.example", "-addext", "subjectAltName=DNS:tasnif.example"]
    files = ["-keyout", str(directory / "tls.key"), "-out", str(directory / "tls.crt")]
    subprocess.run(["openssl", "req", "-x509", *certificate, *names, *files], check=True, capture_output=True)
    return (directory / "tls.crt").read_bytes()


def substituted(text, pattern, *values):
    """`text` with each match of `pattern` replaced by the next of `values`; there are as many of both."""
    assert len(re.findall(pattern, text)) == len(values), pattern
    remaining = iter(values)
    return re.sub(pattern, lambda _: next(remaining), text)


class Nginx:
    """nginx with the configuration of deploy/, but for addresses and paths."""

    def __init__(self, directory, servers, tls=None):
        self.directory = directory
        self.address = f"127.0.0.1:{free_port()}"
        text = CONFIG.read_text(encoding="utf-8")
        text = substituted(text, r"(?<=    server )[\d.:]+(?= max_fails)", *servers)
        if tls:
            text = re.sub(r".*# no TLS\n", "", text.replace("#tls ", ""))
            text = substituted(text, r"(?<=listen )50051(?= ssl)", self.address)
            text = re.sub(r"/etc/nginx/tls", str(tls), text)
        else:
            text = substituted(text, r"(?<=listen )127.0.0.1:50051(?= http2)", self.address)
        (directory / "tasnif.conf").write_text(text, encoding="utf-8")
        (directory / "nginx.conf").write_text(WRAPPER.format(dir=directory), encoding="utf-8")
        command = [NGINX, "-p", str(directory), "-c", str(directory / "nginx.conf")]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self.process = subprocess.Popen(command)

    def answered_by(self):
        """The servers that answered calls."""
        lines = (self.directory / "access.log").read_text(encoding="utf-8").splitlines()
        tried = [[part.split(", ") for part in line.split("|")] for line in lines]
        return {addresses[-1] for addresses, statuses in tried if statuses[-1] == "200"}

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=CALL_LIMIT_S)


@pytest.fixture
def servers():
    servers = [Server(*SETTINGS), Server(*SETTINGS)]
    yield servers
    for server in servers:
        server.channel.close()
        server.process.kill()
        server.process.wait()


@pytest.fixture
def nginx(servers, tmp_path):
    assert NGINX, "nginx is not installed; Debian has it as nginx-light"
    nginx = Nginx(tmp_path, [server.address for server in servers])
    yield nginx
    nginx.stop()


@pytest.fixture
def stub(nginx, api):  # noqa: F811
    with grpc.insecure_channel(nginx.address) as channel:
        grpc.channel_ready_future(channel).result(timeout=CALL_LIMIT_S)
        yield api[1].ClassifierStub(channel)


class Retries:
    """When to try again, and after how long. Classifying is pure: a call whose answer was lost may run twice."""

    def __init__(self, load):
        self.load = load
        self.give_up_at = time.monotonic() + CALL_LIMIT_S
        self.backoff_s = 0.05

    def wait(self, error):
        """Returns when the call may be tried again, or raises `error` if that is no use."""
        code = error.code()
        details = {detail.TypeName(): detail for detail in getattr(rpc_status.from_call(error), "details", [])}
        # Without the server's own details it is the way to it that broke.
        broken = code in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN} and not details
        again = broken or code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
        if not again or time.monotonic() > self.give_up_at:
            raise error
        delay_s = self.backoff_s * random.uniform(0.5, 1)
        if detail := details.get("google.rpc.RetryInfo"):
            info = error_details_pb2.RetryInfo()
            detail.Unpack(info)
            delay_s = max(delay_s, info.retry_delay.ToTimedelta().total_seconds())
        with self.load.changed:
            self.load.codes[code] += 1
        self.backoff_s = min(2 * self.backoff_s, 1)
        time.sleep(delay_s)


class Load:
    """What came of documents that are sent at the same time."""

    def __init__(self):
        self.topics = {}
        self.codes = collections.Counter()
        self.changed = threading.Condition()

    def record(self, name, classification):
        with self.changed:
            assert name not in self.topics, f"{name} was answered twice"
            self.topics[name] = labels(classification)["topic"]
            self.changed.notify_all()

    def wait_for(self, more):
        """Returns when so many more documents are answered."""
        with self.changed:
            count = len(self.topics) + more
            assert self.changed.wait_for(lambda: len(self.topics) >= count, CALL_LIMIT_S)

    def check(self, names):
        """Each document has its answer, and the right one."""
        assert self.topics == {name: TOPICS[name % 2] for name in names}


def text_of(name):
    """A text of its own for each document."""
    return f"{name} {TEXTS[name % 2]}"


def call_each(stub, api, load, names, pool, workers=16):  # noqa: F811
    """One Classify for each document, as often as it takes."""
    names = iter(names)
    lock = threading.Lock()

    def answer(name):
        retries = Retries(load)
        while True:
            try:
                return classify(stub, api, "", text_of(name)).classification
            except grpc.RpcError as error:
                retries.wait(error)

    def work():
        while True:
            with lock:
                name = next(names, None)
            if name is None:
                return
            load.record(name, answer(name))

    return [pool.submit(work) for _ in range(workers)]


def stream_all(stub, api, load, names):  # noqa: F811
    """A ClassifyStream for all documents, and another for those unanswered when it breaks."""
    messages = api[0]
    unanswered = set(names)
    retries = Retries(load)
    while unanswered:
        documents = [messages.Document(id=str(name), text=text_of(name)) for name in sorted(unanswered)]
        requests = (messages.ClassifyStreamRequest(document=document) for document in documents)
        try:
            for reply in stub.ClassifyStream(requests, timeout=CALL_LIMIT_S):
                name = int(reply.result.id)
                assert reply.result.HasField("classification"), reply.result.error
                load.record(name, reply.result.classification)
                unanswered.remove(name)
        except grpc.RpcError as error:
            retries.wait(error)


def test_a_server_killed_under_load_loses_no_call(servers, nginx, stub, api):  # noqa: F811
    names = range(150)
    load = Load()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = call_each(stub, api, load, names, pool)
        load.wait_for(50)
        servers[0].process.kill()
        for worker in work:
            worker.result(timeout=CALL_LIMIT_S)
    load.check(names)
    # Both had been answering, and calls that the killed one had were tried again.
    assert nginx.answered_by() == {server.address for server in servers}
    assert load.codes


def test_a_server_killed_under_streams_loses_no_document(servers, nginx, stub, api):  # noqa: F811
    parts = [range(start, start + 50) for start in range(0, 200, 50)]
    load = Load()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = [pool.submit(stream_all, stub, api, load, part) for part in parts]
        load.wait_for(20)
        servers[0].process.kill()
        for worker in work:
            worker.result(timeout=CALL_LIMIT_S)
    load.check(range(200))
    assert load.codes


def test_servers_replaced_one_by_one_lose_no_call(servers, nginx, stub, api):  # noqa: F811
    load = Load()
    stop = threading.Event()
    sent = []
    names = itertools.takewhile(lambda name: not stop.is_set() and not sent.append(name), itertools.count())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        work = call_each(stub, api, load, names, pool)
        try:
            for index, server in enumerate(servers):
                load.wait_for(30)
                server.channel.close()
                assert server.stop() == 0
                servers[index] = Server(*SETTINGS, listen=server.address)
            load.wait_for(30)
        finally:
            stop.set()
        for worker in work:
            worker.result(timeout=CALL_LIMIT_S)
    load.check(sent)


def test_no_server_at_all_is_unavailable(servers, nginx, stub, api):  # noqa: F811
    for server in servers:
        server.process.kill()
        server.process.wait()
    for _ in range(3):  # first each is found to be down, and then none is left to ask
        with pytest.raises(grpc.RpcError) as refused:
            classify(stub, api, "", SPORT)
        assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        assert refused.value.details() == "no server answered"


def test_with_tls_on_both_sides_tokens_pass_through(api, tmp_path):  # noqa: F811
    (tls := tmp_path / "tls").mkdir()
    authority = self_signed(tls)
    shutil.copy(tls / "tls.crt", tls / "ca.crt")
    (tls / "tokens").write_text(f"newsroom {TOKEN}\n", encoding="utf-8")
    secured = ["--tls-cert", tls / "tls.crt", "--tls-key", tls / "tls.key", "--tokens-file", tls / "tokens"]
    credentials = grpc.ssl_channel_credentials(authority)
    options = [("grpc.ssl_target_name_override", "tasnif.example")]
    server = Server(*SETTINGS, *map(str, secured), credentials=credentials, options=options)
    (directory := tmp_path / "nginx").mkdir()
    nginx = Nginx(directory, [server.address, f"127.0.0.1:{free_port()}"], tls=tls)
    try:
        with grpc.secure_channel(nginx.address, credentials, options) as channel:
            grpc.channel_ready_future(channel).result(timeout=CALL_LIMIT_S)
            stub = api[1].ClassifierStub(channel)  # noqa: F811
            request = api[0].ClassifyRequest(document=api[0].Document(text=SPORT))
            with pytest.raises(grpc.RpcError) as refused:
                stub.Classify(request, timeout=CALL_LIMIT_S)
            assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            reply = stub.Classify(request, timeout=CALL_LIMIT_S, metadata=[("authorization", f"Bearer {TOKEN}")])
            assert labels(reply.classification)["topic"] == "sport"
    finally:
        nginx.stop()
        server.channel.close()
        assert server.stop() == 0
