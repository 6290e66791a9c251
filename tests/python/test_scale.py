"""The tables of docs/scale.md: what is derived there follows from what was measured. After measuring anew, change the
table of inputs, run this, and put the rows that it prints in the place of the old ones."""

import math
import re

import pytest
from test_server import ROOT

PAGE = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
ARTICLES = 1e9
DAY_S, HOUR_S = 86_400, 3_600


def table(name):
    """The rows of the table under a comment that names it, as lists of cells, without its head."""
    found = re.search(rf"<!-- {name} -->\n+((?:\|.*\n)+)", PAGE)
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in found.group(1).splitlines()]
    return rows[0], rows[2:]


def inputs():
    """The symbols and their values."""
    _, rows = table("inputs")
    return {symbol: float(value.replace(",", "")) for _, symbol, value, _ in rows}


def rounded(value):
    """Three digits: more are not known."""
    digits = f"{value:.3g}"
    return f"{float(digits):,.0f}" if value >= 100 else f"{float(digits):g}"


def derived(given, speedup):
    """What the formulae of the page say for an encoder that is so many times faster than the one measured."""
    encode_s = given["T"] / (given["R"] * speedup)
    tokenize_s = given["T"] / given["K"]
    article_s = encode_s + tokenize_s + 1 / given["F"]
    core_hours = ARTICLES * article_s / HOUR_S
    node = given["c"] * given["u"] / article_s
    return {
        "articles a second on a core": rounded(1 / article_s),
        "articles a day on a core": rounded(DAY_S / article_s),
        "share of the encoder": f"{encode_s / article_s:.0%}".replace("%", " %"),
        "share of tokenising": f"{tokenize_s / article_s:.0%}".replace("%", " %"),
        "share of reading and writing": f"{1 / given['F'] / article_s:.0%}".replace("%", " %"),
        "core-hours for a billion": rounded(core_hours),
        "nodes for a billion in a week": f"{math.ceil(ARTICLES / (node * 7 * DAY_S)):,}",
        "cost of a billion, USD": rounded(core_hours / given["u"] * given["p"]),
        "articles a second on a node": rounded(node),
        "a node reads from the object store, MB/s": rounded(node * given["Z"] / 1e6),
        "a node's network as a gRPC server, MB/s": rounded(node * given["W"] / 1e6),
        "Python client processes for a node": str(math.ceil(node / given["P"])),
    }


def test_what_is_derived_follows_from_the_inputs():
    head, rows = table("derived")
    speedups = [float(cell.strip("×")) for cell in head[1:]]
    columns = [derived(inputs(), speedup) for speedup in speedups]
    expected = [[name, *(column[name] for column in columns)] for name in columns[0]]
    if rows != expected:
        pytest.fail("docs/scale.md should say:\n" + "\n".join(f"| {' | '.join(row)} |" for row in expected))
