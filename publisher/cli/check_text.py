"""The result of `publisher check` as text, and as a JSON document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from publisher.cli.rendering import failed_line, json_text
from publisher.errors import printable
from publisher.ingest.check import Report
from publisher.ingest.check_image import CheckedImage
from publisher.ingest.findings import Finding, Level
from publisher.sizes import human_size, plural
from publisher.wishlist.changes import Change


def json_document(report: Report) -> str:
    """Return the document `check/1`."""
    compared = [each for each in report.lists if each.base is not None]
    return json_text(
        "check/1",
        {
            "wishes": report.wishes,
            "problems": [asdict(problem) for problem in report.problems],
            "images": [_value(image) for image in report.images],
            "downloadBytes": report.download_size,
            "newBytes": report.new_size,
            "findings": [asdict(finding) for finding in report.findings],
            "comparisons": [
                {
                    "wishList": each.name,
                    "base": each.base.name if each.base else "",
                    "removed": len(each.changes.removed),
                }
                | {str(change): each.changes.count(change) for change in Change}
                for each in compared
            ],
            "seconds": round(report.seconds, 3),
        },
    )


def _value(image: CheckedImage) -> dict[str, object]:
    value: dict[str, object] = {
        "name": image.name,
        "reference": image.reference,
        "wishList": image.wish_list,
        "line": image.line,
        "column": image.column,
        "owner": image.owner,
        "change": image.change,
    }
    if image.error:
        return value | {"status": "failed", "error": image.error}
    return value | {
        "status": "ok",
        "digest": image.digest,
        "platforms": list(image.platforms),
        "layers": len(image.layers),
        "compressedBytes": image.size,
        "newBytes": image.new_size,
        "created": image.created,
        "seconds": round(image.seconds, 3),
    }


def text(report: Report, quiet: bool = False) -> str:
    """Return the lines for a terminal or a log; with `quiet`, without notes and what is good."""
    lines = _lines(report, quiet)
    return "".join(f"{printable(line, keep_line_breaks=True)}\n" for line in lines)


def _lines(report: Report, quiet: bool) -> Iterator[str]:
    for image in report.images:
        if not (quiet or image.error):
            layers = plural(len(image.layers), "layer")
            size = f"{human_size(image.size)} in {layers}{_new(image.new_size)}"
            yield f"ok: {image.name}  {size}  {', '.join(image.platforms)}"
    of_images = {finding for image in report.failed for finding in image.findings}
    others = [finding for finding in report.findings if finding not in of_images]
    for finding in others:
        if not (quiet and finding.level is Level.NOTE):
            yield printable(str(finding))
    for image in report.failed:
        place = image.wish_list, image.line, image.column
        yield failed_line(image.name, image.error, *place)
    if not quiet:
        yield ", ".join(_counts(report, others))


def _new(size: int | None) -> str:
    return "" if size is None else f", {human_size(size)} of it new"


def _counts(report: Report, others: Sequence[Finding]) -> Iterator[str]:
    yield plural(report.wishes, "wish")
    for each in report.lists:
        if each.base is not None:
            changed = {change: each.changes.count(change) for change in Change}
            altered = changed[Change.ALTERED] + changed[Change.TERMS]
            yield (
                f"{changed[Change.ADDED]} added, {altered} altered, {len(each.changes.removed)} "
                f"removed since {each.base.name}"
            )
    found = [image for image in report.images if not image.error]
    if report.images:
        size = human_size(report.download_size) + _new(report.new_size)
        yield f"{plural(len(found), 'image')} found ({size})"
    for count, what in (
        (len(report.failed), "failure"),
        (sum(f.level is Level.ERROR for f in others), "error"),
        (sum(f.level is Level.WARNING for f in others), "warning"),
        (sum(f.level is Level.NOTE for f in others), "note"),
    ):
        if count:
            yield plural(count, what)
