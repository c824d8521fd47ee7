"""What a visitor of the page does and sees."""

import pathlib

DESKTOP, PHONE = (1180, 860), (390, 844)
SHOWN = ".kb-answer:visible, .kb-words:visible, .kb-table:visible"
LOW_CONTRAST = pathlib.Path(__file__).with_name("low_contrast.js").read_text()
# The whole answer is visible, or it starts in the upper part of the window.
IN_VIEW = """(shown) => {
  const { top, bottom } = shown.getBoundingClientRect();
  return top >= 0 && (bottom <= innerHeight || top < 0.7 * innerHeight);
}"""


def opened(window, name):
    """The panel of a tab, once it is chosen."""
    window.get_by_role("tab", name=name, exact=True).click()
    return panel_of(window)


def panel_of(window):
    return window.locator("[role=tabpanel]:visible")


def result(panel):
    """The text of a panel's result and of its titles, once there is one."""
    panel.locator(SHOWN).first.wait_for()
    texts = panel.locator(".block.kb-result").all_inner_texts()
    return "\n".join([*texts, *panel.locator(".kb-label").all_inner_texts()])


def message(window):
    """The text of the one error that came, which is then closed."""
    toast = window.locator(".toast-body.error")
    toast.wait_for()
    said = toast.inner_text()
    toast.locator(".toast-close").click()
    toast.wait_for(state="detached")
    assert "Traceback" not in said and "/tmp" not in said
    return said
