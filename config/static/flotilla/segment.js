/* The number of leads that a segment's rules come to, asked again a moment after something is typed.
 *
 * <output data-count="/address/" data-segment="7"> stands inside the form whose fields are sent there; the JSON's "text"
 * is shown. An answer that is late is dropped.
 */
"use strict";

(function () {
  const PAUSE_MILLISECONDS = 400;

  function follow(output) {
    const form = output.closest("form");
    if (!form) return;
    let timer = 0;
    let running = null;

    async function ask() {
      if (running) running.abort();
      const mine = (running = new AbortController());
      const body = new FormData(form);
      if (output.dataset.segment !== undefined) body.set("segment", output.dataset.segment);
      output.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(output.dataset.count, {
          method: "POST",
          body: body,
          credentials: "same-origin",
          headers: { Accept: "application/json" },
          signal: mine.signal,
        });
        const kind = answer.headers.get("Content-Type") || "";
        if (!answer.ok || !kind.startsWith("application/json")) throw new Error("HTTP " + answer.status);
        const news = await answer.json();
        output.textContent = news.text;
      } catch (problem) {
        if (mine.signal.aborted) return;
        output.textContent = "The server does not answer; change a rule to ask again.";
      }
      output.removeAttribute("aria-busy");
    }

    function soon() {
      window.clearTimeout(timer);
      timer = window.setTimeout(ask, PAUSE_MILLISECONDS);
    }

    form.addEventListener("input", soon);
    form.addEventListener("change", soon);
    // select2, which chooses the device, tells jQuery only
    if (window.django && window.django.jQuery) window.django.jQuery(form).on("change", soon);
    ask();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("output[data-count]").forEach(follow);
  });
})();
