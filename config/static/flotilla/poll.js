/* Parts of a page that keep themselves up to date.
 *
 * <div data-poll="/address/" data-poll-seconds="2"> … </div> is filled again and again with the "html" of the JSON at
 * that address, until the JSON says "done". Hidden tabs do not ask. When asking fails, the next time is later, and a
 * [data-poll-note] beside it says so. What is marked data-poll-keep (and has an id) stays as it is, a chart for one;
 * details that somebody has opened stay open.
 */
"use strict";

(function () {
  const LONGEST_SECONDS = 60;

  function watch(part) {
    const seconds = Number(part.dataset.pollSeconds) || 10;
    const note = document.querySelector('[data-poll-note="' + part.id + '"]');
    let failures = 0;
    let heard = new Date();

    function say(text) {
      if (!note) return;
      note.textContent = text;
      note.hidden = !text;
    }

    function show(html) {
      if (part.dataset.pollLast === html) return;
      const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
      const kept = part.querySelectorAll("[data-poll-keep]");
      const open = part.querySelectorAll("details[id][open]");
      part.innerHTML = html;
      kept.forEach(function (old) {
        const place = document.getElementById(old.id);
        if (place) place.replaceWith(old);
      });
      open.forEach(function (old) {
        const now = document.getElementById(old.id);
        if (now) now.open = true;
      });
      part.dataset.pollLast = html;
      const again = focused && document.getElementById(focused);
      if (again) again.focus();
      part.dispatchEvent(new CustomEvent("fl:shown", { bubbles: true }));
    }

    function later() {
      const wait = Math.min(seconds * Math.pow(2, failures), Math.max(seconds, LONGEST_SECONDS));
      window.setTimeout(ask, wait * 1000);
    }

    async function ask() {
      if (document.hidden) {
        document.addEventListener("visibilitychange", ask, { once: true });
        return;
      }
      try {
        const answer = await fetch(part.dataset.poll, {
          credentials: "same-origin",
          headers: { Accept: "application/json" },
        });
        const kind = answer.headers.get("Content-Type") || "";
        if (answer.redirected || answer.status === 401 || answer.status === 403) {
          say("You are signed out. Reload the page to sign in again.");
          return;
        }
        if (!answer.ok || !kind.startsWith("application/json")) throw new Error("HTTP " + answer.status);
        const news = await answer.json();
        failures = 0;
        heard = new Date();
        say("");
        show(news.html);
        if (news.done) return;
      } catch (problem) {
        failures += 1;
        say("Contact lost: the server does not answer. What you see is from " + heard.toLocaleTimeString() + "; trying again.");
      }
      later();
    }

    later();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-poll]").forEach(watch);
  });
})();
