"""Hosts on a network of their own, and a switch between them that loses, delays and cuts.

Each host is a Linux network namespace with one interface, a TUN device whose other end the switch
holds: every packet between two hosts passes through this process, which can lose it, delay it,
duplicate it or drop it, in each direction separately. Programs there use the kernel's own TCP, with
all its timers. The machine's own network is not involved: the thread that makes a network, and
those that it starts meanwhile, are in a namespace of their own.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

# linux/sched.h and linux/if_tun.h
_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)
_NETWORK = "10.77.0"
_PACKET_MAX = 65535
CLIENT = "client"
"""The host on which this process is."""


@dataclass(frozen=True, slots=True)
class Wire:
    """What happens to packets from one host to another; the probabilities are per packet.

    A random part of the jitter is added to the delay, so that packets overtake each other.
    """

    cut: bool = False
    loss: float = 0.0
    doubles: float = 0.0
    delay_s: float = 0.0
    jitter_s: float = 0.0


GOOD = Wire()
CUT = Wire(cut=True)


class Network:
    """Hosts by name, with addresses, and the switch; to be used as a context."""

    def __init__(self, names, seed=1):
        self.addresses = {name: f"{_NETWORK}.{k}" for k, name in enumerate([CLIENT, *names], 1)}
        self._devices = {}
        self._holders = {}
        self._wires = {}
        self._random = random.Random(seed)
        self._thread = threading.Thread(target=self._forward, name="switch")
        self._ends = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as ends:
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            ends.callback(os.close, home)
            _call("unshare", _CLONE_NEWNET)
            ends.callback(_call, "setns", home, _CLONE_NEWNET)
            self._stop, wake = os.pipe()
            ends.callback(os.close, self._stop)
            _run("ip", "link", "set", "lo", "up")
            for name, address in self.addresses.items():
                self._join(name, address, ends)
            self._thread.start()
            ends.callback(self._thread.join)
            ends.callback(os.close, wake)
            self._ends = ends.pop_all()
        return self

    def __exit__(self, *_):
        self._ends.close()

    def _join(self, name, address, ends):
        """Make a host: its device is made here, where the switch keeps it open, and moved."""
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        ends.callback(os.close, device)
        self._devices[address] = device
        interface = f"host{len(self._devices)}"
        request = struct.pack("16sH22x", interface.encode(), _IFF_TUN | _IFF_NO_PI)
        fcntl.ioctl(device, _TUNSETIFF, request)
        if name != CLIENT:
            # It lasts as long as this process keeps the other end of its standard input.
            holder = ends.enter_context(
                subprocess.Popen(
                    ["unshare", "--net", "sh", "-c", "echo; exec cat"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            holder.stdout.readline()
            self._holders[name] = holder
            _run("ip", "link", "set", interface, "netns", str(holder.pid))
            _run(*self.on(name), "ip", "link", "set", "lo", "up")
        _run(*self.on(name), "ip", "address", "add", f"{address}/24", "dev", interface)
        _run(*self.on(name), "ip", "link", "set", interface, "up")

    def on(self, name):
        """The command prefix that runs a command on a host."""
        if name == CLIENT:
            return []
        return ["nsenter", f"--target={self._holders[name].pid}", "--net"]

    # what the switch does

    def one_way(self, sender, receiver, wire):
        """Treat packets from ``sender`` to ``receiver`` like this from now on."""
        self._wires[self.addresses[sender], self.addresses[receiver]] = wire

    def between(self, one, other, wire):
        """Treat packets between two hosts like this from now on."""
        self.one_way(one, other, wire)
        self.one_way(other, one, wire)

    def isolate(self, name, but=()):
        """Cut a host off from all others."""
        for other in self.addresses.keys() - {name, *but}:
            self.between(name, other, CUT)

    def everywhere(self, wire, but=(CLIENT,)):
        """Treat all packets like this from now on, except those to and from some hosts."""
        hosts = self.addresses.keys() - set(but)
        for sender in hosts:
            for receiver in hosts - {sender}:
                self.one_way(sender, receiver, wire)

    def heal(self):
        """Let all packets arrive from now on."""
        self._wires.clear()

    def _forward(self):
        """Until told to stop, read packets and forward each when its time has come."""
        late = []
        names = {device: address for address, device in self._devices.items()}
        poll = select.poll()
        for device in (*names, self._stop):
            poll.register(device, select.POLLIN)
        while True:
            wait_ms = max(0.0, late[0][0] - time.monotonic()) * 1000 if late else None
            for device, _ in poll.poll(wait_ms):
                if device == self._stop:
                    return
                self._take(device, names[device], late)
            now = time.monotonic()
            while late and late[0][0] <= now:
                _, _, receiver, packet = heapq.heappop(late)
                self._give(receiver, packet)

    def _take(self, device, sender, late):
        for _ in range(64):
            try:
                packet = os.read(device, _PACKET_MAX)
            except BlockingIOError:
                return
            if packet[0] >> 4 != 4:
                continue
            receiver = ".".join(str(byte) for byte in packet[16:20])
            wire = self._wires.get((sender, receiver), GOOD)
            if wire is GOOD:
                self._give(receiver, packet)
                continue
            chance = self._random.random
            if wire.cut or chance() < wire.loss:
                continue
            for _ in range(2 if chance() < wire.doubles else 1):
                at = time.monotonic() + wire.delay_s + wire.jitter_s * chance()
                heapq.heappush(late, (at, chance(), receiver, packet))

    def _give(self, receiver, packet):
        device = self._devices.get(receiver)
        if device is not None:
            with contextlib.suppress(BlockingIOError):  # a full queue drops packets, as usual
                os.write(device, packet)


def _run(*command):
    subprocess.run(command, check=True, capture_output=True)


def _call(name, *arguments):
    """A function of the C library that Python 3.11 does not have."""
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def obstacle():
    """Why there can be no such network here; empty if there can."""
    try:
        with Network(["there"]) as network:
            _run(*network.on("there"), "ip", "link", "show")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network of its own: {error}"
    return ""
