"""What a page holds, in which order, and what it says of what it leaves out."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from trees import NASTY, estimate, influences, susceptibilities

import sltfast
from sltfast.report.limits import Limits
from sltfast.report.packing import as_json, floats
from sltfast.report.response import response_of
from sltfast.report.susceptibilities import shortened
from sltfast.report.tokens import piece_of


class Outline(HTMLParser):
    """Tags, and the addresses that they name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def data_of(page: Path) -> dict[str, Any]:
    (text,) = re.findall(r'id="report-data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    found: dict[str, Any] = json.loads(text)
    return found


def array_of(packed: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["float32"]), "<f4").reshape(packed["shape"])


def headings(page: Path) -> list[str]:
    return re.findall(r'<h2 id="[^"]*">(.*?)</h2>', page.read_text("utf-8"))


@pytest.fixture
def page(tmp_path: Path) -> Path:
    trees = {"a": estimate(), "b": estimate(dead=True), "χ": susceptibilities(), "bif": influences()}
    return sltfast.write_report(trees, tmp_path / "report.html", "bytes", umap=False)


def test_a_section_for_each_thing_that_is_there(page: Path, tmp_path: Path) -> None:
    assert headings(page) == [
        "Learning coefficients", "Loss traces", "Susceptibilities by data set", "Susceptibilities token by token",
        "The plane of responses", "Influence", "How it was made",
    ]  # fmt: skip
    alone = sltfast.write_report(influences(), tmp_path / "alone.html")
    assert headings(alone) == ["Influence", "How it was made"]


def test_the_page_names_no_address_but_its_own_sections(page: Path) -> None:
    outline = Outline(page.read_text("utf-8"))
    assert outline.addresses
    assert [address for address in outline.addresses if not address.startswith("#")] == []
    assert not {"link", "img", "iframe", "object", "embed"} & set(outline.tags)
    assert "http:" not in page.read_text("utf-8")
    assert "https:" not in page.read_text("utf-8")


def test_text_never_becomes_markup(page: Path) -> None:
    text = page.read_text("utf-8")
    assert NASTY not in text
    assert Outline(text).tags.count("script") == 2
    assert data_of(page)["sections"]["influences-3-influences"]["passages"]["0"]["text"].startswith(NASTY)


def test_json_survives_what_could_end_its_element() -> None:
    nasty = {"</script><!--": ["&amp;", "\u2028", "λ̂"]}
    written = as_json(nasty)
    assert json.loads(written) == nasty
    assert not set("<>&\u2028") & set(written)


def test_numbers_are_those_of_the_trees(page: Path) -> None:
    found = data_of(page)["sections"]["susceptibilities-2-text"]
    code = found["datasets"][0]
    values = array_of(code["sus"])
    flat = susceptibilities()["susceptibilities"].to_dataset()
    here = (flat["dataset_id"] == 0) & (flat["batch"] == 2) & (flat["target_position"] == 7)
    expected = flat["sus"].values[here.values][0]
    # float32 on the page
    np.testing.assert_allclose(values[2, 7], expected, rtol=1e-6)
    assert np.isnan(values[:, 0]).all()
    pieces = data_of(page)["pieces"]
    assert "".join(pieces[place] for place in code["tokens"][2]).startswith("def f2(x):\n\treturn x")


def test_the_dead_and_the_unconverged_are_told_at_the_top(page: Path, tmp_path: Path) -> None:
    text = page.read_text("utf-8")
    top = text[text.index("Before you read on") : text.index("</aside>")]
    assert "Chains died (NaN or infinity) and are left out of every mean: b (1 of 2)." in top
    assert "1 of 2 runs is diverged" in top
    assert "R̂ is above 1.1 for the chains behind χ of full, l0h0, l0h1, l1h0." in top
    fine = sltfast.write_report({"a": estimate()}, tmp_path / "fine.html")
    assert "Before you read on" not in fine.read_text("utf-8")


def test_heat_map_says_value_and_error(page: Path) -> None:
    value = float(susceptibilities()["datasets"]["sus"].sel(wr="l0h1", dataset="prose"))
    assert f'data-tip="l0h1 on prose: χ = {value:.2f} ± 0.10"' in page.read_text("utf-8")


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    response = response_of(susceptibilities())
    assert [len(part.rows) for part in shortened(response, Limits(passages=3))] == [3, 3]
    # 20 positions of 4 components with errors in 2 data sets: 320 numbers a passage of each
    assert [len(part.rows) for part in shortened(response, Limits(numbers=640))] == [2, 2]
    large = sltfast.write_report(influences(Limits().matrix + 1), tmp_path / "large.html", "bytes")
    assert "240 of 241 rows and 240 of 241 columns are drawn" in large.read_text("utf-8")


def test_without_a_tokenizer_numbers_are_shown_and_the_mend_is_named(tmp_path: Path) -> None:
    page = sltfast.write_report(susceptibilities(), tmp_path / "numbers.html", umap=False)
    assert "--tokenizer decodes them" in page.read_text("utf-8")
    assert "‹100›" in data_of(page)["pieces"]


