"""The journal of a session's prompts."""

from __future__ import annotations

import numpy as np

from dls.server.operations import Buffer, Carried, Operation
from dls.server.sessions import journal
from dls.server.sessions.journal import Manifest, Record
from dls.server.sessions.official_records import OfficialAnswer, OfficialRecord
from dls.server.volume import LASSO, Prompt


def test_records_are_decoded_as_they_were() -> None:
    """Every kind of prompt is decoded as it was; the journal ends before a record with a flipped bit."""
    rng = np.random.default_rng(0)
    records = [
        Record(Prompt.point(1, 2, 3, foreground=False), "a", 1),
        Record(Prompt(LASSO, True, (0, 5, 7), rng.random((1, 33, 65)) < 0.5), "b", 2),
        Record(Prompt.point(9, 8, 7, foreground=True), "", 4_000_000_000),
    ]
    manifest = journal.next_journal(Manifest("id", "m", "e"))
    parts, ends = [], [manifest.end]
    for record in records:
        assert ends[-1] is not None
        part, end = journal.encode_record(record, ends[-1])
        parts.append(part)
        ends.append(end)
    decoded = journal.decode_journal(b"".join(parts), manifest)
    assert decoded.ends == ends and decoded.ends[-1].length == sum(map(len, parts))
    for before, after in zip(records, decoded.records, strict=True):
        assert isinstance(after, Record)
        assert (before.request, before.mask_crc, before.prompt.kind) == (
            after.request,
            after.mask_crc,
            after.prompt.kind,
        )
        assert before.prompt.origin == after.prompt.origin and before.prompt.foreground == after.prompt.foreground
        np.testing.assert_array_equal(before.prompt.mask, after.prompt.mask)
    for at in (3, len(parts[0]) + 20, len(parts[0]) + len(parts[1]) - 1):
        data = bytearray(b"".join(parts))
        data[at] ^= 1
        assert len(journal.decode_journal(bytes(data), manifest).records) == (0 if at < len(parts[0]) else 1)


def test_operations_survive_encoding() -> None:
    """A manifest and records of an official session are decoded as they were, and a damaged record ends the journal."""
    carried = Carried(False, ((1, 2, 3), (4, 5, 6)), (1.0, 2.6666666666666665), Buffer((3, 4, 5), "int16"), "r")
    manifest = journal.next_journal(Manifest("id", "m", "e", carried=carried))
    assert journal.decode_manifest(journal.encode_manifest(manifest)) == manifest
    records = [
        OfficialRecord(Operation("undo"), "", OfficialAnswer(), Carried(), 0),
        OfficialRecord(
            Operation("add_lasso_interaction", {"interaction_bbox": [[0, 1], [2, 3], [4, 5]]}, bytes(range(256))),
            "name",
            OfficialAnswer(True, ((0, 1), (2, 3), (4, 5)), ((1, 2), (1, 2), (1, 2))),
            carried,
            4_000_000_000,
        ),
    ]
    data, end = b"", manifest.end
    for record in records:
        assert end is not None
        part, end = journal.encode_record(record, end)
        data += part
    decoded = journal.decode_journal(data, manifest)
    assert decoded.records == records and decoded.ends[-1] == end
    assert journal.decode_journal(data[:-1] + b"x", manifest).records == records[:1]
