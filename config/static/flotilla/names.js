/* Names for what the theme leaves without any, keys for what it gives to the mouse alone, and tabs that are all shown.
 *
 * select2 hides a select and puts a box of its own after it. The label stays with the hidden one; here it is told of
 * the box too, and of the field that searches in it. Icons are words in a font of pictures: they are not read out
 * ("more_vert"); where one is all there is to press, it gets a name. What comes later (lists that open, steps that are
 * added) is watched for.
 */
"use strict";

(function () {
  function labelOf(select) {
    const label = select.labels && select.labels[0];
    if (label && !label.id) label.id = "label-of-" + select.id;
    return label;
  }

  function nameIt(part, label, text) {
    if (label) part.setAttribute("aria-labelledby", label.id);
    else part.setAttribute("aria-label", text);
  }

  function nameBox(box) {
    const select = box.previousElementSibling;
    if (!select || select.tagName !== "SELECT") return;
    const label = labelOf(select);
    const text = select.getAttribute("aria-label") || select.title || select.name.replaceAll("_", " ");
    const shown = box.querySelector(".select2-selection__rendered");
    const search = box.querySelector(".select2-search__field");
    if (shown && shown.getAttribute("role") === "textbox") nameIt(shown, label, text);
    if (search) nameIt(search, label, text);
    const chosen = box.querySelector('[role="combobox"]');
    if (!chosen) return;
    // what it is for, then what is chosen
    if (label) chosen.setAttribute("aria-labelledby", label.id + (shown && shown.id ? " " + shown.id : ""));
    else if (chosen !== search) {
      chosen.removeAttribute("aria-labelledby");
      chosen.setAttribute("aria-label", text + ": " + (shown ? shown.textContent : ""));
    }
  }

  const ICON = ".material-symbols-outlined";
  const ICON_NAMES = {
    close: "Close",
    dock_to_right: "Menu",
    more_horiz: "More",
    more_vert: "More",
    unfold_more: "Account",
  };
  const PRESSED = "a, button, [role=button], [x-on\\:click]";

  function wordsOf(part) {
    const copy = part.cloneNode(true);
    copy.querySelectorAll(ICON).forEach((icon) => icon.remove());
    return copy.matches(ICON) ? "" : copy.textContent.trim();
  }

  function nameIcon(icon) {
    const pressed = icon.closest(PRESSED);
    if (pressed) {
      const named = wordsOf(pressed) || pressed.title || pressed.hasAttribute("aria-label");
      const name = ICON_NAMES[icon.textContent.trim()];
      if (!named && !name) return;
      if (!named) pressed.setAttribute("aria-label", name);
      // a span that is pressed: by the keyboard too
      if (name && pressed.matches("span, div") && !pressed.hasAttribute("role")) {
        pressed.setAttribute("role", "button");
        pressed.tabIndex = 0;
      }
    }
    if (pressed !== icon) icon.setAttribute("aria-hidden", "true");
  }

  function press(event) {
    if (event.key !== "Enter" && event.key !== " ") return;
    if (!event.target.matches("span[role=button], div[role=button]")) return;
    event.preventDefault();
    event.target.click();
  }

  function each(root, selector, act) {
    if (root.matches(selector)) act(root);
    root.querySelectorAll(selector).forEach(act);
  }

  function nameAll(root) {
    if (root.nodeType !== Node.ELEMENT_NODE) return;
    each(root, ".select2-container", nameBox);
    each(root, ".select2-search--dropdown .select2-search__field", function (field) {
      field.setAttribute("aria-label", "Search");
    });
    each(root, ICON, nameIcon);
  }

  /* Tabs that the theme has put away into a menu, by a width it takes too early: they go into a second line instead. */
  function showTabs() {
    const row = document.getElementById("tabs-items");
    const menu = document.getElementById("tabs-dropdown");
    if (!row || !menu) return;
    while (menu.lastElementChild) row.append(menu.lastElementChild);
    menu.parentElement.classList.add("hidden");
  }

  ["load", "resize"].forEach(function (when) {
    // after the theme's own answer to it
    window.addEventListener(when, () => window.setTimeout(showTabs));
  });

  document.addEventListener("DOMContentLoaded", function () {
    nameAll(document.body);
    document.addEventListener("keydown", press);
    new MutationObserver(function (changes) {
      changes.forEach(function (change) {
        change.addedNodes.forEach(nameAll);
      });
    }).observe(document.body, { childList: true, subtree: true });
  });
})();
