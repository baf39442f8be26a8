"""Messages on an open stream, both ways: what waits, what comes, and how it ends."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from queue import Queue

import grpc
import pytest

from tests.cluster_fixture import free_ports
from twstock.rpc import duplex
from twstock.rpc.duplex import ClientStream, Outbox, ServerStream, StreamEnded, Unsupported

PATH = "/twstock.Test/Talk"


class Talk:
    """A server with one stream method; ``take`` is told each message, with the stream."""

    def __init__(self):
        self.took = Queue()
        self.over = Queue()
        self.reads_on = True
        self.streams = []
        self.server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        method = grpc.stream_stream_rpc_method_handler(self.talk)
        handler = grpc.method_handlers_generic_handler("twstock.Test", {"Talk": method})
        self.server.add_generic_rpc_handlers((handler,))
        self.address = f"127.0.0.1:{free_ports(1)}"
        self.server.add_insecure_port(self.address)
        self.server.start()

    def talk(self, _, context):
        """Answer each message with itself."""
        outbox = self.outbox = Outbox(encode)
        stream = ServerStream(context, lambda data: self.take(outbox, data), outbox.go_on)
        self.stream = stream
        self.streams.append(stream)
        stream.open()
        outbox.open(stream.send, stream.abort)
        stream.read_on()
        stream.wait()
        self.over.put("over")
        yield from ()

    def take(self, outbox, data):
        """A message has come."""
        if data == b"bad":
            raise ValueError("a message that nobody understands")
        self.took.put(data)
        outbox.put(data)
        return self.reads_on

    def close(self):
        """Stop, and end streams that would not end by themselves: at its exit the interpreter waits
        for their threads.
        """
        self.server.stop(0).wait()
        for stream in self.streams:
            stream._gone()


@pytest.fixture
def talk():
    """A server that talks."""
    server = Talk()
    yield server
    server.close()


@pytest.fixture
def channel(talk):
    """A channel to it."""
    with grpc.insecure_channel(talk.address) as made:
        yield made


def encode(data):
    """A message is its own bytes; one of them has none."""
    if data == b"unspeakable":
        raise ValueError("no bytes for this")
    return data


def opened(channel):
    """A stream on the channel, and where its messages wait."""
    outbox = Outbox(encode)
    stream = ClientStream(channel, PATH, outbox.go_on)
    stream.open()
    outbox.open(stream.send, stream.abort)
    return stream, outbox


def heard(stream):
    """All that comes, and how it ends, in a queue that another thread fills."""
    answers = Queue()

    def read():
        try:
            for data in stream.messages():
                answers.put(data)
        except StreamEnded as end:
            answers.put(end)

    threading.Thread(target=read, daemon=True).start()
    return answers


def test_an_outbox_sends_one_at_a_time_and_in_sequence():
    """Nothing before it is open. A message that is dropped while it waits, or needless when it is
    encoded, is left out.
    """
    sent = []
    outbox = Outbox(lambda data: None if data == b"needless" else data)
    for data in (b"1", b"needless", b"2"):
        outbox.put(data)
    assert sent == []
    outbox.open(sent.append, sent.clear)
    assert sent == [b"1"]
    outbox.put(b"3")
    assert sent == [b"1"]
    outbox.go_on()
    assert sent == [b"1", b"2"]
    for _ in range(2):
        outbox.go_on()
    assert sent == [b"1", b"2", b"3"]
    outbox.put(b"needless")
    outbox.put(b"4")
    assert sent == [b"1", b"2", b"3", b"4"]
    for data in (b"5", b"6"):
        outbox.put(data)
    for data in (b"5", b"4"):  # the latter is on its way, and no business of the outbox any more
        outbox.drop(data)
    outbox.go_on()
    outbox.go_on()
    assert sent == [b"1", b"2", b"3", b"4", b"6"]


def test_an_outbox_that_is_closed_keeps_nothing():
    """Neither what waits nor what comes later from somebody who has not heard of the end."""
    sent = []
    outbox = Outbox(bytes)
    outbox.open(sent.append, sent.clear)
    for data in (b"1", b"2"):
        outbox.put(data)
    outbox.close()
    outbox.go_on()
    outbox.put(b"3")
    outbox.go_on()
    assert (sent, len(outbox._waiting)) == ([b"1"], 0)


@pytest.mark.logs_failures
@pytest.mark.parametrize("whose", ["client", "server"])
def test_a_message_that_cannot_be_sent_ends_the_stream(talk, channel, whose):
    """Both sides learn of the end, so the messages behind it do not wait for ever."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    outbox.put(b"one")
    assert answers.get(timeout=20) == b"one"
    for data in (b"unspeakable", b"two"):
        (outbox if whose == "client" else talk.outbox).put(data)
    assert answers.get(timeout=20).code is grpc.StatusCode.CANCELLED
    assert talk.over.get(timeout=20) == "over"
    assert talk.took.qsize() == 1


