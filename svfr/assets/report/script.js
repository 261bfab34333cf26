// One button plays or pauses all clips of a card, from the same moment.
for (const button of document.querySelectorAll("button[data-play]")) {
  button.addEventListener("click", () => {
    const clips = [...button.closest(".card").querySelectorAll("video")];
    const start = clips.every((clip) => clip.paused);
    for (const clip of clips) {
      if (start) { clip.currentTime = 0; clip.play(); } else { clip.pause(); }
    }
    button.textContent = start ? "pause" : "play together";
  });
}

function add(parent, name, properties = {}) {
  const element = document.createElement(name);
  Object.assign(element, properties);
  parent.append(element);
  return element;
}

function data(details) { return JSON.parse(details.querySelector("script").textContent); }

function onFirstOpening(selector, build) {
  for (const details of document.querySelectorAll(selector)) {
    details.addEventListener("toggle", () => build(details), { once: true });
  }
}

// Heads of a table sort its rows, a second click the other way; what has no figure comes last.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.dataset.order === "up";
    heads.forEach((other) => delete other.dataset.order);
    head.dataset.order = down ? "down" : "up";
    const key = (row) => {
      const cell = row.cells[column];
      return column < 2 ? cell.textContent : "value" in cell.dataset ? Number(cell.dataset.value) : null;
    };
    const rows = [...table.tBodies[0].rows];
    rows.sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      return (typeof a === "string" ? a.localeCompare(b) : a - b) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  }));
}

// Distributions of the same figures: one dot a video, one line a method.
for (const section of document.querySelectorAll("[data-distributions]")) {
  const table = section.querySelector("table");
  const [main, others] = section.querySelectorAll(".plots");
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const methods = new Map();
    for (const row of column < 2 ? [] : table.tBodies[0].rows) {
      const method = row.cells[1].textContent;
      const value = row.cells[column].dataset.value;
      if (value === undefined || (method === "ground truth" && !("alone" in head.dataset))) continue;  // perfect
      if (!methods.has(method)) methods.set(method, { colour: row.dataset.colour, points: [] });
      methods.get(method).points.push({ video: row.cells[0].textContent, value: Number(value) });
    }
    if (methods.size) plotDistribution("main" in head.dataset ? main : others, head.textContent, methods);
  });
  if (!others.children.length) others.closest("details").remove();
}

function plotDistribution(parent, title, methods) {
  const values = [...methods.values()].flatMap(({ points }) => points.map(({ value }) => value));
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) { const room = (Math.abs(low) || 1) * 0.05; [low, high] = [low - room, high + room]; }
  const rough = (high - low) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const [first, last] = [Math.floor(low / step), Math.ceil(high / step)];
  const x = (value) => (104 + 224 * (value / step - first) / (last - first)).toFixed(1);
  const bottom = 22 * methods.size;
  let svg = "";
  for (let tick = first; tick <= last; tick++) {
    const at = x(tick * step);
    svg += `<line x1="${at}" y1="2" x2="${at}" y2="${bottom}" stroke="#e3e8ee"/>`;
    svg += `<text x="${at}" y="${bottom + 15}" text-anchor="middle" fill="#8a97a6">${Number((tick * step).toPrecision(6))}</text>`;
  }
  const figure = add(parent, "figure");
  add(figure, "figcaption", { textContent: title });
  figure.insertAdjacentHTML("beforeend", `<svg viewBox="0 0 340 ${bottom + 20}" role="img" font-size="11">${svg}</svg>`);
  let y = 11;
  for (const [method, { colour, points }] of methods) {
    const draw = (name, text, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      element.textContent = text;
      figure.lastChild.append(element);
      return element;
    };
    const label = method.length > 16 ? `${method.slice(0, 15)}…` : method;
    draw("text", label, { x: 0, y: y + 4, fill: colour });
    points.forEach(({ video, value }, at) => {  // spread in a fixed pattern, so that equal values do not hide each other
      const dot = { cx: x(value), cy: y + ((at * 5) % 9 - 4) * 0.9, r: 3, fill: colour, "fill-opacity": 0.45 };
      const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
      title.textContent = `${video}: ${Number(value.toPrecision(5))}`;
      draw("circle", "", dot).append(title);
    });
    const mean = x(points.reduce((sum, { value }) => sum + value, 0) / points.length);
    draw("line", "", { x1: mean, y1: y - 8, x2: mean, y2: y + 8, stroke: colour, "stroke-width": 2 });
    y += 22;
  }
}

