"""What a stage of `gpu_day.py` left behind, in lines of JSON: its findings, and why it failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

# What a machine or a library says, and what that means for whoever reads the summary. The first that fits is the reason.
MEANINGS = {
    "no kernel image is available": "the library has no code for this card: build it for the card's architecture",
    "the provided PTX was compiled with an unsupported toolchain": "the driver is too old for the library's PTX",
    "CUDA driver version is insufficient": "the driver is too old for this CUDA",
    "driver on your system is too old": "the driver is too old for this torch",
    "the kernels need 8.0 or newer": "the card is older than compute capability 8.0",
    "Device not supported": "compute-sanitizer can't watch this device",
    "unable to open shared object": "a library can't be opened",
    "illegal memory access": "a kernel read or wrote outside of its memory",
    "OutOfMemoryError": "out of memory",
    "no GPU that torch can use": "no GPU that torch can use",
    "No supported gpu backend found": "no GPU that torch can use",
}
_ERROR_LINE = re.compile(
    r"WRONG|SUMMARY: (?!0 )|^E   |Error\b|^error|: error|\bfailed\b|can't|session-timeout|^Not timed", re.MULTILINE
)
# Each for one line: over all lines together, a stage that prints blank ones would be read for hours.
_REFUSED = re.compile(r"(cuda|triton) on cuda +no: (.*)")  # the CPU's backend has nothing to do there
_WRONG = re.compile(r"(\S.*?) +((?:the same bits twice, |)(?:WRONG|NOT the same|a CUDA graph replays WRONG).*)")
_WIDTH = 160  # of a reason
_LINE = 1000  # characters of a line that are looked at


def reason(printed: str) -> str:
    """One line on why a stage failed: what is known by name, else the last line that names an error, else the last one."""
    for mark, meaning in MEANINGS.items():
        if mark in printed:
            return meaning
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    line = "".join(each if each.isprintable() else " " for each in (errors or lines or ["it printed nothing"])[-1])
    return " ".join(line.split())[:_WIDTH]


def tested(path: Path) -> Iterator[dict]:
    """How many tests passed, failed and were skipped, by the XML that pytest wrote, and each that failed."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError):
        return
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    skips: dict[str, int] = {}
    for case in cases:
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if wrong is not None:
            counts["failed"] += 1
            yield {"test": f"{case.get('classname')}::{case.get('name')}", "error": _first(wrong.get("message"))}
        elif skipped is not None:
            counts["skipped"] += 1
            why = _first(skipped.get("message"))
            skips[why] = skips.get(why, 0) + 1
        else:
            counts["passed"] += 1
    for name, count in counts.items():
        yield {"case": name, "value": count, "unit": "tests"}
    for why, count in skips.items():
        yield {"skipped": why, "tests": count}


def verdict(findings: list[dict]) -> str | None:
    """Why tests that ended well still show nothing: none of them passed. None where some did."""
    counts = {finding["case"]: finding["value"] for finding in findings if finding.get("unit") == "tests"}
    failed = [finding for finding in findings if "test" in finding]
    if failed:
        first = f"{failed[0]['test']}: {failed[0]['error']}"
        return f"{len(failed)} failed, {counts.get('passed', 0)} passed; the first: {first}"
    if counts.get("passed", 0):
        return None
    skips = [finding for finding in findings if "skipped" in finding]
    return max(skips, key=lambda finding: finding["tests"])["skipped"] if skips else "no test ran"


def printed_figures(printed: str) -> Iterator[dict]:
    """What stands in the log alone: backends that the doctor left out, a sanitizer's count."""
    lines = [line.strip()[:_LINE] for line in printed.splitlines()]
    for match in filter(None, map(_REFUSED.match, lines)):
        yield {"case": match[1], "error": match[2]}
    for match in filter(None, map(_WRONG.match, lines)):
        yield {"case": " ".join(match[1].split()), "error": match[2]}
    for line in lines:
        if "SUMMARY:" in line:
            yield {"summary": line.strip("= ").strip()}


def _first(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[0][:_WIDTH] if lines else ""
