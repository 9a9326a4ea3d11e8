"use strict";
(() => {
  const root = document.documentElement, marks = root.dataset;
  const $ = (id) => document.getElementById(id);
  const read = (id) => ($(id) ? JSON.parse($(id).textContent) : null);
  const view = read("view"), mesh = read("mesh");
  const axes = ["z", "y", "x"], plane = { z: ["y", "x"], y: ["z", "x"], x: ["z", "y"] };

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
    const faces = [];
    for (const axis of axes) {
      const last = view.slices[axis].images.length - 1;
      for (const side of ["low", "high", "cut"]) {
        const element = document.createElement("div");
        element.dataset.face = axis + "-" + side;
        turn.appendChild(element);
        faces.push({ axis, side, element, last });
      }
    }
    /* The octant taken out: low y (in front), high x (right), high z (above). */
    const side = { z: "high", y: "low", x: "high" };
    const names = axes.map((axis) => {
      const element = document.createElement("span");
      element.className = "name"; element.textContent = axis;
      stage.appendChild(element);
      return { axis, element };
    });

    function dimensions() {
      const pixels = Math.min(stage.clientWidth, stage.clientHeight) * 0.57;
      axes.forEach((axis) => { scale[axis] = (real[axis] / longest) * pixels / size[axis]; });
    }
    function where(axis) { /* position of the cut in pixels of the slices */
      return Math.min(size[axis], view.slices[axis].index[at[axis]] / view.factor);
    }
    function shape() {
      dimensions();
      for (const face of faces) {
        const { axis, element } = face, [rows, columns] = plane[axis];
        const w = size[columns] * scale[columns], h = size[rows] * scale[rows];
        const position = face.side === "low" ? 0 : face.side === "high" ? size[axis] : where(axis);
        const image = face.side === "low" ? 0 : face.side === "high" ? face.last : at[axis];
        const from = (name) => ((name === axis ? position : 0) - size[name] / 2) * scale[name];
        const origin = [0, 1, 2].map((k) => axes.reduce((sum, name) => sum + unit[name][k] * from(name), 0));
        const u = unit[columns], v = unit[rows];
        const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
        element.style.width = w + "px"; element.style.height = h + "px";
        element.style.transform = `matrix3d(${[...u, 0, ...v, 0, ...n, 0, ...origin, 1].join(",")})`;
        const url = view.slices[axis].images[image];
        if (face.url !== url) { element.style.backgroundImage = `url(${url})`; face.url = url; }
        /* The rectangle of this plane that bounds the octant taken out. */
        const ends = (name) => {
          const cut = where(name) * scale[name];
          return side[name] === "low" ? [0, cut] : [cut, size[name] * scale[name]];
        };
        const [left, right] = ends(columns), [top, bottom] = ends(rows);
        if (face.side === "cut") {
          element.style.clipPath = `polygon(${left}px ${top}px, ${right}px ${top}px, ${right}px ${bottom}px, ${left}px ${bottom}px)`;
        } else if (face.side === side[axis]) {
          element.style.clipPath = `polygon(evenodd, 0 0, ${w}px 0, ${w}px ${h}px, 0 ${h}px, 0 0, ` +
            `${left}px ${top}px, ${right}px ${top}px, ${right}px ${bottom}px, ${left}px ${bottom}px, ${left}px ${top}px)`;
        }
      }
      pose();
    }
    function pose() {
      turn.style.transform = `rotateX(${-pitch}rad) rotateY(${yaw}rad)`;
      const rotate = ([a, b, c]) => {
        const x = a * Math.cos(yaw) + c * Math.sin(yaw), z = -a * Math.sin(yaw) + c * Math.cos(yaw);
        return [x, b * Math.cos(pitch) + z * Math.sin(pitch), -b * Math.sin(pitch) + z * Math.cos(pitch)];
      };
      for (const face of faces) { /* light from above on the left, behind the reader */
        const n = rotate(unit[face.axis]), light = Math.abs(n[0] * -0.42 + n[1] * -0.72 + n[2] * 0.55);
        face.element.style.filter = `brightness(${(0.62 + 0.38 * Math.min(1, light * 1.15)).toFixed(3)})`;
      }
      for (const { axis, element } of names) { /* at the middle of the edge that starts in the front lower left corner */
        const point = { x: -0.5, y: -0.5, z: -0.5 };
        point[axis] = 0;
        for (const other of axes) if (other !== axis) point[other] *= 1.16;
        const p = rotate([0, 1, 2].map((k) => axes.reduce((sum, name) => sum + unit[name][k] * point[name] * size[name] * scale[name], 0)));
        element.style.left = stage.clientWidth / 2 + p[0] + "px";
        element.style.top = stage.clientHeight / 2 + p[1] + "px";
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