// Two methods on one frame, each at its own pixels; the line between them follows the pointer.
onFirstOpening("details[data-slider]", (details) => {
  const methods = data(details).filter((method) => Object.keys(method.frames).length);
  if (!methods.length) { add(details, "p", { textContent: "No frames were kept." }); return; }
  const indices = (method) => Object.keys(method.frames).map(Number).sort((a, b) => a - b);
  const indexAt = (method) => indices(method)[Math.min(time.value, indices(method).length - 1)];
  const bar = add(details, "div", { className: "slider-bar" });
  const choose = (index, label) => {
    const select = add(bar, "select", { ariaLabel: label });
    for (const method of methods) add(select, "option", { textContent: method.name });
    select.selectedIndex = index;
    select.addEventListener("change", show);
    return select;
  };
  const named = (name) => methods.findIndex((method) => method.name === name);
  const ours = methods.findIndex((method) => !method.baseline);
  const left = choose(Math.max(0, named("degraded input") < 0 ? named("bicubic") : named("degraded input")), "left");
  const right = choose(ours < 0 ? methods.length - 1 : ours, "right");
  const time = add(bar, "input", { type: "range", min: 0, max: indices(methods[0]).length - 1, value: 0, ariaLabel: "frame" });
  const label = add(bar, "span");
  const stage = add(details, "div", { className: "slider" });
  const images = [right, left].map(() => add(stage, "img", { alt: "", decoding: "sync" }));  // the left one lies on top
  const line = add(stage, "div", { className: "slider-line" });
  let latest = 0;
  async function show() {
    const turn = ++latest;
    const loaded = await Promise.all([right, left].map(async (select) => {
      const image = new Image();
      const done = new Promise((resolve) => { image.onload = image.onerror = resolve; });
      const method = methods[select.selectedIndex];
      image.src = method.frames[indexAt(method)];
      await done;
      return image.src;
    }));
    if (turn !== latest) return;  // another frame was asked for meanwhile
    images.forEach((image, at) => { image.src = loaded[at]; });
    label.textContent = `frame ${indexAt(methods[left.selectedIndex])}`;
  }
  function split(share) {
    images[1].style.clipPath = `inset(0 ${100 - 100 * share}% 0 0)`;
    line.style.left = `${100 * share}%`;
  }
  const follow = (event) => {
    const box = stage.getBoundingClientRect();
    split(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  stage.addEventListener("pointermove", follow);
  stage.addEventListener("pointerdown", follow);
  time.addEventListener("input", show);
  split(0.5);
  show();
});

// Curves over frames: one small plot a column, one line a method.
onFirstOpening("details[data-curves]", (details) => {
  const { last, curves, colours } = data(details);
  function stroke(method) { return `stroke="${colours[method]}" stroke-dasharray="${dashes[method]}" stroke-width="1.5"`; }
  const legend = add(details, "p", { className: "legend" });
  const dashes = {};  // tell rows of the same gray apart
  for (const [method, colour] of Object.entries(colours)) {
    const same = Object.keys(dashes).filter((other) => colours[other] === colour).length;
    dashes[method] = ["", "6 3", "2 3", "8 3 2 3"][same % 4];
    const mark = `<svg width="26" height="6"><line x2="26" y1="3" y2="3" ${stroke(method)}/></svg> `;
    add(legend, "span", { textContent: method }).insertAdjacentHTML("afterbegin", mark);
  }
  const plots = add(details, "div", { className: "plots" });
  const [width, height, left, bottom] = [340, 120, 48, 16];
  for (const [column, lines] of Object.entries(curves)) {
    const values = Object.values(lines).flat().filter((value) => value !== null);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const span = high - low || Math.abs(high) || 1;
    const y = (value) => (height - bottom - 4) * (1 - (value - low) / span) + 4;
    const figure = add(plots, "figure");
    add(figure, "figcaption", { textContent: column });
    let svg = "";
    for (const value of high > low ? [low, high] : [low]) {
      svg += `<line x1="${left}" x2="${width}" y1="${y(value)}" y2="${y(value)}" stroke="#e3e8ee"/>`;
      svg += `<text x="${left - 4}" y="${y(value) + 4}" text-anchor="end">${Number(value.toPrecision(3))}</text>`;
    }
    for (const [method, points] of Object.entries(lines)) {
      const x = (at) => left + (width - left - 4) * at / Math.max(1, points.length - 1);
      const path = points.map((value, at) => (value === null ? "" : `${x(at).toFixed(1)},${y(value).toFixed(1)}`));
      svg += `<polyline points="${path.filter(Boolean).join(" ")}" fill="none" ${stroke(method)}/>`;
    }
    svg += `<text x="${left}" y="${height - 2}">0</text>`;
    svg += `<text x="${width - 4}" y="${height - 2}" text-anchor="end">${last}</text>`;
    svg = `<svg viewBox="0 0 ${width} ${height}" font-size="11" fill="#8a97a6">${svg}</svg>`;
    figure.insertAdjacentHTML("beforeend", svg);
  }
});
