// The slider's alpha in the page's address: #alpha=0.4, so that a link shows what its sender saw.
function stopOfAddress() {
  const given = new URLSearchParams(location.hash.slice(1)).get(key);
  const alpha = given ? Number(given) : NaN; // an empty text would be 0
  return Number.isFinite(alpha) ? nearestStop(alpha) : null;
}

let later;
function remember(stop) {
  // Delayed, because browsers limit how often a page may do this. The entry is replaced, so that going back leads to
  // the page before and not through every alpha.
  clearTimeout(later);
  later = setTimeout(() => {
    try {
      history.replaceState(history.state, "", `#${encodeURIComponent(key)}=${stops[stop]}`);
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a page in a frame may not change its address
    }
  }, 200);
}

function follow() {
  const stop = stopOfAddress();
  if (stop === null) return;
  clearTimeout(later);
  show(stop);
  say(spoken[stop]);
}

if (slider) {
  show(stopOfAddress() ?? start);
  addEventListener("hashchange", follow);
}
