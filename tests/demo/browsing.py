"""What a visitor of the page does and sees."""

DESKTOP, PHONE = (1180, 860), (390, 844)
_SHOWN = ".kb-answer:visible, .kb-words:visible, .kb-table:visible"


def opened(window, name):
    """The panel of a tab, once it is chosen."""
    window.get_by_role("tab", name=name, exact=True).click()
    return panel_of(window)


def panel_of(window):
    return window.locator("[role=tabpanel]:visible")


def result(panel):
    """The text of a panel's result, once there is one."""
    panel.locator(_SHOWN).first.wait_for()
    return panel.locator(".block.kb-result").inner_text()


def message(window):
    """The text of the one message that came, which is then closed."""
    toast = window.locator(".toast-body")
    toast.wait_for()
    said = toast.inner_text()
    window.locator(".toast-close").click()
    toast.wait_for(state="detached")
    assert "Traceback" not in said and "/tmp" not in said
    return said
