// Texts of which the contrast with what is behind them is below 4.5, by WCAG 2.
() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d");
  const painted = (colors) => {
    for (const color of ["#fff", ...colors]) {
      pen.fillStyle = color;
      pen.fillRect(0, 0, 1, 1);
    }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  const check = (element, text, part) => {
    if (!element.checkVisibility({ visibilityProperty: true })) return;
    const chain = [];
    let opacity = 1;
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      chain.unshift(style.backgroundColor);
      opacity *= style.opacity;
    }
    const behind = painted(chain);
    const full = painted([...chain, getComputedStyle(element, part).color]);
    const seen = full.map((v, i) => v * opacity + behind[i] * (1 - opacity));
    const [a, b] = [luminance(seen), luminance(behind)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)}: ${text.slice(0, 40)}`);
  };
  const nodes = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (nodes.nextNode()) {
    const text = nodes.currentNode.textContent.trim();
    if (text) check(nodes.currentNode.parentElement, text);
  }
  for (const box of document.querySelectorAll("textarea, input")) {
    if (["radio", "checkbox", "file"].includes(box.type)) continue;
    if (box.value) check(box, box.value);
    if (box.placeholder) check(box, box.placeholder, "::placeholder");
  }
  return low;
}
