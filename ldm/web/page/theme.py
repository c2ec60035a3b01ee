"""How the page looks: quiet colours, fonts of the system, nothing from elsewhere."""

from __future__ import annotations

import gradio as gr

FONTS = ("ui-sans-serif", "system-ui", "Noto Sans", "Noto Sans CJK KR", "Noto Sans CJK SC", "sans-serif")
MONO = ("ui-monospace", "Consolas", "Noto Sans Mono", "monospace")

THEME = gr.themes.Base(
    primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md", font=FONTS, font_mono=MONO
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_background_fill="white",
    block_background_fill_dark="*neutral_900",
    block_border_width="1px",
    block_label_background_fill="white",
    block_label_background_fill_dark="*neutral_900",
    block_label_text_color="*neutral_600",
    block_label_text_color_dark="*neutral_300",
    block_title_text_color="*neutral_700",
    block_title_text_color_dark="*neutral_200",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_600",
    button_primary_text_color="white",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color_dark="white",
    slider_color="*primary_600",
)

CSS = """
.gradio-container { max-width: 1680px !important; width: 100% !important; margin: 0 auto !important; }
.gradio-container main { max-width: none !important; width: 100% !important; }
.ldm-top, .ldm-low { align-items: end; }
.ldm-name h1 { font-size: 1.35rem; font-weight: 650; letter-spacing: -0.01em; margin: 0; padding: .4rem 0; }
.ldm-status { min-height: 2.2rem; }
.ldm-line { padding: .2rem .1rem; font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); }
.ldm-line.error { color: #b42318; font-weight: 600; }
.dark .ldm-line.error { color: #fda29b; }
.ldm-line.done { color: var(--body-text-color); }
.ldm-status progress { width: 100%; height: 6px; accent-color: var(--primary-600); }
.ldm-notes { margin: .2rem 0 0 1.1rem; list-style: disc; color: var(--body-text-color-subdued); font-size: .92em; }
.grid-wrap { padding-top: 2rem !important; }
.ldm-board { width: 100%; max-width: 420px; aspect-ratio: 1; display: block; cursor: crosshair; touch-action: none;
  background: var(--input-background-fill); border: 1px solid var(--border-color-primary); border-radius: 8px;
  color: var(--body-text-color); }
.ldm-board-word { display: flex; gap: .6rem; align-items: center; margin-bottom: .5rem; }
.ldm-board-word input { flex: 1; border: 1px solid var(--border-color-primary); border-radius: 6px;
  padding: .35rem .6rem; background: var(--input-background-fill); color: var(--body-text-color); }
#film-frames .thumbnail-item { aspect-ratio: 3; }
#look-seen img { object-fit: contain !important; width: 100% !important; height: 100% !important; }
:focus-visible { outline: 2px solid var(--primary-500) !important; outline-offset: 2px; }
@media (max-width: 900px) { .ldm-wide { flex-direction: column; } .ldm-wide > .column { width: 100% !important; } }
footer { display: none !important; }
"""
