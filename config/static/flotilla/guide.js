/* A long form, one step at a time: it stays one form that is sent as a whole.
 *
 * [data-guide] holds the steps ([data-guide-step="key"]) and their bar ([data-guide-bar], its buttons [data-guide-to]).
 * [data-guide-check="/address/"] in the last step is filled by asking there what the form, as it stands, still lacks:
 * {"html", "steps": {key: "ready" | "todo"}, "ready"}. It is asked on every step, and while somebody types in the last.
 */
"use strict";

(function () {
  const PAUSE_MILLISECONDS = 500;
  const WORDS = { error: "(to be corrected)", todo: "(not complete)", ready: "(complete)" };

  function guide(root) {
    const form = root.closest("form");
    const steps = Array.from(root.querySelectorAll("[data-guide-step]"));
    const bar = root.querySelector("[data-guide-bar]");
    const kept = root.querySelector('input[name="guide_step"]');
    const check = root.querySelector("[data-guide-check]");
    const done = root.querySelector("[data-guide-done]");
    let at = 0;
    let told = "";
    let timer = 0;
    let running = null;

    const keyOf = (step) => step.dataset.guideStep;
    const placeOf = (key) => steps.findIndex((step) => keyOf(step) === key);
    const isLast = () => at === steps.length - 1;

    function mark(key, state) {
      const button = bar.querySelector('[data-guide-to="' + key + '"]');
      button.dataset.state = state;
      button.querySelector("[data-guide-said]").textContent = WORDS[state] || "";
    }

    function show(place) {
      at = Math.max(0, Math.min(place, steps.length - 1));
      steps.forEach((step, number) => (step.hidden = number !== at));
      bar.querySelectorAll("[data-guide-to]").forEach(function (button, number) {
        if (number === at) button.setAttribute("aria-current", "step");
        else button.removeAttribute("aria-current");
      });
      kept.value = keyOf(steps[at]);
      // a button that sends only where it is seen: Enter in an earlier step must not press it
      if (done) done.type = isLast() ? "submit" : "button";
    }

    function goTo(place, field) {
      show(place);
      const address = new URL(window.location.href);
      address.searchParams.set("guide_step", keyOf(steps[at]));
      window.history.replaceState(window.history.state, "", address);
      const wanted = field && steps[at].querySelector("#id_" + field + ", #id_" + field + "_0");
      const seen = wanted && wanted.offsetParent !== null && !wanted.matches(".select2-hidden-accessible");
      const target = seen ? wanted : steps[at].querySelector("h2");
      root.scrollIntoView({ block: "start" });
      target.focus({ preventScroll: !seen });
      ask();
    }

    async function ask() {
      if (!check.dataset.guideCheck) return;
      window.clearTimeout(timer);
      if (running) running.abort();
      const mine = (running = new AbortController());
      check.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(check.dataset.guideCheck, {
          method: "POST",
          body: new FormData(form),
          credentials: "same-origin",
          headers: { Accept: "application/json" },
          signal: mine.signal,
        });
        const kind = answer.headers.get("Content-Type") || "";
        if (!answer.ok || !kind.startsWith("application/json")) throw new Error("HTTP " + answer.status);
        const news = await answer.json();
        if (told !== news.html) check.innerHTML = told = news.html; // else a screen reader would say it all again
        Object.entries(news.steps).forEach(function ([key, state]) {
          // what is missing further on is no reproach yet
          const refused = steps[placeOf(key)].dataset.guideErrors;
          const seen = placeOf(key) < at || isLast();
          mark(key, state !== "todo" ? state : refused ? "error" : seen ? state : "");
        });
        if (done) done.hidden = !news.ready;
      } catch (problem) {
        if (mine.signal.aborted) return;
        check.textContent = told = "The server does not answer; go back a step and return to ask again.";
        if (done) done.hidden = true;
      }
      showLinks();
      check.removeAttribute("aria-busy");
    }

    function showLinks() {
      check.querySelectorAll("[data-guide-go]").forEach((link) => (link.hidden = false));
    }

    root.addEventListener("click", function (event) {
      const pressed = event.target.closest("[data-guide-to], [data-guide-go], [data-guide-next], [data-guide-back]");
      if (!pressed) return;
      if (pressed.matches("[data-guide-next]")) goTo(at + 1);
      else if (pressed.matches("[data-guide-back]")) goTo(at - 1);
      else goTo(placeOf(pressed.dataset.guideTo || pressed.dataset.guideGo), pressed.dataset.guideField);
    });

    // Enter in a line of text means the next step; only the last one saves.
    form.addEventListener("keydown", function (event) {
      if (event.key !== "Enter" || event.defaultPrevented || isLast()) return;
      if (!event.target.matches("input:not([type=checkbox], [type=radio], [type=file], [type=search])")) return;
      event.preventDefault();
      goTo(at + 1);
    });

    function soon() {
      if (!isLast()) return;
      window.clearTimeout(timer);
      timer = window.setTimeout(ask, PAUSE_MILLISECONDS);
    }
    form.addEventListener("input", soon);
    form.addEventListener("change", soon);

    bar.hidden = false;
    root.querySelectorAll("[data-guide-moves]").forEach((moves) => (moves.hidden = false));
    const refused = steps.findIndex((step) => step.dataset.guideErrors);
    const asked = placeOf(root.dataset.guide);
    show(refused >= 0 ? refused : Math.max(asked, 0));
    if (done) done.hidden = check.dataset.guideCheck !== "";
    showLinks();
    ask();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-guide]").forEach(guide);
  });
})();
