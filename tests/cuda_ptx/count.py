"""What kernels did in the programs that were run with STEERD_PTX_COUNT=FILE: launches, threads, instructions of PTX and bytes of global
memory a thread (counts, not times), and which part of their instructions ran at all.

    count.py FILE [--never KERNEL]   --never: lines of its PTX from which on instructions never ran, and how many
"""
import subprocess
import sys


def read(path):
    """name -> [launches, threads, {line: [instructions, read, written, ran]}]"""
    kernels, segments = {}, None
    for words in (line.split() for line in open(path)):
        if words[0] == "kernel":
            kernel = kernels.setdefault(words[1], [0, 0, {}])
            kernel[0] += int(words[2])
            kernel[1] += int(words[3])
            segments = kernel[2]
        else:
            line, instructions, read_, written, ran = map(int, words)
            segments.setdefault(line, [instructions, read_, written, 0])[3] += ran
    return kernels


def plain(names):
    shown = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout.split("\n")
    return [name.replace("void ", "").split("(")[0] for name in shown]


def main():
    kernels = read(sys.argv[1])
    if "--never" in sys.argv:
        for line, (instructions, _, _, ran) in sorted(kernels[sys.argv[-1]][2].items()):
            if not ran:
                print(line, instructions)
        return
    print("| kernel | launches | threads | instructions a thread | read | written | ran |\n| --- | --- | --- | --- | --- | --- | --- |")
    for shown, (launches, threads, segments) in zip(plain(list(kernels)), kernels.values()):
        sums = [sum(s[k] * s[3] for s in segments.values()) / max(threads, 1) for k in range(3)]
        all_, ran = sum(s[0] for s in segments.values()), sum(s[0] for s in segments.values() if s[3])
        print(f"| {shown} | {launches} | {threads} | {sums[0]:.0f} | {sums[1]:.1f} | {sums[2]:.1f} | {100 * ran // all_} % |")


if __name__ == "__main__":
    main()
