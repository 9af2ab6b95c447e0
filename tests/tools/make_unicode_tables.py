"""Writes core/base/unicode_tables.h from Python's copy of the Unicode Character Database.

    /usr/bin/python3 tests/tools/make_unicode_tables.py >core/base/unicode_tables.h

Python 3.11 carries Unicode 14.0, the version of Debian 12's PCRE2, so that both say the same about a character.
"""
import unicodedata as u

HANGUL = range(0xAC00, 0xD7A4)  # by arithmetic, not by table
POINTS = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000 and p not in HANGUL]


def rows(items, width=110):
    line = " "
    for item in items:
        if len(line) + len(item) + 2 > width:
            print(line)
            line = " "
        line += f" {item},"
    print(line)


def table(name, fields, items):
    print(f"\nstatic const {fields} {name}[] = {{")
    rows(items)
    print("};")


def decompositions(form, other):
    """Points that change under `form`, and otherwise than under `other`."""
    for p in POINTS:
        whole = u.normalize(form, chr(p))
        if whole != chr(p) and (other is None or whole != u.normalize(other, chr(p))):
            yield p, [ord(c) for c in whole]


def compositions():
    for p in POINTS:
        parts = u.decomposition(chr(p)).split()
        if len(parts) == 2 and parts[0][0] != "<" and u.normalize("NFC", chr(p)) == chr(p):
            yield int(parts[0], 16), int(parts[1], 16), p


def runs(of):
    """(first, last, value) of neighbours with the same value; None and 0 are left out."""
    out = []
    for p in POINTS:
        value = of(p)
        if not value:
            continue
        if out and out[-1][1] == p - 1 and out[-1][2] == value:
            out[-1][1] = p
        else:
            out.append([p, p, value])
    return out


def lower(p):
    """How far the lower case of a character is away."""
    text = chr(p).lower()
    return ord(text) - p if len(text) == 1 else None


def main():
    print(f"/* unicode_tables.h: Unicode {u.unidata_version}, made by tests/tools/make_unicode_tables.py. Included by unicode.c alone. */")
    pool, tables = [], []
    for form, other in (("NFD", None), ("NFKD", "NFD")):
        items = []
        for p, whole in decompositions(form, other):
            items.append(f"{{{p:#x}, {len(pool)}, {len(whole)}}}")
            pool += whole
        tables.append(items)
    assert len(pool) < 65536
    table("decomposed_points", "uint32_t", [f"{p:#x}" for p in pool])
    table("canonical", "struct decomposition", tables[0])
    table("compatible", "struct decomposition", tables[1])
    table("compositions", "struct composition", [f"{{{a:#x}, {b:#x}, {p:#x}}}" for a, b, p in sorted(compositions())])
    table("combining", "struct point_run", [f"{{{a:#x}, {b:#x}, {v}}}" for a, b, v in runs(lambda p: u.combining(chr(p)))])
    table("lower_case", "struct point_run", [f"{{{a:#x}, {b:#x}, {v}}}" for a, b, v in runs(lower)])


if __name__ == "__main__":
    main()
