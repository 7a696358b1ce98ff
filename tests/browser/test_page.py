"""The page in a browser: it opens from disk, sliders move, tables sort and filter, and no name runs anything."""

import json
from collections.abc import Callable

import pytest

from ovseg_cli.core.page.render import render
from tests.browser.conftest import Browser
from tests.core.page import example
from tests.core.page.structure import faults

pytestmark = pytest.mark.browser
COLUMNS = {"method": 0, "mIoU": 1, "pAcc": 5}


@pytest.fixture(scope="module")
def page(opened: Callable[[str], Browser]) -> Browser:
    return opened(render(example.page()))


def find(page: Browser, selector: str):
    return page.driver.find_element("css selector", selector)


def column(page: Browser, name: str, table: int = 0) -> list[str]:
    """Texts of the values of one column, from top to bottom."""
    cells = f"[...document.querySelectorAll('table[data-table=\"{table}\"] tbody tr')].filter(row => !row.hidden)"
    place = f"[...document.querySelector('table[data-table=\"{table}\"]').tHead.rows[0].cells]"
    place += f".findIndex(head => head.dataset.key === {json.dumps(name)})"
    return page.run(f"const place = {place}; return {cells}.map(row => row.cells[place].textContent)")


def press(page: Browser, name: str, table: int = 0) -> str:
    """Press the header of a column; how it is sorted then."""
    head = find(page, f'table[data-table="{table}"] th[data-key="{name}"]')
    page.run("arguments[0].scrollIntoView({block: 'center'})", head)  # the bar on top would take the click
    head.find_element("css selector", "button").click()
    return head.get_attribute("aria-sort")


def choose(page: Browser, selector: str, value: str) -> None:
    """Choose a value as a user does: the page hears of it."""
    page.run(
        "arguments[0].value = arguments[1];"
        "for (const kind of ['input', 'change']) arguments[0].dispatchEvent(new Event(kind, {bubbles: true}))",
        find(page, selector),
        value,
    )


def clip(page: Browser, side: str) -> str:
    return page.run(f"return getComputedStyle(document.querySelector('.layer.is-{side} img')).clipPath")


def test_it_opens_without_a_complaint_and_without_the_network(page: Browser) -> None:
    asked = page.requests()
    assert asked[0].startswith("file://") and asked[0].endswith("report.html")
    assert [address for address in asked[1:] if not address.startswith("data:image/")] == []
    assert page.complaints() == []
    assert page.run("return [...document.images].every(image => image.complete && image.naturalWidth > 0)")


def test_everybody_can_use_what_scripts_have_made_of_it(page: Browser) -> None:
    assert faults(page.run("return document.documentElement.outerHTML")) == []


def test_numbers_sort_as_numbers_with_missing_ones_last(page: Browser) -> None:
    assert column(page, "pAcc")[1] == "–"
    before = column(page, "method")
    assert press(page, "pAcc") == "descending"
    falling = column(page, "pAcc")
    assert press(page, "pAcc") == "ascending"
    rising = column(page, "pAcc")
    assert falling[-1] == rising[-1] == "–"
    numbers = [float(text) for text in falling[:-1]]
    assert numbers == sorted(numbers, reverse=True) and falling[:-1] == rising[-2::-1]
    assert press(page, "pAcc") == "none" and column(page, "method") == before


def test_sorting_knows_9_from_10_and_minus_from_plus(page: Browser) -> None:
    press(page, "delta_mIoU", table=1)
    assert [text.split()[0] for text in column(page, "delta_mIoU", table=1)] == ["+12.5", "-3.2"]
    press(page, "pixels", table=2)
    sizes = [int(text.replace(",", "")) for text in column(page, "pixels", table=2)]
    assert sizes == sorted(sizes, reverse=True) and len({len(str(size)) for size in sizes}) > 1


