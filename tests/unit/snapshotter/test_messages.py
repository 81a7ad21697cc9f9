"""The wire format of messages is that of the protobuf library."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    field_mask_pb2,
    message_factory,
    timestamp_pb2,
)
from hypothesis import given
from hypothesis import strategies as st

from publisher.snapshotter.messages import decoder, encoder

_FIELD = descriptor_pb2.FieldDescriptorProto
LABELS = st.dictionaries(st.text(), st.text(), max_size=4)
NUMBERS = st.integers(-(2**63), 2**63 - 1)


def _library_class() -> Any:
    """Containerd's Info with all kinds of fields, made of descriptors of its own."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/info.proto",
        package="tests",
        syntax="proto3",
        dependency=[timestamp_pb2.DESCRIPTOR.name, field_mask_pb2.DESCRIPTOR.name],
    )
    info = file.message_type.add(name="Info")
    scalars = (("name", 1, "STRING"), ("parent", 2, "STRING"), ("kind", 3, "INT32"))
    for name, number, kind in scalars:
        info.field.add(name=name, number=number, type=getattr(_FIELD, f"TYPE_{kind}"), label=1)
    for name, number in (("created_at", 4), ("updated_at", 5)):
        info.field.add(
            name=name,
            number=number,
            type=_FIELD.TYPE_MESSAGE,
            label=1,
            type_name=".google.protobuf.Timestamp",
        )
    entry = info.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    for name, number in (("key", 1), ("value", 2)):
        entry.field.add(name=name, number=number, type=_FIELD.TYPE_STRING, label=1)
    info.field.add(
        name="labels",
        number=6,
        type=_FIELD.TYPE_MESSAGE,
        label=3,
        type_name=".tests.Info.LabelsEntry",
    )
    update = file.message_type.add(name="Update")
    update.field.add(name="snapshotter", number=1, type=_FIELD.TYPE_STRING, label=1)
    update.field.add(
        name="info", number=2, type=_FIELD.TYPE_MESSAGE, label=1, type_name=".tests.Info"
    )
    update.field.add(
        name="update_mask",
        number=3,
        type=_FIELD.TYPE_MESSAGE,
        label=1,
        type_name=".google.protobuf.FieldMask",
    )
    usage = file.message_type.add(name="Usage")
    for name, number in (("size", 1), ("inodes", 2)):
        usage.field.add(name=name, number=number, type=_FIELD.TYPE_INT64, label=1)
    pool = descriptor_pool.DescriptorPool()
    for dependency in (timestamp_pb2, field_mask_pb2):
        pool.AddSerializedFile(dependency.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tests.{name}"))
        for name in ("Update", "Usage")
    }


LIBRARY = _library_class()


@given(st.text(), st.text(), LABELS, st.lists(st.text()), NUMBERS)
def test_a_message_of_the_library_is_read_and_one_for_it_is_written(
    name: str, parent: str, labels: dict[str, str], paths: list[str], seconds: int
) -> None:
    message = LIBRARY["Update"](snapshotter="x", update_mask={"paths": paths})
    message.info.name, message.info.parent, message.info.kind = name, parent, 3
    message.info.created_at.seconds = seconds
    message.info.labels.update(labels)
    value = decoder("Update")(message.SerializeToString())
    assert value["update_mask"] == {"paths": paths}
    info = value["info"]
    assert (info["name"], info["parent"], info["kind"]) == (name, parent, 3)
    assert info["created_at"] == {"seconds": seconds, "nanos": 0}
    assert info["updated_at"] == {"seconds": 0, "nanos": 0}
    assert {pair["key"]: pair["value"] for pair in info["labels"]} == labels
    again = LIBRARY["Update"].FromString(encoder("Update")(value))
    message.info.updated_at.SetInParent()
    assert again == message


@given(NUMBERS, NUMBERS)
def test_numbers_are_those_of_the_library(size: int, inodes: int) -> None:
    message = LIBRARY["Usage"](size=size, inodes=inodes)
    value = {"size": size, "inodes": inodes}
    assert encoder("Usage")(value) == message.SerializeToString()
    assert decoder("Usage")(message.SerializeToString()) == value


@given(st.binary())
def test_other_bytes_are_a_message_or_a_value_error(data: bytes) -> None:
    try:
        decoder("Update")(data)
    except ValueError:
        return


def test_an_unknown_field_is_ignored() -> None:
    for field in (b"\x78\x01", b"\x79" + bytes(8), b"\x7d" + bytes(4), b"\x7a\x02xx"):
        assert decoder("ByKey")(b"\x12\x01k" + field) == {"snapshotter": "", "key": "k"}


@pytest.mark.parametrize("data", [b"\x12", b"\x12\x05k", b"\x12\xff", b"\x13", b"\x10\x01"])
def test_a_message_that_is_cut_off_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decoder("ByKey")(data)
