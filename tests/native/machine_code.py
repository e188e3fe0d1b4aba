"""The loops of compiled kernels and the instructions of each, by class, counted from nvdisasm's listing.

python -m tests.native.machine_code kernel.cubin
python -m tests.native.machine_code csrc/ortho/cuda/srip.cu --kernel rank_update --arch 90
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

# The first class that fits an opcode is its own.
CLASSES = {
    "control": r"BRA|BRX|BAR|BSSY|BSYNC|BREAK|WARPSYNC|ENDCOLL|LDGDEPBAR|DEPBAR|SYNCS|YIELD|CALL|RET|EXIT|NOP|MEMBAR",
    "matrix": r"\w+MMA\b",
    "shared": r"LDS|STS|ATOMS",
    "global": r"LDG|STG|LD\b|ST\b|RED|ATOMG?\b|UBLKCP|UTMA",
    "move": r"U?MOV|HFMA2\.MMA|U?CS2R|S2U?R|R2UR|R2P|P2R|SHFL|VOTE|U?LDC",
    "convert": r"F2|I2F|FRND|HADD2\.F32",
    "float": r"[FDH](ADD|FMA|MUL|SET|SEL|MNMX)|MUFU",
    "integer": r"U?(IMAD|IADD|LEA|SHF|SHL|SHR|LOP|ISETP|IABS|IMNMX|VIADD|VIMNMX|PRMT|SEL|SGXT|BMSK|PLOP|I2I)",
}
BYTES = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16}  # of a load; without a mark it is 4


@dataclass
class Instruction:
    address: int
    opcode: str  # with its modifiers: HMMA.16816.F32.BF16
    predicated: bool
    operands: str

    @property
    def targets(self) -> list[str]:
        return re.findall(r"\.L\w+", self.operands)

    @property
    def jumps(self) -> bool:
        """Whether it may go on elsewhere. The detour of a divergent warp (BRA.DIV) is no part of a loop."""
        return self.opcode.startswith(("BRA", "BRX", "JMP")) and ".DIV" not in self.opcode

    @property
    def leaves(self) -> bool:
        """Whether the next instruction is never the next one executed."""
        if self.predicated or not (self.jumps or self.opcode.startswith(("EXIT", "RET"))):
            return False
        return not re.match(r"!?U?P\d", self.operands)

    @property
    def read_registers(self) -> set[str]:
        """Of what is wider than a register, the first."""
        writes = not self.opcode.startswith(("ST", "RED", "BAR", "BRA"))
        return set(re.findall(r"\bR\d+", self.operands.partition(",")[2] if writes else self.operands))

    @property
    def loaded_bytes(self) -> int:
        """From global memory, by each thread."""
        if not re.match(r"LDG(STS)?\.", self.opcode):
            return 0
        return next((BYTES[mark] for mark in self.opcode.split(".")[1:] if mark in BYTES), 4)


@dataclass
class Loop:
    """All that lies between a head and the branches back to it, less the loops inside."""

    head: str
    depth: int  # the number of loops around it
    innermost: bool
    instructions: list[Instruction]

    def count(self, pattern: str) -> int:
        """Instructions whose opcode begins with `pattern`."""
        return sum(re.match(pattern, each.opcode) is not None for each in self.instructions)

    @property
    def loaded_bytes(self) -> int:
        return sum(each.loaded_bytes for each in self.instructions)

    @property
    def wide_bytes(self) -> int:
        """Of these, those that come 16 at a time."""
        return sum(each.loaded_bytes for each in self.instructions if each.loaded_bytes == 16)

    def awaited_at_once(self) -> list[str]:
        """What reads a 16-byte load's registers further down in the same round, and so waits for it: one each."""
        found = []
        for place, load in enumerate(self.instructions):
            if load.loaded_bytes != 16 or "LDGSTS" in load.opcode:
                continue
            first = int(re.match(r"R(\d+)", load.operands)[1])
            registers = {f"R{number}" for number in range(first, first + 4)}
            readers = (each for each in self.instructions[place + 1 :] if registers & each.read_registers)
            found += [f"{each.opcode} {each.operands}" for each in list(readers)[:1]]
        return found

    def classes(self) -> dict[str, int]:
        totals = Counter(class_of(each.opcode) for each in self.instructions)
        return {name: totals[name] for name in (*CLASSES, "other") if totals[name]}


def class_of(opcode: str) -> str:
    return next((name for name, pattern in CLASSES.items() if re.match(pattern, opcode)), "other")


def nvdisasm() -> str | None:
    """NVIDIA's disassembler, of the toolkit or of the triton wheel."""
    if found := shutil.which("nvdisasm"):
        return found
    try:
        import triton
    except ImportError:
        return None
    own = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
    return str(own) if own.exists() else None