def test_messages_arrive_whole_and_in_sequence(talk, channel):
    """Also when several threads send at once: each thread's messages in its sequence, none lost,
    none doubled.
    """
    stream, outbox = opened(channel)
    answers = heard(stream)
    threads = [
        threading.Thread(target=lambda n=n: [outbox.put(b"%d %d" % (n, i)) for i in range(300)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    came = [answers.get(timeout=20) for _ in range(1200)]
    for n in range(4):
        own = [data for data in came if data.startswith(b"%d " % n)]
        assert own == [b"%d %d" % (n, i) for i in range(300)]


def test_a_large_message_does_not_hold_up_the_end(talk, channel):
    """A sender whose messages are not read is held up by gRPC, until the channel ends."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    talk.reads_on = False
    for _ in range(20):
        outbox.put(bytes(1 << 20))
    assert len(answers.get(timeout=20)) == 1 << 20
    channel.close()
    assert answers.get(timeout=20).code is grpc.StatusCode.CANCELLED
    assert talk.over.get(timeout=20) == "over"
    outbox.put(b"for nobody")


def test_a_stream_that_reads_no_further_still_ends(talk, channel):
    """Then only the end of the call tells that the client is gone."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    talk.reads_on = False
    outbox.put(b"one")
    assert answers.get(timeout=20) == b"one"
    outbox.put(b"two")
    channel.close()
    assert talk.over.get(timeout=20) == "over"
    assert talk.took.qsize() == 1


def test_reading_on_brings_the_next_message(talk, channel):
    """After a pause the stream goes on where it was."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    talk.reads_on = False
    outbox.put(b"one")
    outbox.put(b"two")
    assert answers.get(timeout=20) == b"one"
    assert talk.took.qsize() == 1
    talk.stream.read_on()
    assert answers.get(timeout=20) == b"two"


@pytest.mark.logs_failures
def test_an_error_ends_the_stream_alone(talk, channel):
    """One thread of gRPC serves all streams, and must outlive an error in one of them."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    other, other_outbox = opened(channel)
    others = heard(other)
    outbox.put(b"bad")
    assert answers.get(timeout=20).code is grpc.StatusCode.OK
    assert talk.over.get(timeout=20) == "over"
    other_outbox.put(b"good")
    assert others.get(timeout=20) == b"good"


def test_cancelling_ends_both_sides(talk, channel):
    """A server that stops does not wait for its clients."""
    stream, outbox = opened(channel)
    answers = heard(stream)
    outbox.put(b"one")
    assert answers.get(timeout=20) == b"one"
    talk.stream._context.cancel()
    assert answers.get(timeout=20).code is grpc.StatusCode.CANCELLED
    assert talk.over.get(timeout=20) == "over"


def test_a_stream_ends_with_its_call_whatever_it_waits_for():
    """When a server stops, gRPC may never report on the message that was waited for. The thread
    that gRPC called must not wait for that, or the process never ends.
    """

    class Call:
        def start_server_batch(self, operations, tag):
            """Take an operation, and be silent for ever."""

    class Context:
        _rpc_event = type("Event", (), {"call": Call()})

        def send_initial_metadata(self, metadata):
            """The stream begins."""

        def add_callback(self, callback):
            self.over = callback
            return True

    context = Context()
    stream = ServerStream(context, lambda data: True, lambda: None)
    stream.open()
    stream.read_on()
    stream.send(b"one")
    waiting = threading.Thread(target=stream.wait, daemon=True)
    waiting.start()
    context.over()
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_reader_that_has_had_enough_ends_the_stream(talk, channel):
    """The other side is told, and what is sent later goes nowhere."""
    stream, outbox = opened(channel)
    outbox.put(b"one")
    with closing(stream.messages()) as messages:
        assert next(messages) == b"one"
    assert talk.over.get(timeout=20) == "over"
    outbox.put(b"for nobody")


def test_a_stream_to_nobody_is_unavailable():
    """It has the same status as any call to nobody."""
    with grpc.insecure_channel(f"127.0.0.1:{free_ports(1)}") as channel:
        stream, _ = opened(channel)
        with pytest.raises(StreamEnded) as ended:
            next(stream.messages())
    assert ended.value.code is grpc.StatusCode.UNAVAILABLE


def test_a_closed_channel_opens_no_stream(talk):
    """It raises what any call on a closed channel raises."""
    channel = grpc.insecure_channel(talk.address)
    channel.close()
    with pytest.raises(ValueError, match="closed"):
        opened(channel)


def test_another_version_of_grpc_is_reported_as_unsupported(talk, channel, monkeypatch):
    """Streams use parts of gRPC that are not public. If they are missing, an error of its own says
    so.
    """
    monkeypatch.setattr(duplex, "cygrpc", None)
    with pytest.raises(Unsupported):
        ClientStream(channel, PATH, lambda: None).open()
    with pytest.raises(Unsupported):
        ServerStream(object(), lambda data: True, lambda: None).open()
