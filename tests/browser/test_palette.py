"""The colours of static/style.css as pairs: text has at least 4.5:1 on every ground it stands on, edges of controls 3:1.
Reads the file; needs no browser."""
import pathlib
import re

import pytest

STYLE = (pathlib.Path(__file__).resolve().parents[2] / "static" / "style.css").read_text()
COLOURS = dict((name, (light, dark)) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", STYLE))
TEXT = [(text, ground) for ground in ("ground", "card", "sunk") for text in ("ink", "soft", "accent")]
TEXT += [("accent", "accent-wash"), ("ink", "accent-wash"), ("on-accent", "accent"), ("warm", "warm-wash"), ("ink", "warm-wash"),
         ("bad", "bad-wash"), ("ink", "bad-wash"), ("ground", "ink"), ("ink", "heat"), ("ink", "cool"), ("soft", "warm-wash")]


def luminance(colour):
    parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    a, b = sorted((luminance(one), luminance(other)))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("text, ground", TEXT)
def test_text(text, ground, scheme):
    assert contrast(COLOURS[text][scheme], COLOURS[ground][scheme]) >= 4.5


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("mark, ground", [("edge", "ground"), ("edge", "card"), ("bar", "card"), ("accent", "card"), ("plus", "card"), ("plus", "sunk"), ("minus", "card"), ("minus", "sunk"), ("ink", "card")])
def test_edges_and_bars(mark, ground, scheme):
    assert contrast(COLOURS[mark][scheme], COLOURS[ground][scheme]) >= 3