def test_tokens_of_influences_are_averaged_and_it_says_so(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 3, 4, 4))
    dims = ("batch_1", "batch_2", "target_position", "target_position_T")
    page = sltfast.write_report(xr.Dataset({"influences": (dims, values)}), tmp_path / "tokens.html")
    assert "influences are token by token" in page.read_text("utf-8")
    data = data_of(page)["sections"]["influences-0-influences"]
    row = values.mean((2, 3))[1]
    order = [item for item in np.argsort(-row).tolist() if item != 1]
    assert [one[0] for one in data["nearest"][1][0]] == [item for item in order if row[item] > 0]
    assert data["value"] == floats(values.mean((2, 3)))


def test_queries_and_items_are_known_by_their_numbers(tmp_path: Path) -> None:
    values = np.array([[5.0, -1.0, 2.0], [1.0, 9.0, -3.0]])
    coords = {"batch_1": [3, 4], "batch_2": [3, 0, 4], "observable": ("batch", list("aabbc"))}
    tree = xr.Dataset({"influences": (("batch_1", "batch_2"), values)}, coords=coords, attrs={"sign": -1})
    data = data_of(sltfast.write_report(tree, tmp_path / "page.html"))["sections"]["influences-0-influences"]
    assert data["nearest"] == [[[[4, 2.0, None]], [[0, -1.0, None]]], [[[0, 9.0, None], [3, 1.0, None]], []]]
    # with the definition's sign, the passages whose losses move together have negative influence: they come first
    assert [side["pole"] for side in data["sides"]] == ["below", "above"]
    assert data["sides"][0]["meaning"] == "more weight on it lowers this loss"
    assert data["passages"]["4"]["set"] == "c"


def test_kept_neighbours_need_no_matrix(tmp_path: Path) -> None:
    tree = influences_of_neighbours()
    page = sltfast.write_report(tree, tmp_path / "page.html")
    data = data_of(page)["sections"]["influences-0-influences"]
    assert data["value"] is None
    assert "<canvas" not in page.read_text("utf-8")
    # passage 2 is kept twice, for two of the query's tokens: its largest counts
    assert data["nearest"][0] == [[[2, 4.0, 0.5]], [[1, -3.0, 0.5]]]


def influences_of_neighbours() -> xr.Dataset:
    dims = ("batch_1", "target_position", "neighbour")
    return xr.Dataset(
        {
            "influences": (dims, np.array([[[4.0, -3.0], [1.0, np.nan]]])),
            "influences_se": (dims, np.full((1, 2, 2), 0.5)),
            "neighbour_batch": (dims, np.array([[[2, 1], [2, -1]]])),
        },
        coords={"batch_1": [0]},
    )


def test_the_plane_is_that_of_the_response_matrix(page: Path) -> None:
    from sltfast import analysis

    matrix = analysis.response_matrix(susceptibilities()).drop_sel(component="full")
    found = analysis.pca(analysis.centre_rows(analysis.standardise(matrix)), 2)
    data = data_of(page)["sections"]["susceptibilities-2-plane"]
    assert data["axes"] == [f"PC{k + 1} ({100 * float(found['explained_variance_ratio'][k]):.1f} %)" for k in range(2)]
    # float32 on the page, and in the response behind it
    np.testing.assert_allclose(array_of(data["points"]), found["scores"].values, atol=1e-5)


def test_a_component_without_a_living_chain_takes_nothing_from_the_others(tmp_path: Path) -> None:
    tree = susceptibilities()
    for group in ("susceptibilities", "datasets"):
        tree[group]["sus"][{"wr": 1}] = np.nan
    page = sltfast.write_report(tree, tmp_path / "page.html", umap=False)
    assert len(data_of(page)["sections"]["susceptibilities-0-plane"]["places"]) == 9 * 19 - 1
    assert "l0h0 on prose: χ = –" in page.read_text("utf-8")


def test_pieces_of_tokens() -> None:
    class Tokenizer:
        def decode(self, ids: list[int]) -> str:
            return f"token {ids[0]}"

    bytewise = piece_of("bytes")
    assert bytewise is not None
    assert [bytewise(token) for token in (97, 10, 0, 195)] == ["a", "\n", "\\x00", "\\xc3"]
    for given, said in ((Tokenizer(), "token 5"), (lambda token: f"<{token}>", "<5>")):
        piece = piece_of(given)
        assert piece is not None
        assert piece(5) == said
    with pytest.raises(TypeError, match="tokenizer must be 'bytes', a path"):
        piece_of(5)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such run, result or folder"):
        sltfast.write_report(tmp_path / "none", tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match=r"holds no \.zarr store"):
        sltfast.write_report(tmp_path, tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="no such folder for the report"):
        sltfast.write_report(influences(), tmp_path / "none" / "report.html")
    with pytest.raises(ValueError, match="expected a run of sltfast"):
        sltfast.write_report(xr.Dataset({"x": 1}), tmp_path / "report.html")
    with pytest.raises(ValueError, match="nothing to report"):
        sltfast.write_report({}, tmp_path / "report.html")
