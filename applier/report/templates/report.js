// The report's script: filter and search, expand and collapse, colours. The page is whole without it.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const policies = all(".policies > li");
  const details = (policy) => policy.querySelector("details");
  const shown = () => policies.filter((policy) => !policy.hidden);
  const reveal = (element) => { if (element) element.hidden = false; };

  // --- colours: the choice is kept where the browser lets us -------------------------------------
  const themes = all('input[name="theme"]');
  const stored = (change) => { try { return change(window.localStorage); } catch { return null; } };
  const chosen = stored((storage) => storage.getItem("report-theme"));
  for (const theme of themes) {
    if (theme.value === chosen) theme.checked = true;
    theme.addEventListener("change", () => stored((storage) => storage.setItem("report-theme", theme.value)));
  }
  reveal(document.querySelector(".themes"));

  // --- one policy, by its address -----------------------------------------------------------------
  const openTarget = () => {
    let id = "";
    try { id = decodeURIComponent(window.location.hash.slice(1)); } catch { return; }
    const policy = policies.find((one) => one.id === id);
    if (!policy) return;
    if (policy.hidden) clear();
    details(policy).open = true;
    policy.scrollIntoView();
    policy.querySelector("summary").focus({ preventScroll: true });
  };

  // --- filter and search --------------------------------------------------------------------------
  const form = document.querySelector(".tools");
  const search = document.querySelector("#search");
  const bar = document.querySelector(".bar");
  const status = document.querySelector('[role="status"]');
  const kind = document.querySelector("select[data-filter]");
  const buttons = all("button[data-filter]");
  const texts = new Map();
  const text = (policy) => {
    if (!texts.has(policy)) texts.set(policy, `${policy.id} ${policy.textContent}`.toLowerCase());
    return texts.get(policy);
  };
  const pressed = (name) => buttons
    .filter((button) => button.dataset.filter === name && button.getAttribute("aria-pressed") === "true")
    .map((button) => button.dataset.value);

  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const actions = pressed("action");
    const risks = pressed("risk");
    const wanted = kind ? kind.value : "";
    let count = 0;
    for (const policy of policies) {
      const { action, risk, kind: its } = policy.dataset;
      const fits = (!actions.length || actions.includes(action)) && (!risks.length || risks.includes(risk)) &&
        (!wanted || wanted === its) && words.every((word) => text(policy).includes(word));
      policy.hidden = !fits;
      count += fits;
    }
    status.textContent = `${count} of ${policies.length} shown`;
    document.querySelector(".nothing").hidden = count > 0;
    bar.querySelector('[data-do="clear"]').hidden = count === policies.length;
  }

  function clear() {
    search.value = "";
    if (kind) kind.value = "";
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    apply();
  }

  if (form) {
    let timer = 0;
    search.addEventListener("input", () => {
      window.clearTimeout(timer);
      timer = window.setTimeout(apply, 80);
    });
    form.addEventListener("submit", (event) => { event.preventDefault(); apply(); });
    form.addEventListener("change", apply);
    for (const button of buttons) {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        apply();
      });
    }
    const actions = {
      open: () => { for (const policy of shown()) details(policy).open = true; },
      close: () => { for (const policy of shown()) details(policy).open = false; },
      clear: () => { clear(); search.focus(); },
    };
    for (const button of all("[data-do]")) button.addEventListener("click", actions[button.dataset.do]);
    reveal(form);
    reveal(bar);
  }

  // --- keyboard: from one policy to the next --------------------------------------------------------
  const steps = { ArrowDown: 1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const policy = event.target.closest(".policies > li > details > summary")?.closest("li");
    if (!policy) return;
    const visible = shown();
    const next = event.key === "Home" ? visible[0] : event.key === "End" ? visible.at(-1)
      : event.key in steps ? visible[visible.indexOf(policy) + steps[event.key]] : null;
    if (!next) return;
    event.preventDefault();
    next.querySelector("summary").focus();
  });

  window.addEventListener("hashchange", openTarget);
  openTarget();
})();
