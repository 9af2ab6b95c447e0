#!/usr/bin/python3
"""How long a daemon takes from its start to its ready line, and how much memory it takes, beside the size of its weights.

    bench_start.py --binary build/steerd FOLDER ...

Inside the window: exec, settings, mapping and checking the file, packing every matrix, the tokenizer, buffers, keys and
values, listening. Each folder is started RUNS times and the least is told: the file is in the page cache then, as it is on a
machine that serves it twice. Peak is VmHWM and counts mapped pages of the file while they are looked at; settled is VmRSS
at the ready line, of it anonymous memory, which the file cannot stand in for."""
import argparse
import os
import pathlib
import subprocess
import time

RUNS = 3
MIB = 1 << 20


def status(pid):
    with open(f"/proc/{pid}/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) * 1024 for name in ("VmHWM", "VmRSS", "RssAnon")}


def start(binary, folder):
    begun = time.monotonic()
    process = subprocess.Popen([binary, "serve", "--listen", "127.0.0.1:0", "--core-dumps", "yes", "--model", f"m={folder}"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        line = process.stdout.readline()
        seconds = time.monotonic() - begun
        assert line.startswith(b"ready "), f"{folder}: it did not start"
        return seconds, status(process.pid)
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("folders", nargs="+")
    arguments = parser.parse_args()
    print(f"{'folder':<28} {'weights':>10} {'ready':>9} {'peak':>10} {'settled':>10} {'anonymous':>10}")
    for folder in arguments.folders:
        size = sum(path.stat().st_size for path in pathlib.Path(folder).glob("*.safetensors"))
        seconds, memory = min((start(arguments.binary, folder) for _ in range(RUNS)), key=lambda run: run[0])
        mib = [f"{memory[name] / MIB:.0f} MiB" for name in ("VmHWM", "VmRSS", "RssAnon")]
        print(f"{os.path.relpath(folder):<28} {size / MIB:>6.0f} MiB {seconds * 1e3:>6.0f} ms {mib[0]:>10} {mib[1]:>10} {mib[2]:>10}")


if __name__ == "__main__":
    main()
