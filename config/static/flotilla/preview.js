/* A message as a lead would get it, asked for again a moment after something is typed.
 *
 * <div data-preview="/address/" data-preview-stored="{…}"> stands inside the form whose fields are sent there; the part
 * of a page that comes back goes into its [data-preview-bubble]. [data-preview-lead] says for whom, and
 * [data-preview-again] lets choices fall otherwise. An answer that is late is dropped. Files are not sent along.
 *
 * In one of several rows of a form (a sequence's steps) the row's own fields are sent, without what numbers them. Rows
 * that are added are followed as well; nothing is asked for before it can be seen.
 */
"use strict";

(function () {
  const PAUSE_MILLISECONDS = 300;

  function follow(part) {
    if (part.dataset.previewFollowed) return;
    const whole = part.closest("form");
    const row = part.closest(".form-group");
    if (row && row.classList.contains("empty-form")) return; // what new rows are made of
    part.dataset.previewFollowed = "yes";
    const bubble = part.querySelector("[data-preview-bubble]");
    const lead = part.querySelector("[data-preview-lead]");
    const again = part.querySelector("[data-preview-again]");
    let timer = 0;
    let running = null;
    let seed = 0;

    /* "steps-3-": worked out each time, since rows are numbered anew when one before them goes. */
    function numbered() {
      const field = row.querySelector('[name$="-text"]');
      return field ? field.name.slice(0, -"text".length) : null;
    }

    function typed() {
      const body = new FormData();
      const before = row ? numbered() : "";
      new FormData(whole || undefined).forEach(function (value, name) {
        if (typeof value !== "string") return;
        if (name === "csrfmiddlewaretoken") body.append(name, value);
        else if (before !== null && name.startsWith(before)) body.append(name.slice(before.length), value);
      });
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

    const listened = row || whole || part;
    listened.addEventListener("input", soon);
    listened.addEventListener("change", soon);
    if (window.django && window.django.jQuery) window.django.jQuery(listened).on("change", soon);
    lead.addEventListener("keydown", function (event) {
      if (event.key === "Enter") event.preventDefault(); // which would save the form
    });
    again.addEventListener("click", function () {
      seed += 1;
      ask();
    });
    new IntersectionObserver(function (seen, observer) {
      if (!seen.some((each) => each.isIntersecting)) return;
      observer.disconnect();
      ask();
    }).observe(part);
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-preview-stored]").forEach(follow);
    document.addEventListener("formset:added", function (event) {
      event.target.querySelectorAll("[data-preview-stored]").forEach(follow);
    });
  });
})();
