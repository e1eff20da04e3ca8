"""The page's look: Gradio theme, style sheet, script, icon. All local: the system's own fonts, no web fonts."""

from __future__ import annotations

import base64
from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).resolve().parents[2] / "assets"
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial, sans-serif'
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", "DejaVu Sans Mono", Consolas, monospace'


def theme() -> gr.themes.Base:
    """Teal on slate. Contrast of text on its ground is at least 4.5 to 1 in both modes."""
    look = gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=[gr.themes.Font("sans-serif")],
        font_mono=[gr.themes.Font("monospace")],
    ).set(
        body_background_fill="#f4f6f8",
        body_background_fill_dark="#0a1118",
        body_text_color="#14212b",
        body_text_color_dark="#e6edf3",
        body_text_color_subdued="#52616d",
        body_text_color_subdued_dark="#9fb0bd",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#111b24",
        background_fill_secondary="#f4f6f8",
        background_fill_secondary_dark="#0d161e",
        block_background_fill="#ffffff",
        block_background_fill_dark="#111b24",
        block_border_color="#dde4ea",
        block_border_color_dark="#22303b",
        border_color_primary="#dde4ea",
        border_color_primary_dark="#22303b",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        color_accent_soft="#e3f5f2",
        color_accent_soft_dark="#12343a",
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_dark="#2dd4bf",
        button_primary_background_fill_hover="#115e59",
        button_primary_background_fill_hover_dark="#5eead4",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#06201d",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#16232d",
        button_secondary_background_fill_hover="#eef2f5",
        button_secondary_background_fill_hover_dark="#1d2d39",
        button_secondary_border_color="#c9d3db",
        button_secondary_border_color_dark="#2f4250",
        button_secondary_text_color="#14212b",
        button_secondary_text_color_dark="#e6edf3",
        link_text_color="#0f766e",
        link_text_color_dark="#5eead4",
    )
    # Set as attributes: Gradio would quote the keyword `system-ui`, which makes it the name of a font that nobody has.
    look.font, look.font_mono = SANS, MONO
    look.name = "acousticsense"
    return look


def icon_svg() -> str:
    return (ASSETS / "icon.svg").read_text(encoding="utf-8")


def css_paths() -> list[Path]:
    """The style sheets, the page's own first."""
    return [ASSETS / "page.css", ASSETS / "library.css", ASSETS / "review.css", ASSETS / "profiler.css"]


def script(name: str) -> str:
    """The code of an HTML component, from the assets."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _plotly_chunk() -> str:
    """Name of the script in which Gradio ships plotly, for fetching it before it is needed; empty if not found."""
    folder = Path(gr.__file__).parent / "templates" / "frontend" / "assets"
    return next((path.name for path in sorted(folder.glob("PlotlyPlot-*.js"))), "")


def head() -> str:
    """The icon as data, so that nothing is fetched for it, and the page's script."""
    icon = base64.b64encode(icon_svg().encode()).decode()
    script = (ASSETS / "page.js").read_text(encoding="utf-8").replace("{{plotly}}", _plotly_chunk())
    return (
        f'<link rel="icon" type="image/svg+xml" href="data:image/svg+xml;base64,{icon}">'
        f'<meta name="color-scheme" content="light dark"><script>{script}</script>'
    )
