"""A client of the Container Runtime Interface, by which a kubelet uses containerd.

Source: k8s.io/cri-api, pkg/apis/runtime/v1/api.proto. A message is written as a dictionary from the
numbers of its fields to their values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import grpc

Message = Mapping[int, Any]

_HOST = 2
"""The namespace mode NODE: the namespaces of the machine."""


class Cri:
    """Calls containerd's CRI services at `socket`."""

    def __init__(self, socket: str) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def close(self) -> None:
        self._channel.close()

    def pull(self, reference: str) -> None:
        self._call("ImageService", "PullImage", {1: {1: reference}})

    def start_pod(self, name: str) -> str:
        """Start a pod in the machine's network, and return its ID."""
        options = {1: _HOST, 2: _HOST, 3: _HOST}
        return self._id("RunPodSandbox", {1: _pod(name) | {8: {2: {1: options}}}})

    def start_container(
        self, pod: str, name: str, image: str, command: list[str], volumes: Mapping[str, str]
    ) -> str:
        """Start a container with images as volumes, by their paths; return its ID."""
        mounts = [{1: path, 3: 1, 9: {1: reference}} for path, reference in volumes.items()]
        config = {1: {1: name}, 2: {1: image}, 3: command, 7: mounts}
        container = self._id("CreateContainer", {1: pod, 2: config, 3: _pod(name)})
        self._call("RuntimeService", "StartContainer", {1: container})
        return container

    def execute(self, container: str, *command: str) -> str:
        """Run a command in a container, and return its output."""
        request = {1: container, 2: list(command), 3: 60}
        answer = dict(_fields(self._call("RuntimeService", "ExecSync", request)))
        assert not answer.get(3), answer
        return bytes(answer.get(1, b"")).decode()

    def remove_pod(self, pod: str) -> None:
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            self._call("RuntimeService", method, {1: pod})

    def _id(self, method: str, request: Message) -> str:
        [(number, found)] = _fields(self._call("RuntimeService", method, request))
        assert number == 1 and isinstance(found, bytes)
        return found.decode()

    def _call(self, service: str, method: str, request: Message) -> bytes:
        call = self._channel.unary_unary(f"/runtime.v1.{service}/{method}")
        return bytes(call(_encode(request), wait_for_ready=True, timeout=120))


def _pod(name: str) -> dict[int, Any]:
    return {1: {1: name, 2: name, 3: "default"}}


def _encode(message: Message) -> bytes:
    parts = bytearray()
    for number, value in message.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, int):
                parts += _number(number << 3) + _number(each)
            else:
                data = _encode(each) if isinstance(each, Mapping) else each.encode()
                parts += _number(number << 3 | 2) + _number(len(data)) + data
    return bytes(parts)


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the numbers of a message's fields, with their integers or bytes."""
    position = 0

    def number() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(data):
        tag = number()
        if tag & 7 == 0:
            yield tag >> 3, number()
            continue
        assert tag & 7 == 2
        length = number()
        yield tag >> 3, data[position : position + length]
        position += length
