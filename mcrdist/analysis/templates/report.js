"use strict";
(() => {
  const root = document.documentElement, marks = root.dataset;
  const $ = (id) => document.getElementById(id);
  const read = (id) => ($(id) ? JSON.parse($(id).textContent) : null);
  const view = read("view"), mesh = read("mesh");
  const axes = view ? view.axes : [], plane = { z: ["y", "x"], y: ["z", "x"], x: ["z", "y"] };

  /* Slices ------------------------------------------------------------------------------------- */
  const at = {};
  const listeners = [];
  const length = (value) => Number(value.toPrecision(3)).toString();

  function show(axis, k) {
    const slices = view.slices[axis];
    at[axis] = Math.max(0, Math.min(slices.images.length - 1, k));
    const index = slices.index[at[axis]], h = view.voxel[axes.indexOf(axis)];
    $("image-" + axis).src = slices.images[at[axis]];
    $("image-" + axis).alt = `Plane ${axis} = ${index}`;
    $("slider-" + axis).value = at[axis];
    $("where-" + axis).textContent = `${axis} = ${index}` + (view.known ? ` (${length(index * h)} ${view.unit})` : "");
    marks["slice" + axis.toUpperCase()] = index;
    listeners.forEach((listener) => listener());
  }
  function nearest(axis, index) {
    const all = view.slices[axis].index;
    return all.reduce((best, value, k) => (Math.abs(value - index) < Math.abs(all[best] - index) ? k : best), 0);
  }
  /* "#z=10,y=3" shows those planes: a link to what one talks about. */
  function fromFragment() {
    for (const [, axis, index] of decodeURIComponent(location.hash).matchAll(/([zyx])[=:](\d+)/g)) show(axis, nearest(axis, +index));
  }
  if (view) {
    for (const axis of axes) {
      const slider = $("slider-" + axis);
      slider.max = view.slices[axis].images.length - 1;
      slider.addEventListener("input", () => {
        show(axis, +slider.value);
        if ($("follow").checked) {
          const part = at[axis] / Math.max(1, view.slices[axis].images.length - 1);
          for (const other of axes) if (other !== axis) show(other, Math.round(part * (view.slices[other].images.length - 1)));
        }
      });
      show(axis, Math.floor(view.slices[axis].images.length / 2));
    }
    /* Enlarged, a voxel should be a crisp square; reduced, skipping voxels would make patterns of its own. */
    const crisp = () => document.querySelectorAll(".planes img").forEach((image) => {
      const columns = +getComputedStyle(image).getPropertyValue("--w");
      image.style.imageRendering = image.clientWidth * devicePixelRatio < columns ? "auto" : "pixelated";
    });
    addEventListener("resize", crisp);
    crisp();
    document.querySelectorAll(".before").forEach((box) => box.addEventListener("change", () => {
      const [segmented, grey] = box.closest("figure").querySelectorAll("img");
      segmented.hidden = box.checked;
      grey.hidden = !box.checked;
      crisp();
    }));
    addEventListener("hashchange", fromFragment);
    fromFragment();
  }

  /* A block with an octant cut out at the three sliders: flat pictures placed in space by CSS. --- */
  function block(stage) {
    const turn = stage.querySelector(".turn"), size = view.size;
    const real = {}, scale = {};
    axes.forEach((axis, k) => { real[axis] = size[axis] * view.voxel[k]; });
    const longest = Math.max(...axes.map((axis) => real[axis]));
    let yaw = -0.62, pitch = 0.5;
    /* Screen: right, down, towards the reader. x runs right, z up, y away. */
    const unit = { x: [1, 0, 0], y: [0, 0, -1], z: [0, -1, 0] };
    /* Rectangles only: browsers sort those in depth reliably, which they do not once clip paths or filters are
       in play. A face with a corner missing is a band of whole rows and the rest of the other rows. */
    const faces = [];
    /* The octant taken out: low y (in front), high x (right), high z (above). */
    const side = { z: "high", y: "low", x: "high" };
    for (const axis of axes) {
      const last = view.slices[axis].images.length - 1;
      for (const kind of ["low", "high", "cut"]) {
        for (const part of kind === side[axis] ? ["band", "rest"] : ["all"]) {
          const element = document.createElement("div");
          turn.appendChild(element);
          faces.push({ axis, kind, part, element, last });
        }
      }
    }
    const names = axes.map((axis) => {
      const element = document.createElement("span");
      element.className = "name"; element.textContent = axis;
      stage.appendChild(element);
      return { axis, element };
    });

    function dimensions() {
      const pixels = (Math.min(stage.clientWidth, stage.clientHeight) * 0.98 * longest) / Math.hypot(...Object.values(real));
      axes.forEach((axis) => { scale[axis] = (real[axis] / longest) * pixels / size[axis]; });
    }
    function where(axis) { /* position of the cut in pixels of the slices */
      return Math.min(size[axis], view.slices[axis].index[at[axis]] / view.factor);
    }
    function shape() {
      dimensions();
      const cut = (name) => where(name) * scale[name], full = (name) => size[name] * scale[name];
      const taken = (name) => (side[name] === "low" ? [0, cut(name)] : [cut(name), full(name)]);
      const left = (name) => (side[name] === "low" ? [cut(name), full(name)] : [0, cut(name)]);
      for (const face of faces) {
        const { axis, kind, part, element } = face, [rows, columns] = plane[axis];
        let [top, bottom] = kind === "cut" || part === "rest" ? taken(rows) : part === "band" ? left(rows) : [0, full(rows)];
        /* The two parts of a face overlap by a pixel, or a hairline would show between them. */
        if (part === "rest") [top, bottom] = [Math.max(0, top - 1), Math.min(full(rows), bottom + 1)];
        const [west, east] = kind === "cut" ? taken(columns) : part === "rest" ? left(columns) : [0, full(columns)];
        const depth = kind === "low" ? 0 : kind === "high" ? full(axis) : cut(axis);
        const image = kind === "low" ? 0 : kind === "high" ? face.last : at[axis];
        const from = { [rows]: top, [columns]: west, [axis]: depth };
        const origin = [0, 1, 2].map((k) => axes.reduce((sum, name) => sum + unit[name][k] * (from[name] - full(name) / 2), 0));
        const u = unit[columns], v = unit[rows];
        const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        const style = element.style;
        style.width = east - west + "px"; style.height = bottom - top + "px";
        style.transform = `matrix3d(${[...u, 0, ...v, 0, ...n, 0, ...origin, 1].join(",")})`;
        style.backgroundSize = `${full(columns)}px ${full(rows)}px`;
        style.backgroundPosition = `${-west}px ${-top}px`;
        style.imageRendering = scale[columns] * devicePixelRatio < 1 ? "auto" : "pixelated";
        const url = view.slices[axis].images[image];
        if (face.url !== url) { style.backgroundImage = `url(${url})`; face.url = url; }
      }
      pose();
    }
    function pose() {
      turn.style.transform = `rotateX(${-pitch}rad) rotateY(${yaw}rad)`;
      const rotate = ([a, b, c]) => {
        const x = a * Math.cos(yaw) + c * Math.sin(yaw), z = -a * Math.sin(yaw) + c * Math.cos(yaw);
        return [x, b * Math.cos(pitch) + z * Math.sin(pitch), -b * Math.sin(pitch) + z * Math.cos(pitch)];
      };
      const facing = {}; /* +1: the high side of the axis faces the reader, -1: the low side */
      for (const axis of axes) facing[axis] = Math.sign(rotate(unit[axis])[2]) || 1;
      for (const face of faces) { /* light from above on the left, behind the reader */
        const n = rotate(unit[face.axis]), light = Math.abs(n[0] * -0.38 + n[1] * -0.74 + n[2] * 0.55);
        /* Inner faces look towards the octant taken out. What looks away is hidden anyway and would shine through at edges. */
        const outward = (face.kind === "cut" ? side[face.axis] : face.kind) === "high" ? 1 : -1;
        face.element.style.visibility = outward === facing[face.axis] ? "visible" : "hidden";
        const grey = Math.round(255 * (0.76 + 0.24 * Math.min(1, light * 1.25)));
        face.element.style.backgroundColor = `rgb(${grey},${grey},${grey})`;
      }
      for (const { axis, element } of names) { /* beside an edge of the outline, the lower or left one of the two */
        const [b, c] = axes.filter((name) => name !== axis);
        let best = null;
        for (const sb of [-1, 1]) for (const sc of [-1, 1]) {
          if ((sb === facing[b]) === (sc === facing[c])) continue;
          const point = { [axis]: 0, [b]: sb * 0.5, [c]: sc * 0.5 };
          const p = rotate([0, 1, 2].map((k) => axes.reduce((sum, name) => sum + unit[name][k] * point[name] * size[name] * scale[name], 0)));
          if (!best || p[1] - 0.4 * p[0] > best[1] - 0.4 * best[0]) best = p;
        }
        const far = 1 + 16 / Math.hypot(best[0], best[1]);
        element.style.left = stage.clientWidth / 2 + best[0] * far + "px";
        element.style.top = stage.clientHeight / 2 + best[1] * far + "px";
      }
    }
    let from = null;
    stage.addEventListener("pointerdown", (event) => { from = [event.clientX, event.clientY]; stage.setPointerCapture(event.pointerId); });
    stage.addEventListener("pointermove", (event) => {
      if (!from) return;
      yaw += (event.clientX - from[0]) * 0.008;
      pitch = Math.max(-1.5, Math.min(1.5, pitch + (event.clientY - from[1]) * 0.008));
      from = [event.clientX, event.clientY];
      pose();
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { from = null; });
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[event.key];
      if (!step) return;
      event.preventDefault();
      yaw += step[0]; pitch = Math.max(-1.5, Math.min(1.5, pitch + step[1]));
      pose();
    });
    listeners.push(shape);
    addEventListener("resize", shape);
    shape();
    marks.block = turn.children.length;
  }
  if (view && $("cut")) block($("cut"));

  /* The surface -------------------------------------------------------------------------------- */
  if (mesh && window.Plotly) {
    Plotly.newPlot("surface", mesh.data, mesh.layout, { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false })
      .then((element) => {
        marks.surface = element.querySelector("canvas") ? "drawn" : "none";
        marks.ready = "yes";
      }, (error) => { marks.errors = String(error); marks.ready = "yes"; });
  } else {
    marks.ready = "yes";
  }
})();