def disassemble(cubin: Path) -> dict[str, str]:
    """The listing of each kernel, by its mangled name."""
    listing = subprocess.run([nvdisasm(), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
    sections = listing.split("\n\t.section\t.text.")[1:]
    return {section.partition(",")[0]: section for section in sections}


def loops(listing: str) -> list[Loop]:
    """All loops of a kernel in the order of their heads, outer ones before those that they hold."""
    blocks, labels = _blocks(listing)
    follows = _successors(blocks, labels)
    bodies: dict[int, set[int]] = {}
    back_edges, before = _walk(follows)
    for tail, head in back_edges:
        bodies.setdefault(head, {head}).update(_reaching(tail, head, before))
    names = {block: label for label, block in reversed(labels.items())}
    found = []
    for head, body in sorted(bodies.items()):
        inside = set().union(*(other for other in bodies.values() if other < body))
        depth = sum(body < other for other in bodies.values())
        own = [each for block in sorted(body - inside) for each in blocks[block]]
        found.append(Loop(names[head], depth, not inside, own))
    return found


def main_loop(listing: str, pattern: str, loads: bool = False) -> Loop:
    """Of the loops with an opcode that with the most 16-byte loads, then the most of the opcode; of several, the longest.

    So it is the loop for operands that are aligned. A loop that holds none comes before those that hold others. With
    `loads`, it loads from global memory itself. ValueError where there is none.
    """
    fitting = [loop for loop in loops(listing) if loop.count(pattern) and (loop.loaded_bytes or not loads)]
    if not fitting:
        raise ValueError(f"no loop holds {pattern}" + " and loads from global memory" * loads)
    return max(fitting, key=lambda loop: (loop.wide_bytes, loop.innermost, loop.count(pattern), len(loop.instructions)))


def _blocks(listing: str) -> tuple[list[list[Instruction]], dict[str, int]]:
    """Runs of instructions that are entered at the first alone, and the block that each label stands before."""
    blocks: list[list[Instruction]] = [[]]
    labels: dict[str, int] = {}
    for line in listing.splitlines():
        if label := re.match(r"(\.L\w+):", line):
            if blocks[-1]:
                blocks.append([])
            labels[label[1]] = len(blocks) - 1
        elif found := re.match(r"\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)\s*(.*)", line):
            each = Instruction(int(found[1], 16), found[3], found[2] is not None, found[4])
            blocks[-1].append(each)
            if each.jumps or each.leaves:
                blocks.append([])
    return blocks, labels


def _successors(blocks: list[list[Instruction]], labels: dict[str, int]) -> list[list[int]]:
    follows: list[list[int]] = []
    for index, block in enumerate(blocks):
        last = block[-1] if block else None
        after = [] if (last and last.leaves) or index + 1 == len(blocks) else [index + 1]
        if last and last.jumps:
            after += [labels[target] for target in last.targets if target in labels]
        follows.append(after)
    return follows


def _walk(follows: list[list[int]]) -> tuple[list[tuple[int, int]], dict[int, list[int]]]:
    """From the entry: the branches to a block on the way by which they were reached, and what comes before a block."""
    way, walks, seen = [0], [iter(follows[0])], {0}
    back_edges, before = [], defaultdict(list)
    while way:
        block = next(walks[-1], None)
        if block is None:
            way.pop()
            walks.pop()
            continue
        before[block].append(way[-1])
        if block in way:
            back_edges.append((way[-1], block))
        elif block not in seen:
            seen.add(block)
            way.append(block)
            walks.append(iter(follows[block]))
    return back_edges, before


def _reaching(tail: int, head: int, before: dict[int, list[int]]) -> set[int]:
    """The blocks from which `tail` is reached without passing `head`."""
    reached, waiting = {head}, [tail]
    while waiting:
        block = waiting.pop()
        if block not in reached:
            reached.add(block)
            waiting += before[block]
    return reached


def _cubin(file: Path, architecture: str, folder: str) -> Path:
    """The file itself, or what the package's build would make of a source."""
    if file.suffix != ".cu":
        return file
    from ortho_kernels import cuda_toolkit

    target = Path(folder) / f"{file.stem}.cubin"
    target_of = tuple(divmod(int(architecture), 10))
    arch = [f"-gencode=arch={cuda_toolkit.virtual(target_of)},code={cuda_toolkit.machine(target_of)}"]
    command = [cuda_toolkit.find_toolkit().nvcc, *cuda_toolkit.FLAGS, *arch, "-cubin", file, "-o", target]
    subprocess.run(list(map(str, command)), check=True)
    return target


def _print_loops(kernel: str, listing: str) -> None:
    print(kernel)
    for loop in loops(listing):
        counts = "  ".join(f"{name} {count}" for name, count in loop.classes().items())
        loaded = f"  [{loop.loaded_bytes} bytes loaded]" if loop.loaded_bytes else ""
        print(f"  {'  ' * loop.depth}{loop.head:10} {len(loop.instructions):5}: {counts}{loaded}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="a cubin (ours or Triton's), or a source of kernels")
    parser.add_argument("--kernel", default="", help="of these alone: a regular expression for the mangled name")
    parser.add_argument("--arch", default="90", help="for a source: the architecture (default: 90)")
    parser.add_argument("--opcodes", metavar="LABEL", help="also the opcodes of the loop with this head")
    arguments = parser.parse_args()
    if nvdisasm() is None:
        sys.exit("no nvdisasm: install a CUDA toolkit that has it, or triton")
    with tempfile.TemporaryDirectory() as folder:
        listings = disassemble(_cubin(arguments.file, arguments.arch, folder))
    for kernel, listing in listings.items():
        if re.search(arguments.kernel, kernel):
            _print_loops(kernel, listing)
            for loop in loops(listing):
                if loop.head == arguments.opcodes:
                    for opcode, count in Counter(each.opcode for each in loop.instructions).most_common():
                        print(f"    {count:5} {opcode}")
