// The script of the page about a bias: buttons that copy commands, and labelling of images.
"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const make = (name, text, act) => {
    const node = document.createElement(name);
    node.textContent = text;
    if (act) {
      node.type = "button";
      node.addEventListener("click", act);
    }
    return node;
  };

  for (const command of document.querySelectorAll(".command")) {
    const code = command.querySelector("code");
    const button = make("button", "Copy", async () => {
      let copied = true;
      try {
        await navigator.clipboard.writeText(code.textContent);
      } catch { // without permission, or in an old browser
        getSelection().selectAllChildren(code);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Press Ctrl+C";
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
    command.append(button);
  }

  const section = element("labelling");
  if (!section) return;
  const { key, column } = section.dataset;
  const items = [...element("strip").children];
  const ids = items.map((item) => item.dataset.id);
  const stage = element("stage");
  let values = []; // names of the values of the property, in the order of their keys
  let labels = {}; // id of an image -> value
  let current = 0; // position of the large image
  let past = []; // [position, previous label] of every change, for undo

  // Storage may be unavailable, for example in a private window.
  const warn = () => {
    element("storage").textContent =
      "Your browser cannot keep the labels. Download the file before you close this page.";
  };
  const load = () => {
    let text = null;
    try {
      text = localStorage.getItem(key);
    } catch {
      warn();
    }
    const saved = JSON.parse(text) || { values: [], labels: {} };
    values = saved.values;
    labels = saved.labels;
  };
  const save = () => {
    try {
      localStorage.setItem(key, JSON.stringify({ values, labels }));
    } catch {
      warn();
    }
  };

  const say = () => {
    const used = new Set(Object.values(labels));
    const missing = ids.length - Object.keys(labels).length;
    element("progress").value = ids.length - missing;
    element("download").disabled = missing === ids.length;
    const parts = [`${ids.length - missing} of ${ids.length} labelled.`];
    if (!values.length) parts.push("Add at least two values first.");
    else if (used.size === 1) parts.push("At least two values must be used.");
    else if (!missing) parts.push("Download the file now.");
    if (missing && used.size > 1) parts.push("Images without a label are left out of the file.");
    element("status").textContent = parts.join(" ");
  };

  const render = () => {
    items.forEach((item, i) => {
      const label = labels[ids[i]];
      item.classList.toggle("labelled", label !== undefined);
      item.querySelector("b").textContent = label ?? "";
      item.querySelector("button").setAttribute("aria-current", i === current);
    });
    element("large").replaceChildren(items[current].querySelector(".tile").cloneNode());
    const [id, name] = [...items[current].querySelectorAll("small")].map((x) => x.textContent);
    const label = labels[ids[current]];
    element("caption").textContent =
      `Image ${current + 1} of ${ids.length}: ${id}, ${name}. ` +
      (label === undefined ? "No label." : `Label: ${label}.`);
    element("values").replaceChildren(
      ...values.map((value, i) => {
        const count = Object.values(labels).filter((x) => x === value).length;
        const choice = make("button", `${i < 9 ? `${i + 1} ` : ""}${value}`, () => tag(value));
        choice.setAttribute("aria-pressed", label === value);
        const row = make("span", "");
        row.append(choice, make("small", ` ${count} `));
        if (!count) {
          const remove = make("button", "×", () => {
            values = values.filter((x) => x !== value);
            change();
          });
          remove.setAttribute("aria-label", `Remove the value ${value}`);
          row.append(remove);
        }
        return row;
      }),
    );
    say();
  };

  const change = () => {
    save();
    render();
    stage.focus({ preventScroll: true });
  };
  const show = (position) => {
    current = (position + ids.length) % ids.length;
    render();
  };
  // Move to the next image without a label, or stay if all have one.
  const advance = () => {
    for (let step = 1; step < ids.length; step++) {
      const position = (current + step) % ids.length;
      if (!(ids[position] in labels)) return show(position);
    }
    render();
  };
  const tag = (value) => {
    past.push([current, labels[ids[current]]]);
    labels[ids[current]] = value;
    save();
    advance();
    stage.focus({ preventScroll: true });
  };
  const actions = {
    previous: () => show(current - 1),
    next: () => show(current + 1),
    skip: advance,
    undo: () => {
      if (!past.length) return;
      const [position, label] = past.pop();
      current = position;
      if (label === undefined) delete labels[ids[position]];
      else labels[ids[position]] = label;
      change();
    },
    clear: () => {
      if (!confirm("Delete all labels on this page?")) return;
      [labels, past] = [{}, []];
      change();
    },
  };

  items.forEach((item, i) => {
    const button = make("button", "", () => {
      show(i);
      stage.scrollIntoView({ block: "nearest" });
      stage.focus({ preventScroll: true });
    });
    button.append(...item.childNodes, make("b", ""));
    item.append(button);
  });
  for (const button of section.querySelectorAll("[data-do]"))
    button.addEventListener("click", () => actions[button.dataset.do]());

  element("add").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = element("value");
    const value = field.value.trim().replace(/\s+/g, " ");
    field.value = "";
    const same = (x) => x.toLowerCase() === value.toLowerCase();
    if (!value || values.some(same)) return;
    values.push(value);
    save();
    render();
  });

  const keys = { ArrowLeft: "previous", ArrowRight: "next", s: "skip", u: "undo" };
  section.addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.altKey || event.metaKey) return;
    const value = /^[1-9]$/.test(event.key) ? values[event.key - 1] : undefined;
    const action = keys[event.key] ?? keys[event.key.toLowerCase()];
    if (value !== undefined) tag(value);
    else if (action) actions[action]();
    else return;
    event.preventDefault();
  });

  element("download").addEventListener("click", () => {
    const quote = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const lines = ids.filter((id) => id in labels).map((id) => [id, labels[id]]);
    const rows = [[column, "attribute"], ...lines].map((row) => row.map(quote).join(",") + "\n");
    const link = make("a", "");
    link.href = URL.createObjectURL(new Blob(rows, { type: "text/csv" }));
    link.download = "labels.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });

  // Another window may label the same images.
  addEventListener("storage", (event) => {
    if (event.key !== key) return;
    past = [];
    load();
    render();
  });

  load();
  current = Math.max(0, ids.findIndex((id) => !(id in labels)));
  element("tagger").hidden = false;
  render();
})();
