"use strict";
for (const section of document.querySelectorAll(".graph")) {
  const panes = [...section.querySelectorAll(".pane")];
  const nodes = [...section.querySelectorAll(".pane button")];
  const folds = [...section.querySelectorAll(".pane details")];
  const status = section.querySelector("output");
  const byGroup = new Map();
  for (const node of nodes) {
    if (!byGroup.has(node.dataset.g)) byGroup.set(node.dataset.g, []);
    byGroup.get(node.dataset.g).push(node);
  }
  const paneOf = (element) => element.closest(".pane");
  const other = (pane) => panes[1 - panes.indexOf(pane)];
  let quiet = 0; // until then, scrolling is our own and is not followed

  function show(element, top) {
    const pane = paneOf(element);
    quiet = performance.now() + 120;
    pane.scrollTop += element.getBoundingClientRect().top - pane.getBoundingClientRect().top - top;
  }

  function choose(node) {
    const lit = node.classList.contains("hit") && node.dataset.chosen;
    for (const one of nodes) { one.classList.remove("hit"); delete one.dataset.chosen; }
    status.textContent = "";
    if (lit) return;
    const group = node.dataset.g === "-1" ? [node] : byGroup.get(node.dataset.g);
    node.dataset.chosen = "1";
    for (const one of group) { one.classList.add("hit"); one.closest("details").open = true; }
    const there = group.filter((one) => paneOf(one) !== paneOf(node));
    const rules = node.title ? " by " + node.title : "";
    status.textContent = there.length ? group.length - there.length + " here, " + there.length + " on the other side" + rules : "nothing on the other side";
    if (there.length) show(there[0], node.getBoundingClientRect().top - paneOf(node).getBoundingClientRect().top);
  }

  function follow(pane) {
    if (performance.now() < quiet) return;
    const edge = pane.getBoundingClientRect().top;
    const first = [...pane.querySelectorAll("summary, button")].find((one) => one.offsetParent && one.getBoundingClientRect().bottom > edge + 2);
    if (!first) return;
    const top = first.getBoundingClientRect().top - edge;
    const group = byGroup.get(first.dataset.g) || [];
    const twin = group.find((one) => paneOf(one) !== pane && one.offsetParent);
    const key = first.closest("details").dataset.k;
    const fold = other(pane).querySelector('details[data-k="' + key + '"] > summary');
    if (twin || fold) show(twin || fold, top);
  }

  function filter(text) {
    const wanted = text.trim().toLowerCase();
    for (const node of nodes) node.parentElement.hidden = wanted !== "" && !node.textContent.toLowerCase().includes(wanted);
    for (const fold of folds) {
      const left = fold.querySelector("li:not([hidden])");
      fold.hidden = !left;
      if (wanted) fold.open = Boolean(left);
    }
    status.textContent = wanted ? nodes.filter((node) => !node.parentElement.hidden).length + " nodes" : "";
  }

  for (const pane of panes) {
    pane.addEventListener("scroll", () => requestAnimationFrame(() => follow(pane)));
    pane.addEventListener("click", (event) => { const node = event.target.closest("button"); if (node) choose(node); });
  }
  for (const fold of folds) {
    fold.addEventListener("toggle", () => {
      const twin = other(paneOf(fold)).querySelector('details[data-k="' + fold.dataset.k + '"]');
      if (twin) twin.open = fold.open;
    });
  }
  section.querySelector(".filter").addEventListener("input", (event) => filter(event.target.value));
  for (const button of section.querySelectorAll(".all")) {
    button.addEventListener("click", () => { for (const fold of folds) fold.open = "open" in button.dataset; });
  }
}
addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });
