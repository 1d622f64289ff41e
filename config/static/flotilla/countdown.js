/* <time data-countdown="2026-01-31T09:00:00+00:00"> shows how long it is until then, and follows once a second. */
"use strict";

(function () {
  function words(seconds) {
    if (seconds <= 0) return "0 s";
    const minutes = Math.floor(seconds / 60);
    return minutes ? minutes + " min " + (seconds % 60) + " s" : seconds + " s";
  }

  function tick() {
    document.querySelectorAll("[data-countdown]").forEach(function (part) {
      const text = words(Math.round((Date.parse(part.dataset.countdown) - Date.now()) / 1000));
      if (part.textContent !== text) part.textContent = text;
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    tick();
    window.setInterval(tick, 1000);
    // A part that was just replaced must not show its placeholder for up to a second.
    document.querySelectorAll("[data-poll]").forEach(function (part) {
      new MutationObserver(tick).observe(part, { childList: true });
    });
  });
})();
