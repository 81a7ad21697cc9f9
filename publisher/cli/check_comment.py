"""The result of `publisher check` in Markdown: a comment for a pull request, with a table."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

from publisher.errors import printable
from publisher.ingest.check import UNTOUCHED, Report
from publisher.ingest.check_image import CheckedImage
from publisher.ingest.findings import Finding, Level
from publisher.lazy import pattern
from publisher.sizes import human_size, plural

_MARKS = {Level.ERROR: "❌", Level.WARNING: "⚠️", Level.NOTE: "✅"}
_MAX_ROWS = 100
"""A comment on GitHub may have 65,536 characters."""

_SPECIAL = pattern(r"([\\`*_\[\]|~#])")


def markdown(report: Report) -> str:
    """Return the comment: what happens if the change is merged, and what to do before."""
    images = [image for image in report.images if image.change not in UNTOUCHED]
    of_images = {finding for image in images for finding in image.findings}
    others = [finding for finding in report.findings if finding not in of_images]
    rows = [_image_row(image) for image in images]
    rows += [_finding_row(finding) for finding in others if not finding.earlier and finding.line]
    rows.sort(key=lambda row: row[0])
    lines = [f"### {_headline(report, len(images))}", "", _summary(report, images)]
    if rows:
        lines += ["", "| | line | image | size | new | time | what to do |"]
        lines += ["| --- | --- | --- | ---: | ---: | ---: | --- |"]
        lines += _limited([row[1] for row in rows], "| … | | and {} more | | | | |")
    notes = [finding for finding in others if finding.earlier or not finding.line]
    if notes:
        lines += ["", "<details>", "<summary>"]
        lines += [f"{plural(len(notes), 'note')} on what this change does not touch"]
        lines += ["</summary>", ""]
        lines += _limited([f"- {_place(n)} {_escaped(n.text)}" for n in notes], "- and {} more")
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _headline(report: Report, images: int) -> str:
    errors = sum(finding.level is Level.ERROR for finding in report.findings)
    if errors:
        return f"❌ Wish lists: {plural(errors, 'error')}"
    if images or not report.lists:
        return f"✅ Wish lists: {plural(images, 'image')} can be published"
    return "✅ Wish lists: no errors"


def _summary(report: Report, images: Sequence[CheckedImage]) -> str:
    good = [image for image in images if not image.error]
    parts = [f"{plural(len(good), 'image')} can be published"]
    if good:
        new = "" if report.new_size is None else f", {human_size(report.new_size)} of it new"
        parts.append(f"{human_size(report.download_size)} to download{new}")
    parts += [
        f"{_escaped(each.name)} compared with {_escaped(each.base.name)}"
        for each in report.lists
        if each.base is not None
    ]
    parts.append(f"checked in {report.seconds:.1f} s")
    return "; ".join(parts) + "."


_Row = tuple[tuple[str, int, int], str]
"""A row of the table, after its place by which rows are sorted."""


def _image_row(image: CheckedImage) -> _Row:
    level = min((f.level for f in image.findings), key=list(Level).index, default=Level.NOTE)
    known = not image.error
    new = "?" if image.new_size is None else human_size(image.new_size)
    cells = (
        _MARKS[level],
        f"{_escaped(image.wish_list)}:{image.line}",
        _code(image.name),
        human_size(image.size) if known else "",
        new if known else "",
        f"{image.seconds:.1f} s" if known else "",
        _advice(image.findings),
    )
    return (image.wish_list, image.line, image.column), f"| {' | '.join(cells)} |"


def _finding_row(finding: Finding) -> _Row:
    mark = _MARKS[finding.level]
    name = _code(finding.subject) if finding.subject else ""
    row = f"| {mark} | {_place(finding)} | {name} | | | | {_advice([finding])} |"
    return (finding.file, finding.line, finding.column), row


def _advice(findings: Iterable[Finding]) -> str:
    """Return the messages, each with what to do in bold letters."""
    texts = [
        f"{_escaped(f.message)}" + (f"<br>**{_escaped(f.hint)}**" if f.hint else "")
        for f in findings
    ]
    return "<br>".join(texts)


def _place(finding: Finding) -> str:
    return f"{_escaped(finding.file)}:{finding.line}" if finding.line else _escaped(finding.file)


def _limited(lines: Sequence[str], more: str) -> Iterator[str]:
    yield from lines[:_MAX_ROWS]
    if len(lines) > _MAX_ROWS:
        yield more.format(len(lines) - _MAX_ROWS)


def _escaped(text: str) -> str:
    """Return text from outside so that it is neither Markdown nor HTML, nor mentions a user."""
    safe = html.escape(printable(text), quote=False).replace("@", "&#64;")
    return _SPECIAL.sub(r"\\\1", safe).replace("&\\#64;", "&#64;")


def _code(text: str) -> str:
    if "\\" in text:  # "\\|" would end the cell, and what follows would be Markdown
        return f"<code>{_escaped(text)}</code>"
    return "`" + printable(text).replace("`", "'").replace("|", "\\|") + "`"
