/* A message as a lead would get it, asked for again a moment after something is typed.
 *
 * <div data-preview="/address/" data-preview-stored="{…}"> stands inside the form whose fields are sent there; the part
 * of a page that comes back goes into its [data-preview-bubble]. [data-preview-lead] says for whom, and
 * [data-preview-again] lets choices fall otherwise. An answer that is late is dropped. Files are not sent along.
 */
"use strict";

(function () {
  const PAUSE_MILLISECONDS = 300;

  function follow(part) {
    const form = part.closest("form");
    const bubble = part.querySelector("[data-preview-bubble]");
    const lead = part.querySelector("[data-preview-lead]");
    const again = part.querySelector("[data-preview-again]");
    let timer = 0;
    let running = null;
    let seed = 0;

    function typed() {
      const body = new FormData();
      if (form) {
        new FormData(form).forEach(function (value, name) {
          if (typeof value === "string") body.append(name, value);
        });
      }
      body.set("preview_lead", lead.value);
      body.set("preview_seed", String(seed));
      body.set("preview_stored", part.dataset.previewStored);
      return body;
    }

    async function ask() {
      if (running) running.abort();
      const mine = (running = new AbortController());
      bubble.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(part.dataset.preview, {
          method: "POST",
          body: typed(),
          credentials: "same-origin",
          signal: mine.signal,
        });
        if (!answer.ok || answer.redirected) throw new Error("HTTP " + answer.status);
        const html = await answer.text();
        bubble.innerHTML = html;
        again.hidden = !bubble.querySelector("[data-preview-varies]");
      } catch (problem) {
        if (mine.signal.aborted) return;
        bubble.textContent = "The server does not answer; type on to ask again.";
      }
      bubble.removeAttribute("aria-busy");
    }

    function soon() {
      window.clearTimeout(timer);
      timer = window.setTimeout(ask, PAUSE_MILLISECONDS);
    }

    const listened = form || part;
    listened.addEventListener("input", soon);
    listened.addEventListener("change", soon);
    if (form && window.django && window.django.jQuery) window.django.jQuery(form).on("change", soon);
    lead.addEventListener("keydown", function (event) {
      if (event.key === "Enter") event.preventDefault(); // which would save the form
    });
    again.addEventListener("click", function () {
      seed += 1;
      ask();
    });
    ask();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-preview]").forEach(follow);
  });
})();