def test_headers_sort_by_keyboard_and_one_at_a_time(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    press(page, "mIoU")
    find(page, 'table[data-table="0"] th[data-key="method"] button').send_keys(Keys.ENTER)
    sorts = page.run(
        "return [...document.querySelectorAll('table[data-table=\"0\"] th[scope=col]')].map(h => h.ariaSort)"
    )
    assert sorts[0] == "ascending" and set(sorts[1:]) == {"none"}
    assert column(page, "method") == ["CLIP", "MAFT†", "MaskCLIP"]


def test_classes_are_found_by_name_and_by_set(page: Browser) -> None:
    choose(page, "#filter-1", "R")
    assert sorted(column(page, "class", table=2)) == ["grass", "person", "road", "tree"]
    choose(page, "#set-1", "unseen")
    assert sorted(column(page, "class", table=2)) == ["person", "road"]
    assert find(page, "output").text == "2 of 6 classes"
    choose(page, "#filter-1", "")
    choose(page, "#set-1", "")
    assert len(column(page, "class", table=2)) == 6 and find(page, "output").text == "6 classes"


def test_the_slider_shows_more_of_the_left(page: Browser) -> None:
    assert (clip(page, "left"), clip(page, "right")) == ("inset(0px 50% 0px 0px)", "inset(0px 0px 0px 50%)")
    choose(page, ".wipe", "80")
    assert (clip(page, "left"), clip(page, "right")) == ("inset(0px 20% 0px 0px)", "inset(0px 0px 0px 80%)")


def test_the_slider_moves_by_pointer(page: Browser) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    wipe = find(page, ".wipe")
    page.run("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", wipe)
    quarter = -wipe.size["width"] // 4
    ActionChains(page.driver, duration=0).move_to_element_with_offset(wipe, quarter, 0).click().perform()
    assert 23 <= int(wipe.get_attribute("value")) <= 27
    named = find(page, ".here").text  # a quarter to the right and half-way down lies the disc
    assert named.startswith("ground truth: building · ") and named.count(": ") == 2


def test_the_slider_moves_by_keyboard(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    choose(page, ".wipe", "50")
    find(page, ".wipe").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert clip(page, "right") == "inset(0px 0px 0px 52%)"
    assert find(page, ".wipe").get_attribute("aria-valuetext") == "52 % left, 48 % right"


def test_sliders_move_together_when_asked_to(page: Browser) -> None:
    values = "return [...document.querySelectorAll('.wipe')].map(wipe => wipe.value)"
    choose(page, ".wipe", "30")
    assert set(page.run(values)[1:]) == {"50"}
    find(page, '[data-role="together"]').click()
    choose(page, ".wipe", "40")
    assert set(page.run(values)) == {"40"}


def test_any_two_layers_can_be_compared(page: Browser) -> None:
    layers = ["picture", "truth", "0", "1", "2"]
    shown = page.run(
        """
        const [left, right] = ["left", "right"].map((role) => document.querySelector(`[data-role="${role}"]`));
        const choose = (select, value) => { select.value = value; select.dispatchEvent(new Event("change")); };
        const drawn = () => [...document.querySelectorAll(".card:first-child .layer")]
          .filter((layer) => layer.getClientRects().length).map((layer) => layer.dataset.layer);
        const pairs = arguments[0].flatMap((a) => arguments[0].map((b) => [a, b]));
        return pairs.map(([a, b]) => { choose(left, a); choose(right, b); return [a, b, drawn()]; });
        """,
        layers,
    )
    assert len(shown) == len(layers) ** 2
    assert all(set(drawn) == {"picture", left, right} for left, right, drawn in shown)
    assert clip(page, "left") == "none"  # the last pair is twice the same map, which is shown whole


def test_opacity_is_that_of_the_classes_alone(page: Browser) -> None:
    choose(page, '[data-role="left"]', "truth")
    choose(page, '[data-role="opacity"]', "30")
    opacity = "return getComputedStyle(document.querySelector(arguments[0])).opacity"
    assert page.run(opacity, ".layer.is-left img") == "0.3"
    assert page.run(opacity, '.layer[data-layer="picture"] img') == "1"


def test_pictures_are_ordered_by_disagreement_or_by_iou(page: Browser) -> None:
    names = "return [...document.querySelectorAll('.card h4')].map(head => head.textContent)"
    assert page.run(names) == ["00000", "00001", "00002", "00003"]
    scores = [picture.scores[0] for picture in example.page().galleries[0].pictures]
    assert scores[1] is None
    rising = sorted((0, 2, 3), key=lambda i: scores[i])
    choose(page, '[data-role="order"]', "low 0")
    assert page.run(names) == [f"0000{i}" for i in (*rising, 1)]
    choose(page, '[data-role="order"]', "high 0")
    assert page.run(names) == [f"0000{i}" for i in (*rising[::-1], 1)]


def test_side_by_side_every_picture_is_there(page: Browser) -> None:
    find(page, '[data-role="apart"]').click()
    shown = "return [...document.querySelectorAll('.card img')].filter(image => image.getClientRects().length).length"
    assert page.run(shown) == 4 * 5
    find(page, '[data-role="apart"]').click()
    assert page.run(shown) == 4 * 2 + 4  # the picture below, and two layers; left is the ground truth, right a model


def test_the_theme_follows_the_system_until_it_is_chosen(page: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.theme("dark")
    dark = page.run(ground)
    assert light == "rgb(255, 255, 255)" and dark != light
    assert find(page, "#theme").get_attribute("aria-pressed") == "true"
    page.run("document.getElementById('theme').click()")
    assert page.run(ground) == light
    page.driver.refresh()
    assert page.run(ground) == light  # it was kept
    page.theme("light")
    page.run("localStorage.clear()")


def test_a_confusion_is_chosen_by_its_model(page: Browser) -> None:
    shown = (
        "return [...document.querySelectorAll('.heat-box')]"
        ".filter(box => box.getClientRects().length).map(box => box.id)"
    )
    assert len(page.run(shown)) == 3
    choose(page, "#heat-choice", "heat-2")
    assert page.run(shown) == ["heat-2"]


def test_numbers_can_be_saved(page: Browser) -> None:
    saved = page.run(
        "let kept; const made = URL.createObjectURL;"
        "URL.createObjectURL = blob => { kept = blob; return made(blob); };"
        "HTMLAnchorElement.prototype.click = () => {};"
        "document.getElementById('save').click();"
        "return kept.text();"
    )
    assert [table["title"] for table in json.loads(saved)["tables"]][0] == "Results on toy:combo"


def test_nothing_was_complained_of_meanwhile(page: Browser) -> None:
    assert page.complaints() == []


def test_hostile_names_run_nothing(opened: Callable[[str], Browser]) -> None:
    page = opened(render(example.hostile_page()))
    press(page, "mIoU")
    choose(page, "#filter-1", "<")
    choose(page, '[data-role="order"]', "high 1")
    assert page.run("return window.owned") is None
    assert page.run("return document.querySelectorAll('b, img:not([src^=\"data:\"])').length") == 0
    assert page.complaints() == []
    assert page.run("return document.title") == example.HOSTILE[0]


def test_a_script_that_slipped_in_would_not_run(opened: Callable[[str], Browser]) -> None:
    html = render(example.plain_page())
    page = opened(
        html.replace("</main>", "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'></main>")
    )
    assert page.run("return window.owned") is None
    assert any("Content Security Policy" in complaint for complaint in page.complaints())


def test_171_classes_fit_wide_and_narrow_windows(opened: Callable[[str], Browser]) -> None:
    page = opened(render(example.wide_page()))
    for width in (360, 1280):
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run("return document.querySelector('.classes .scroll').clientHeight") <= 800
    page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_tables_and_pictures_are_there(opened: Callable[[str], Browser]) -> None:
    html = render(example.page()).replace("script-src ", "script-src 'none'; x ")
    page = opened(html)
    assert page.run("return document.documentElement.className") == ""
    assert len(column(page, "mIoU")) == 3
    shown = "return [...document.querySelectorAll(arguments[0])].filter(e => e.getClientRects().length).length"
    assert page.run(shown, ".card img") == 4 * 5
    assert page.run(shown, "button, input, select") == 0
