"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const slider = byId("setting");
  if (!slider) return;

  const { positions } = JSON.parse(byId("positions").textContent);
  const policy = byId("policy");
  const moved = byId("moved");
  const groups = [...document.querySelectorAll("[data-group]")];
  const samples = [...document.querySelectorAll("[data-sample]")].sort(
    (one, other) => one.dataset.sample - other.dataset.sample,
  );
  let shown = Number(slider.getAttribute("value"));

  // the samples keep their order within a group, so each is appended again
  const place = (exits, before) => {
    let changes = 0;
    samples.forEach((sample, index) => {
      const changed = exits[index] !== before[index];
      changes += changed;
      sample.classList.toggle("changed", changed);
      sample.querySelector(".badge").hidden = !changed;
      groups[exits[index]].append(sample);
    });
    if (moved) moved.textContent = changes ? `${changes} of ${samples.length} pictures moved` : "";
  };

  const show = () => {
    const before = positions[shown];
    shown = Number(slider.value);
    const now = positions[shown];
    for (const [name, text] of Object.entries(now.texts)) {
      for (const node of document.querySelectorAll(`[data-text="${name}"]`)) node.textContent = text;
    }
    for (const [name, transform] of Object.entries(now.moves)) {
      document.querySelector(`[data-moves="${name}"]`).setAttribute("transform", transform);
    }
    policy.textContent = now.policy;
    slider.setAttribute("aria-valuetext", now.spoken);
    place(now.exits, before.exits);
  };

  const copy = byId("copy");
  copy.hidden = false;
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(policy);
    try {
      await navigator.clipboard.writeText(policy.textContent);
    } catch {
      document.execCommand("copy"); // the clipboard's own interface is kept from some local files
    }
    copy.textContent = "Copied";
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });

  slider.disabled = false;
  slider.addEventListener("input", show);
})();
