"""What the compiler made of the kernels of the CUDA backend: fails where one keeps arrays in local memory, has more shared memory than
every device gives, cannot be launched with the blocks that the host asks for, or touches memory through the first cache before it has waited
for the kernel in front of it (device.cuh, grid_follow), or adds and multiplies in a way that ptxas may fuse; names those that put a few
registers aside.
Reads what `make cuda-quick` left beside its objects (ptxas -v, PTX); needs no device.

    audit.py build/cuda/sm_90 [--table]
"""
import pathlib
import re
import subprocess
import sys

REGISTERS, LARGEST_BLOCK, SHARED = 65536, 512, 48 * 1024  # of a multiprocessor; of row_threads; of a block that does not ask
ENTRY = re.compile(r"(?:Compiling entry function|Function properties for) '?([\w$]+)'?")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers.*?(?:, (\d+) bytes smem)?(?:,|$)")
MOST_STACK, MOST_SPILT = 160, 384  # bytes: some registers put aside; an array that a loop looks into is more


def usage(log):
    """(mangled name, registers, shared, stack, spilt) of each kernel."""
    name, frame = None, (0, 0)
    for line in log.read_text().splitlines():
        if found := ENTRY.search(line):
            name = found[1]
        elif found := FRAME.search(line):
            frame = int(found[1]), int(found[2]) + int(found[3])
        elif "Used " in line and name:
            shared = re.search(r"(\d+) bytes smem", line)
            yield name, int(USED.search(line)[1]), int(shared[1]) if shared else 0, *frame
            name, frame = None, (0, 0)


def bounded(source):
    """Names of kernels that say how large their blocks are."""
    text = source.read_text()
    return set(re.findall(r"__global__\s+void\s+__launch_bounds__\([^)]*\)\s+(\w+)", text))


ACCESS = re.compile(r"^\s*(?:@!?%p\d+\s+)?((?:ld|ldu|st|atom|red)\.\S+)", re.M)
PAST_THE_FIRST_CACHE = re.compile(r"(?:ld|st)\.(?:param|const|shared|local)|ld\.(?:global\.)?cg\b")


def early(ptx):
    """(mangled name, what is wrong) of each kernel that reads or writes too early, or never waits. Older devices run one after the other."""
    text = ptx.read_text()
    kernels = re.split(r"^\s*(?:\.visible\s+|\.weak\s+)?\.entry\s+", text, flags=re.M)[1:]
    for kernel in kernels if int(re.search(r"^\.target sm_(\d+)", text, re.M)[1]) >= 90 else []:
        name, (before, *after) = re.match(r"[\w$]+", kernel)[0], kernel.split("griddepcontrol.wait;", 1)
        if not after:
            yield name, "never waits for the kernel in front of it"
        for access in sorted({a for a in ACCESS.findall(before) if after and not PAST_THE_FIRST_CACHE.match(a)}):
            yield name, f"does {access} before it waits for the kernel in front of it"


def fusible(ptx):
    """(mangled name, instruction) where a sum or product does not say how it is rounded: ptxas may make one fma of two such, in some kernels
    and not in others, and the same row would no longer have the same bits in all of them (-fmad=false says it everywhere)."""
    name = None
    for line in ptx.read_text().splitlines():
        if entry := re.match(r"\s*(?:\.visible\s+|\.weak\s+)?\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)", line):
            name = entry[1]
        elif found := re.match(r"\s*(?:@!?%p\d+\s+)?((?:add|sub|mul|mad)(?:\.ftz|\.sat)*\.f(?:32|64)|(?:add|sub|mul)(?:\.ftz|\.sat)*\.(?:f16|bf16)\S*)\s", line):
            yield name, found[1]


def plain(names):
    shown = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    return [name.replace("void ", "") for name in shown]


def main():
    folder, faults, notes, rows = pathlib.Path(sys.argv[1]), [], [], []
    logs = sorted(folder.glob("core/math/cuda/*.usage"))
    for log in logs:
        source = pathlib.Path(log.relative_to(folder).with_suffix("").with_suffix(".cu"))
        limits, kernels = bounded(source), list(usage(log))
        for shown, (_, registers, shared, stack, spilt) in zip(plain([k[0] for k in kernels]), kernels):
            base = re.sub(r"<.*", "", shown)
            rows.append((source.name, shown, registers, shared, stack, spilt))
            if stack or spilt:
                large = stack > MOST_STACK or spilt > MOST_SPILT
                (faults if large else notes).append(f"{source}: {shown} keeps {stack} bytes in local memory and spills {spilt}")
            if shared > SHARED:
                faults.append(f"{source}: {shown} has {shared} bytes of shared memory, at most {SHARED} are there for every block")
            if base not in limits and registers * LARGEST_BLOCK > REGISTERS:
                faults.append(f"{source}: {shown} takes {registers} registers a thread: blocks of {LARGEST_BLOCK} do not start; bound them")
    for ptx in sorted(folder.glob("core/math/cuda/*.ptx")):
        found = list(early(ptx))
        found += [(name, f"does {what}, which may be fused") for name, what in dict.fromkeys(fusible(ptx))]
        faults += [f"{ptx.stem}.cu: {shown} {what}" for shown, (_, what) in zip(plain([name for name, _ in found]), found)]
    if "--table" in sys.argv:
        print("| file | kernel | registers | shared | stack |\n| --- | --- | --- | --- | --- |")
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row[:5]) + " |")
    print("\n".join(faults or notes + [f"audit: {len(rows)} kernels, {len(notes)} of them with registers put aside"]))
    return 1 if faults or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
