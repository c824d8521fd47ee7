// The values of the inputs that were asked last, by the answer's component.
const kbAsked = {};

function kbAsk(answer, count, values) {
  kbAsked[answer] = JSON.stringify(values.slice(0, count));
  return values;
}

// An answer to old inputs is not shown. One below the visible part of the page
// is scrolled into view.
function kbAnswer(answer, values, empty, keep) {
  if (kbAsked[answer] !== JSON.stringify(values)) return empty;
  const shown = [...document.querySelectorAll(".kb-result")].find(
    (result) => result.getClientRects().length
  );
  shown?.scrollIntoView({ block: "nearest" });
  return keep;
}
