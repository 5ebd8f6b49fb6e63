"""How the page looks: the visitor's own fonts, so that nothing is fetched from anywhere."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { max-width: min(1180px, 100%) !important; min-width: 0 !important; margin: 0 auto !important; box-sizing: border-box; }
.gradio-container .main { max-width: 100%; min-width: 0; box-sizing: border-box; }
#notice textarea { font-weight: 600; }
#words label { padding: 2px 8px; }
#words .wrap { gap: 4px; }
#picture img, #other-picture img, #where img, #painted img, #original img { width: 100%; height: 100%; object-fit: contain; }
footer { opacity: .7; }
@media (max-width: 640px) { .gradio-container { padding: 8px !important; } #title h1 { font-size: 1.4em; } }
"""

# a word is picked by hovering over it as by clicking it; arrow keys do it by themselves
HOVER = """
() => {
  let last = null;
  document.addEventListener("mouseover", (event) => {
    const label = event.target.closest && event.target.closest("#words label");
    if (!label || label === last) return;
    last = label;
    const input = label.querySelector("input[type=radio]");
    if (input && !input.checked) input.click();
  });
}
"""


def theme() -> Any:
    import gradio

    return gradio.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
