"""Makes C++ of a file of PTX: a function for each kernel, over machine.h, and a table of them.

    translate.py KERNELS.ptx OUT.cpp
"""
import pathlib
import sys

from emit import C, Writer
from parse import Label, Unknown, read_module

SHARED_BEGIN, GAP = 1024, 64  # as in machine.h; between variables, so that what runs over an end is seen
NOTHING = {"pred": "true", "f32": "bits<float>(~0u)", "f64": "bits<double>(~0ull)"}  # of a register that nobody has written


def place_shared(kernel):
    """Addresses of the variables, and where that begins which a launch gives: no better aligned than it has to be."""
    addresses, at = {}, SHARED_BEGIN
    for one in (one for one in kernel.shared if one.size):
        if one.align > 16:
            raise Unknown(f"{kernel.name}: {one.name} wants to be aligned to {one.align} bytes")
        addresses[one.name] = at
        at += (one.size + 15) // 16 * 16 + GAP
    at += 16 - at % 32 if at % 32 <= 16 else 48 - at % 32
    for one in (one for one in kernel.shared if not one.size):
        addresses[one.name] = at
    return addresses, at


def static_bytes(kernel):
    total = 0
    for one in (one for one in kernel.shared if one.size):
        total = (total + one.align - 1) // one.align * one.align + one.size
    return total


def translate_body(kernel, path, writer):
    """C++ of the instructions; and (line, instructions, bytes of global memory read, written) of each segment."""
    targets = {one.operands[0] for one in kernel.body if not isinstance(one, Label) and one.name.split(".")[0] == "bra"}
    body, segments, fresh = [], [], True
    for one in kernel.body:
        if isinstance(one, Label):
            if one.name in targets:
                body.append(writer.label(one))
                fresh = True
            continue
        if fresh:
            body.append(f"RAN({len(segments)});")
            segments.append([one.line, 0, 0, 0])
            fresh = False
        body.append(f'#line {one.line} "{path.name}"\n  {writer.statement(one)}')
        read, written = writer.traffic
        segments[-1] = [segments[-1][0], segments[-1][1] + 1, segments[-1][2] + read, segments[-1][3] + written]
        fresh = one.name.split(".")[0] in ("bra", "ret")
    if targets - writer.labels:
        raise Unknown(f"{path}: {kernel.name} jumps to {targets - writer.labels}, which is nowhere")
    return body, segments


def translate_kernel(kernel, path, number):
    addresses, dynamic = place_shared(kernel)
    writer = Writer(kernel, path, addresses)
    body, segments = translate_body(kernel, path, writer)
    lines = [f"/* {kernel.name} */"]
    if writer.n_sites:
        lines.append(f"static site sites_{number}[{writer.n_sites}];")
    held = [one for one in kernel.shared if one.size]
    if held:
        inside = ", ".join(f"{{{addresses[one.name]}, {one.size}}}" for one in held)
        lines.append(f"static const variable shared_{number}[] = {{{inside}}};")
    inside = ", ".join(f"{{{line}, {count}, {read}, {written}}}" for line, count, read, written in segments)
    lines.append(f"static const segment segments_{number}[] = {{{inside}}};")
    lines.append(f"COUNTERS(ran_{number}, {len(segments)});")
    lines.append(f"static void kernel_{number}(const view &v) {{")
    lines.append(f"  uint64_t *const ran = ran_{number};")
    if writer.n_sites:
        lines.append(f"  site *const sites = sites_{number};")
    lines.append("  (void)v, (void)ran;")
    lines += [f"  {C[kind]} {name} = {NOTHING.get(kind, f'({C[kind]})~0ull')};" for name, kind in kernel.registers.items()]
    lines += ["  " + text for text in body]
    lines.append("}")
    entry = (f'{{"{kernel.name}", kernel_{number}, {kernel.parameter_bytes}, {kernel.most_threads}, {static_bytes(kernel)}, '
             f"{f'shared_{number}' if held else 'nullptr'}, {len(held)}, {dynamic}, "
             f"segments_{number}, ran_{number}, {len(segments)}, 0, 0, nullptr}}")
    return lines, entry


def main():
    path, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    try:
        kernels = read_module(path)
        lines = [f"/* Made by tests/cuda_ptx/translate.py of {path}. */", '#include "tests/cuda_ptx/machine.h"', "using namespace ptx;"]
        entries = []
        for number, kernel in enumerate(kernels):
            made, entry = translate_kernel(kernel, path, number)
            lines += made
            entries.append(entry)
    except Unknown as why:
        sys.exit(f"translate.py: {why}")
    lines.append("static entry all[] = {" + ",\n  ".join(entries) + "};")
    lines.append("__attribute__((constructor)) static void tell() { know(all, sizeof all / sizeof *all); }")
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
