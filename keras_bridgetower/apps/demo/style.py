"""The style of the page: fonts of the visitor's system, colors, sizes."""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "Consolas", "monospace")
CSS = """
:root { --kb-heat: #f97316; }
.gradio-container { max-width: 1080px !important; margin: 0 auto; }
.kb-head h1 { font-size: 1.7rem; margin: 0.2rem 0; }
.kb-head p, .kb-intro p { margin: 0.1rem 0; }
.kb-intro h2 { font-size: 1.15rem; margin: 0.2rem 0; }
.kb-note { font-size: 0.9rem; }
.kb-note p { margin: 0.3rem 0; }
.block.kb-plain, .kb-plain .html-container { padding: 0 !important;
  margin: 0 !important; }
.kb-label { font-weight: 600; margin: 0 !important; }
.kb-examples { gap: 8px; }
.kb-examples button { flex: 1 1 220px; justify-content: flex-start;
  flex-wrap: nowrap; text-align: left; font-weight: 400; font-size: 0.95rem;
  white-space: normal; padding: 6px 10px; }
.kb-examples button img { width: 40px; height: 40px; border-radius: 4px; }
.kb-answer { font-size: 1.6rem !important; font-weight: 600;
  line-height: 1.3 !important; margin: 0 0 0.5rem !important;
  overflow-wrap: anywhere; }
.kb-answer mark { background: color-mix(in srgb, var(--kb-heat) 22%,
  transparent); color: inherit; border-radius: 4px; padding: 0 0.25em; }
ol.kb-bars { list-style: none; margin: 0 0 0.8rem !important;
  padding: 0 !important; }
ol.kb-bars li { display: flex; align-items: center; gap: 0.6rem;
  margin: 0.25rem 0; padding: 0; }
.kb-name { flex: 0 0 6.5rem; overflow-wrap: anywhere; }
.kb-track { flex: 1; height: 0.8rem; border-radius: 0.4rem; overflow: hidden;
  background: var(--border-color-primary); }
.kb-track span { display: block; height: 100%; background: var(--kb-heat); }
.kb-share { flex: 0 0 4.2rem; text-align: right;
  font-variant-numeric: tabular-nums; }
.kb-words { line-height: 2.2 !important; margin: 0.3rem 0 !important; }
.kb-words span { background: color-mix(in srgb, var(--kb-heat)
  calc(var(--kb-share) * 0.5), transparent); border-radius: 4px;
  padding: 0.15em 0.35em; }
.kb-gallery { --kb-columns: 4; }
.kb-gallery .grid-wrap { min-height: 0 !important; height: auto !important;
  max-height: none !important; }
.kb-gallery .grid-container { grid-template-columns: repeat(var(--kb-columns),
  minmax(0, 1fr)) !important; }
.kb-found { --kb-columns: 3; }
.kb-found .caption-label { left: 4px; right: 4px; bottom: 4px;
  max-width: none; padding: 1px 4px; font-size: 0.75rem; text-align: left;
  white-space: normal; }
/* A wide table scrolls inside its frame. */
.kb-result, .kb-result .html-container { display: grid;
  grid-template-columns: minmax(0, 1fr); }
.kb-scroll { overflow-x: auto; }
.kb-table, .kb-table th, .kb-table td { border: 0 !important; }
.kb-table { border-collapse: separate !important; border-spacing: 4px;
  width: auto !important; margin: 0 !important; }
.kb-table th[scope=row] { font-weight: 400; text-align: left;
  min-width: 9rem; max-width: 22rem; padding: 0 0.6rem 0 0; }
.kb-table th[scope=col] { padding: 0; }
.kb-table img { width: 64px; height: 64px; object-fit: contain;
  border-radius: 4px; margin: 0 auto !important; }
.kb-table td.kb-cell { text-align: center; min-width: 72px; height: 48px;
  padding: 0; border-radius: 6px; font-variant-numeric: tabular-nums;
  color: #1c1917;
  background: color-mix(in srgb, var(--kb-heat) var(--kb-share), #fff); }
.tab-container button.selected { color: #c2410c !important; }
.dark .tab-container button.selected { color: #fb923c !important; }
.toast-body { background: var(--background-fill-primary) !important;
  opacity: 1 !important; }
@media (max-width: 640px) {
  .gradio-container main { padding: 12px !important; }
  .kb-head h1 { font-size: 1.35rem; }
  .kb-gallery { --kb-columns: 3; }
  .kb-found { --kb-columns: 2; }
  .tab-container button { font-size: 0.82rem !important;
    padding: 0 6px !important; }
  .kb-table th[scope=row] { min-width: 6rem; font-size: 0.85rem; }
  .kb-table img { width: 44px; height: 44px; }
  .kb-table td.kb-cell { min-width: 48px; font-size: 0.85rem; }
}
"""


def theme(gradio):
    """Return the theme of the page, which loads no font from the network.

    Args:
        gradio: the module.
    """
    return gradio.themes.Soft(
        primary_hue="orange",
        secondary_hue="orange",
        neutral_hue="stone",
        font=FONTS,
        font_mono=MONOSPACE,
    ).set(
        # Its contrast with white is above 5.
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*neutral_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        block_title_text_weight="600",
    )
