"""How the page looks: the visitor's own fonts, so that nothing is fetched from anywhere."""

from __future__ import annotations

from typing import Any

CSS = """
.gradio-container { width: 100%; max-width: min(1180px, 100%) !important; min-width: 0 !important; margin: 0 auto !important; }
.gradio-container { box-sizing: border-box; }
.gradio-container .main { max-width: 100%; min-width: 0; box-sizing: border-box; }
#notice textarea { font-weight: 600; }
#words label { padding: 2px 8px; }
#words .wrap { gap: 4px; }
#picture img, #other-picture img, #where img, #painted img, #original img { width: 100%; height: 100%; object-fit: contain; }
footer { opacity: .7; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; }
  #title h1 { font-size: 1.4em; }
  #table .table-wrap, #compared .table-wrap { overflow-x: auto; }
  #table .table-wrap > *, #compared .table-wrap > * { min-width: 560px; }
}
"""

# a word is picked by hovering over it as by clicking it; arrow keys go from one choice to the next, since gradio gives each a group of its own
SCRIPT = """
() => {
  let last = null;
  document.addEventListener("mouseover", (event) => {
    const label = event.target.closest && event.target.closest("#words label");
    if (label === last) return;
    last = label;
    const input = label && label.querySelector("input[type=radio]");
    if (input && !input.checked) input.click();
  });
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    const group = event.target.type === "radio" && event.target.closest("#words, #candidates");
    if (!group || !(event.key in steps)) return;
    event.preventDefault();
    const all = [...group.querySelectorAll("input[type=radio]")];
    const next = all[(all.indexOf(event.target) + steps[event.key] + all.length) % all.length];
    next.focus();
    next.click();
  });
}
"""


def theme() -> Any:
    import gradio

    return gradio.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
