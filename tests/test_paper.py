"""docs/where-the-paper-is.md is true: every place is there, and no part of the paper is left out."""

import ast

import pytest
from pages import ROOT, tables

PAGE = ROOT / "docs" / "where-the-paper-is.md"
ROWS = tables(PAGE)
EQUATIONS = ["Equation 1", *(f"Equation {number}" for number in range(4, 11)), "Table 1", "Figure 2", "95 % interval"]
ALGORITHM = [
    "Require: trained teacher model",
    "Require: text dataset and audio dataset",
    "Require: loss weight function w()",
    "Require: student sampling steps N",
    "for K iterations do",
    "theta <- eta",
    "while not converged do",
    "y ~ D_t, x ~ D_a",
    "tau = f_FLAN-T5(y)",
    "z_0 = f_AudioEncoder(x)",
    "t = i/N, i ~ Cat[1, ..., N]",
    "eps ~ N(0, I)",
    "z_t = alpha_t z_0 + sigma_t eps",
    "t' = t - 0.5/N, t'' = t - 1/N",
    "z_t' (first DDIM step of the teacher)",
    "z_t'' (second DDIM step) and target z~_0",
    "L_theta",
    "theta <- theta - gamma grad L_theta",
    "eta <- theta",
    "N <- N/2",
]
"""All lines of Algorithm 1 but the ends of its loops; z_t'' and the target are one step of ours."""


def place(link):
    """The file that a cell links to."""
    return (PAGE.parent / link.partition("](")[2].removesuffix(")")).resolve()


def definition(path, name):
    """The source of a function or class, found by its qualified name."""
    source = path.read_text()
    node = ast.parse(source)
    for part in name.split("."):
        inside = [child for child in node.body if getattr(child, "name", None) == part]
        assert len(inside) == 1, f"{path} has {len(inside)} definitions of {part}"
        (node,) = inside
    return ast.get_source_segment(source, node)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] in EQUATIONS], ids=lambda row: f"{row[0]}: {row[3]}")
def test_equation_is_where_the_table_says(row):
    _, _, link, name = row
    assert definition(place(link), name.strip("`"))


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] not in EQUATIONS], ids=lambda row: row[0])
def test_line_of_the_algorithm_is_where_the_table_says(row):
    _, link, name, line = row
    assert line.strip("`") in definition(place(link), name.strip("`"))


def test_no_part_of_the_paper_is_left_out():
    parts = [row[0].partition(" (")[0] if row[0].startswith("theta <- eta") else row[0] for row in ROWS]
    assert list(dict.fromkeys(parts)) == [
        *EQUATIONS,
        *ALGORITHM[: ALGORITHM.index("L_theta") + 1],
        "L_theta, the expectation",
        *ALGORITHM[ALGORITHM.index("L_theta") + 1 :],
    ]


@pytest.mark.parametrize(
    ("number", "name"), [(6, "SNR"), (7, "TruncatedSNR"), (8, "SNRPlusOne"), (9, "MinSNR"), (10, "BSA")]
)
def test_weightings_name_the_equation_that_the_table_gives_them(number, name):
    (row,) = [row for row in ROWS if row[0] == f"Equation {number}"]
    assert row[3] == f"`{name}`"
    assert f"eq. {number}" in definition(place(row[2]), name)
